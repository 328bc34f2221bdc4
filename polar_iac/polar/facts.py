"""Facts from Polar, within a budget: usage, names of events, events, prices and credits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx

from polar_iac.facts.model import Credit, EventName, Gap, Price, Source, Usage
from polar_iac.polar.answers import Page
from polar_iac.polar.connection import Connection
from polar_iac.polar.error_answers import error_from
from polar_iac.polar.errors import ApiError, TransientError
from polar_iac.polar.facts_answers import (
    Customers,
    EventsPage,
    credits_from,
    days_from,
    events_from,
    ids_of,
    life_from,
    list_page_from,
    names_from,
    own_items,
    prices_from,
    sound,
)
from polar_iac.polar.facts_budget import DAYS, MAX_DAYS, Budget, LackError
from polar_iac.polar.transport import Answer, json_of

T = TypeVar("T")

PAGE = 100
"""Items of one request. Polar silently clamps a larger limit (observed)."""
_MOST_PAGES = 10
"""Most pages of a list that are read. Names of events that hold an id, for example, may be many thousands."""
_EARLIEST = "2023-01-01T00:00:00Z"
"""Earliest start of quantities (observed)."""
_SCOPES: Mapping[Source, str] = {
    "usage": "meters:read",
    "names": "events:read",
    "events": "events:read",
    "products": "products:read",
    "benefits": "benefits:read",
}


@dataclass(frozen=True)
class Access:
    """A way to Polar: a connection with a token, or why there is none. `name` is the token's variable."""

    connection: Connection | None
    name: str
    lack: str = ""


class FactsReader:
    """Reader of facts. No method raises: what cannot be read is a `Gap`, which says why.

    `own` has the plan's token and reads usage; `facts` reads everything else, by a token with more scopes.
    After the first 429, and when requests or time are used up, nothing more is sent. At most one request is
    retried, after a transient error. `now` is the time by Polar's clock. `organization_id` keeps out what
    another organization's token would show. For one thread.
    """

    def __init__(
        self,
        own: Access,
        facts: Access,
        budget: Budget,
        *,
        organization_id: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._own, self._facts, self._budget = own, facts, budget
        self._organization_id = organization_id
        self._organization = {"organization_id": organization_id} if organization_id else {}
        self._now = now
        self._customers = Customers()
        self._may_retry = True
        self._over: LackError | None = None
        self._refused: dict[Source, LackError] = {}

    @property
    def requests(self) -> int:
        """Number of requests that were sent."""
        return self._budget.spent

    @property
    def left(self) -> int:
        """Number of requests that may be sent without a wait."""
        return 0 if self._over else self._budget.left

    def now(self) -> datetime:
        """Return the current time by Polar's clock, in UTC."""
        return self._now().astimezone(UTC)

    def _today(self) -> datetime:
        return self.now().replace(hour=0, minute=0, second=0, microsecond=0)

    def as_of(self) -> str:
        """Return the current time by Polar's clock as RFC 3339, to the second."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def usage(self, meter_id: str, days: int = DAYS) -> Usage | Gap:
        """Return what a meter counted, by day and over its life: two requests, or a gap for both."""
        recent = self.recent_usage(meter_id, days)
        if isinstance(recent, Gap):
            return recent
        life = self.life(meter_id)
        return life if isinstance(life, Gap) else replace(recent, life=life, as_of=self.as_of())

    def life(self, meter_id: str) -> float | Gap:
        """Return what a meter counted over its life: one request. Events before 2023 are out of reach."""
        query = _range(_EARLIEST, _moment(self._today()), "year")
        return self._usage_or(meter_id, query, life_from)

    def is_quiet(self, meter_id: str) -> bool | Gap:
        """Tell whether a meter counted nothing in the last 24 hours: one request.

        Buckets are whole hours (observed), so the range may be up to one hour longer.
        """
        query = _range(_moment(self.now() - timedelta(hours=24)), _moment(self.now()), "hour")
        hours = self._usage_or(meter_id, query, days_from)
        return hours if isinstance(hours, Gap) else not any(hour.quantity for hour in hours)

    def recent_usage(self, meter_id: str, days: int = DAYS) -> Usage | Gap:
        """Return what a meter counted on each of the last days, today included: one request.

        There are at most `MAX_DAYS` days.
        """
        first = self._today() - timedelta(days=min(days, MAX_DAYS) - 1)
        # With UTC midnights each bucket is the day of its label, and both ends are buckets (observed).
        query = _range(_moment(first), _moment(self._today()), "day")
        counted = self._usage_or(meter_id, query, days_from)
        return counted if isinstance(counted, Gap) else Usage(None, counted, self.as_of())

    def names(self) -> tuple[EventName, ...] | Gap:
        """Return every event name of the organization, most recent first. Sends one request per 100."""
        # An event name does not say which organization it belongs to.
        query = {"sorting": "-last_seen", **self._organization}

        def read() -> tuple[EventName, ...]:
            return tuple(
                name for page in self._pages("names", "/events/names", query) for name in names_from(page)
            )

        return self._gap_or("names", read)

    def prices(self) -> tuple[Price, ...] | Gap:
        """Return every live price that has a meter. Sends one request per 100 products.

        Polar cannot list products by meter, and does not list replaced prices (observed).
        """
        query = {"sorting": "created_at"}
        return self._gap_or("products", lambda: self._own_items("products", "/products/", query, prices_from))

    def credits(self) -> tuple[Credit, ...] | Gap:
        """Return every benefit that credits units of a meter. Sends one request per 100."""
        query = {"type": "meter_credit", "sorting": "created_at"}
        return self._gap_or(
            "benefits", lambda: self._own_items("benefits", "/benefits/", query, credits_from)
        )

    def events_page(
        self, name: str, start: str, end: str, page: int = 1, limit: int = PAGE, *, newest_first: bool = False
    ) -> EventsPage | Gap:
        """Return one page of the events of a name between two RFC 3339 times, both exclusive.

        It asks by name, since the filter `meter_id` does not match as billing does (observed). Events with
        the same time have no fixed order.
        """
        query = {
            "name": name,
            "start_timestamp": start,
            "end_timestamp": end,
            "sorting": "-timestamp" if newest_first else "timestamp",
            "page": page,
            "limit": min(limit, PAGE),
            **self._organization,
        }
        return self._gap_or(
            "events",
            lambda: events_from(list_page_from(self._get("events", "/events/", query)), self._customers),
        )

    def _usage_or(self, meter_id: str, query: Mapping[str, str], read: Callable[[Any], T]) -> T | Gap:
        """Read quantities. A reason has the same text for every meter."""
        found = self._gap_or("usage", lambda: read(self._get("usage", _quantities(meter_id), query)))
        return replace(found, text=found.text.replace(meter_id, "ID")) if isinstance(found, Gap) else found

    def _gap_or(self, source: Source, read: Callable[[], T]) -> T | Gap:
        try:
            return read()
        except LackError as error:
            return Gap(source, error.lack, str(error))
        except ApiError as error:
            return Gap(source, "failed", str(error))

    def _own_items(
        self, source: Source, path: str, query: Mapping[str, Any], read: Callable[[Page], Sequence[T]]
    ) -> tuple[T, ...]:
        """Read the organization's items. Raises LackError if they, and so the token, are another one's.

        The request does not name the organization: the wrong token would then get an empty list, as if
        nothing was sold.
        """
        pages = list(self._pages(source, path, query))
        own = [
            page.model_copy(update={"items": own_items(page.items, self._organization_id)}) for page in pages
        ]
        if any(page.items for page in pages) and not any(page.items for page in own):
            raise LackError("failed", f"the token in {self._facts.name} is of another organization")
        return tuple(item for page in own for item in read(page))

    def _pages(self, source: Source, path: str, query: Mapping[str, Any]) -> Iterator[Page]:
        """Yield all pages. A page with nothing new ends the list, and an item that moved is not repeated.

        Raises LackError after the first page of a list that would use up too many requests.
        """
        seen: set[str] = set()
        number, last = 1, 1
        while number <= last:
            page = list_page_from(self._get(source, path, {**query, "page": number, "limit": PAGE}))
            if page.pagination.max_page > _MOST_PAGES:
                raise LackError("budget", f"the list has more than {_MOST_PAGES * PAGE:,} entries")
            new = [item for item, id_ in zip(page.items, ids_of(page.items), strict=True) if id_ not in seen]
            seen.update(ids_of(page.items))
            yield page.model_copy(update={"items": new})
            last = page.pagination.max_page if new else 0
            number += 1

    def _get(self, source: Source, path: str, params: Mapping[str, Any]) -> Any:
        """Send one GET, and return the JSON of its 2xx answer. Raises LackError, or ApiError if it failed."""
        if lack := self._over or self._refused.get(source):
            raise lack
        access = self._own if source == "usage" else self._facts
        if access.connection is None:
            raise LackError("scope", access.lack)
        while True:
            try:
                return sound(json_of(self._answered(source, access, access.connection, path, params)))
            except LackError as lack:
                if lack.lack in ("scope", "failed"):  # another token may be in order
                    self._refused[source] = lack
                else:
                    self._over = lack
                raise
            except TransientError:
                if self._budget.is_late:
                    self._over = self._budget.late()
                    raise self._over from None
                if not self._may_retry:
                    raise
                self._may_retry = False

    def _answered(
        self, source: Source, access: Access, connection: Connection, path: str, params: Mapping[str, Any]
    ) -> Answer:
        answer = connection.send("GET", path, within=self._budget.spend(), params=params)
        if httpx.codes.is_success(answer.status):
            return answer
        if answer.status == httpx.codes.TOO_MANY_REQUESTS:
            raise LackError("limited", "Polar limits the rate of requests (429)")
        if answer.status == httpx.codes.FORBIDDEN:
            raise LackError("scope", f"the token in {access.name} lacks the scope {_SCOPES[source]}")
        if answer.status == httpx.codes.UNAUTHORIZED:
            text = f"Polar does not accept the token in {access.name}: it is wrong, expired or revoked"
            raise LackError("failed", text)
        raise error_from(answer)


def _quantities(meter_id: str) -> str:
    return f"/meters/{meter_id}/quantities"


def _range(start: str, end: str, interval: str) -> dict[str, str]:
    return {"start_timestamp": start, "end_timestamp": end, "interval": interval}


def _moment(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
