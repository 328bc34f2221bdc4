"""Polar's answers as facts: usage, names of events, events without their customers, prices, credits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, ValidationError

from polar_iac.facts.model import Credit, Day, EventName, Price
from polar_iac.polar.answers import Page
from polar_iac.polar.errors import TransientError

T = TypeVar("T")

_MOST_ITEMS = 10**12
"""More items than any list has. Random draws fail for some numbers above it."""


def _in_utc(time: datetime) -> datetime:
    """Return a time in UTC. Raises ValueError for the hours at either end of the calendar."""
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time that is out of range in UTC") from error


_Quantity = Annotated[float, Field(gt=-1e300, lt=1e300)]
"""A quantity small enough that hundreds of them can be added up."""
_Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class _Bucket(BaseModel):
    timestamp: AwareDatetime
    quantity: _Quantity


class _Quantities(BaseModel):
    quantities: list[_Bucket]
    total: _Quantity


class _Name(BaseModel):
    name: str
    source: Literal["user", "system"]
    occurrences: Annotated[int, Field(ge=0)]
    first_seen: _Time
    last_seen: _Time


class _Event(BaseModel):
    id: str
    name: str
    source: str
    timestamp: _Time
    metadata: dict[str, Any]
    customer_id: str | None = None
    external_customer_id: str | None = None


class _Price(BaseModel):
    """A price of any kind. Only a metered one has a meter."""

    id: str
    is_archived: bool = False
    meter_id: str | None = None
    unit_amount: str | None = None
    price_currency: str = "usd"


class _Product(BaseModel):
    id: str
    name: str
    is_archived: bool
    prices: list[_Price]


class _CreditProperties(BaseModel):
    meter_id: str


class _Benefit(BaseModel):
    id: str
    type: str
    description: str
    is_deleted: bool = False
    properties: dict[str, Any] = {}


def _parsed(parse: Callable[[], T], thing: str) -> T:
    """Return what `parse` does. Raises TransientError if the answer does not have the expected form."""
    try:
        return parse()
    except ValidationError as error:
        raise TransientError(f"the response is not {thing} (truncated, or not from Polar)") from error


def days_from(answer: Any) -> tuple[Day, ...]:
    """Return the buckets of quantities by day.

    A label is the UTC day of its bucket where the query began at midnight (observed).
    """
    read = _parsed(lambda: _Quantities.model_validate(answer), "the quantities of a meter")
    return tuple(Day(bucket.timestamp.date().isoformat(), bucket.quantity) for bucket in read.quantities)


def life_from(answer: Any) -> float:
    """Return the total of quantities that begin in 2023, the earliest that Polar takes (observed)."""
    return _parsed(lambda: _Quantities.model_validate(answer), "the quantities of a meter").total


def names_from(page: Page) -> list[EventName]:
    """Return the names of a page."""
    read = _parsed(lambda: [_Name.model_validate(item) for item in page.items], "a list of event names")
    return [
        EventName(n.name, n.source, n.occurrences, _moment(n.first_seen), _moment(n.last_seen)) for n in read
    ]


def _moment(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def prices_from(page: Page) -> list[Price]:
    """Return the live metered prices of a page of products. Replaced prices are not in it (observed)."""
    products = _parsed(lambda: [_Product.model_validate(item) for item in page.items], "a list of products")
    return [
        Price(
            price.id,
            price.meter_id,
            product.id,
            product.name,
            product.is_archived,
            price.unit_amount,
            price.price_currency,
        )
        for product in products
        for price in product.prices
        if price.meter_id is not None and price.unit_amount is not None and not price.is_archived
    ]


def credits_from(page: Page) -> list[Credit]:
    """Return the benefits of a page that credit units of a meter. Deleted ones are not in it (observed)."""

    def read() -> list[Credit]:
        benefits = [_Benefit.model_validate(item) for item in page.items]
        return [
            Credit(b.id, _CreditProperties.model_validate(b.properties).meter_id, b.description)
            for b in benefits
            if b.type == "meter_credit" and not b.is_deleted
        ]

    return _parsed(read, "a list of benefits")


@dataclass(frozen=True)
class EventsPage:
    """One page of events, in the form of `EventsRead`.

    `total` is how many events the query has in all; 0 past the last page, whatever there is (observed).
    `ids` are those of the events, by which repeated ones are dropped: pages move while events come.
    """

    total: int
    events: tuple[Mapping[str, Any], ...]
    ids: tuple[str, ...]


@dataclass
class Customers:
    """Numbers that stand for customers. The same customer has the same number on every page.

    It is known by its id first, else by its external id, as `quantities` groups them (observed).
    """

    _numbers: dict[tuple[str, str], str] = field(default_factory=dict)

    def number(self, customer_id: str | None, external_id: str | None) -> str | None:
        """Return the number of a customer as text, or None for no customer."""
        if customer_id is None and external_id is None:
            return None
        key = ("id", customer_id) if customer_id is not None else ("external", str(external_id))
        return self._numbers.setdefault(key, str(len(self._numbers) + 1))


def events_from(page: Page, customers: Customers) -> EventsPage:
    """Return a page of events. Only a number is kept of each customer."""
    read = _parsed(lambda: [_Event.model_validate(item) for item in page.items], "a list of events")
    return EventsPage(
        max(page.pagination.total_count, len(read)),
        tuple(
            {
                "name": event.name,
                "source": event.source,
                "timestamp": event.timestamp.isoformat(),
                "metadata": _as_stored(event.metadata),
                "customer_id": customers.number(event.customer_id, event.external_customer_id),
            }
            for event in read
        ),
        tuple(event.id for event in read),
    )


def _as_stored(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as Polar stores it: `_cost.amount` is a number, but sent as text (observed)."""
    cost = metadata.get("_cost")
    if not isinstance(cost, dict) or not isinstance(cost.get("amount"), str):
        return metadata
    try:
        amount = float(cost["amount"])
    except ValueError:
        return metadata
    return {**metadata, "_cost": {**cost, "amount": amount}} if math.isfinite(amount) else metadata


def sound(answer: Any) -> Any:
    """Return an answer of finite numbers and Unicode text. Raises TransientError for any other.

    Polar stores no others (observed), but Python also reads `NaN`, `1e400` and half of a surrogate pair.
    """
    try:
        json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise TransientError(
            "the response holds an invalid number or invalid text (not from Polar)"
        ) from error
    return answer


def list_page_from(answer: Any) -> Page:
    """Parse a page of any list. Raises TransientError when the answer is not one."""
    page = _parsed(lambda: Page.model_validate(answer), "a list")
    if not 0 <= page.pagination.total_count <= _MOST_ITEMS:
        raise TransientError("the response is not a list: nothing has so many entries (not from Polar)")
    return page


def ids_of(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what identifies the items of a list: their ids, or the name and source of an event name."""
    return [str(item.get("id") or (item.get("name"), item.get("source"))) for item in items]


def own_items(items: Sequence[dict[str, Any]], organization_id: str | None) -> list[dict[str, Any]]:
    """Return the items of an organization; all of them if it is not known."""
    return [item for item in items if organization_id in (None, item.get("organization_id", organization_id))]
