"""`GET /v1/meters/{id}/quantities`: what its query may say, and how the SQL engine counts."""

from __future__ import annotations

import zoneinfo
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter
from pydantic_core import PydanticCustomError

from polar_iac.local.answers import ServerError
from polar_iac.local.billing import Engines, as_event, engines
from polar_iac.local.buckets import TimeInterval, bucket, fits, labels
from polar_iac.local.events import Customers, StoredEvent, show_time
from polar_iac.local.query import (
    REQUIRED,
    OneOrMoreIds,
    OneOrMoreTexts,
    Parameter,
    as_texts,
    metadata_query,
    read_parameters,
    validate,
)
from polar_iac.local.request_errors import ErrorEntry, RequestError, polar_error
from polar_iac.local.schemas import AggregationFunction, JsonObject
from polar_iac.local.validation import ID
from polar_iac.meter.meaning.events import Event, QueryError, json_text

EARLIEST = datetime(2023, 1, 1, tzinfo=UTC)
"""The earliest start (observed)."""

_TOO_LONG = (
    "The interval is too small for the given date range. Try to change the interval or reduce the date range."
)

Counted = tuple[StoredEvent, Event]


@dataclass(frozen=True)
class QuantitiesQuery:
    """A validated query for quantities."""

    meter_id: str
    start: datetime
    end: datetime
    interval: TimeInterval
    zone: tzinfo
    customers: Customers
    function: AggregationFunction | None
    metadata: Mapping[str, Sequence[str]]


@cache
def _zones() -> frozenset[str]:
    return frozenset({"UTC", *zoneinfo.available_timezones()})


def _timezone(name: str) -> str:
    if name not in _zones():
        raise PydanticCustomError("TimeZoneName", "Invalid timezone name.")
    return name


@cache
def _parameters() -> tuple[Parameter, ...]:
    """Return the parameters, built once and only where they are used."""
    start = Annotated[AwareDatetime, Field(ge=EARLIEST)]
    zone = Annotated[str, Field(min_length=1), AfterValidator(_timezone)]
    return (
        Parameter("start_timestamp", TypeAdapter(start), REQUIRED),
        Parameter("end_timestamp", TypeAdapter(AwareDatetime), REQUIRED),
        Parameter("interval", TypeAdapter(TimeInterval), REQUIRED),
        Parameter("timezone", TypeAdapter(zone), "UTC"),
        Parameter("customer_id", TypeAdapter(OneOrMoreIds | None), many=True),
        Parameter("external_customer_id", TypeAdapter(OneOrMoreTexts | None), many=True),
        Parameter("customer_aggregation_function", TypeAdapter(AggregationFunction | None)),
    )


def read_quantities_query(id_text: str, pairs: Sequence[tuple[str, str]]) -> QuantitiesQuery:
    """Return the query. Raises RequestError with every fault of the path and the query."""
    errors = list[ErrorEntry]()
    meter_id = validate(ID, id_text, ("path", "id"), errors)
    values = read_parameters(_parameters(), pairs, errors)
    if errors:
        raise RequestError(errors)
    return QuantitiesQuery(
        meter_id=str(meter_id),
        start=values["start_timestamp"],
        end=values["end_timestamp"],
        interval=values["interval"],
        zone=UTC if values["timezone"] == "UTC" else zoneinfo.ZoneInfo(values["timezone"]),
        customers=Customers(as_texts(values["customer_id"]), as_texts(values["external_customer_id"])),
        function=values["customer_aggregation_function"],
        metadata=metadata_query(pairs),
    )


def check_range(query: QuantitiesQuery) -> None:
    """Raise RequestError if the range is reversed or too long. This comes after the meter was found."""
    if not fits(query.start, query.end, query.interval):
        given = [show_time(query.start), show_time(query.end), query.interval]
        raise polar_error({"type": "value_error", "loc": ["query"], "msg": _TOO_LONG, "input": given})


def quantities(meter: JsonObject, events: Sequence[StoredEvent], query: QuantitiesQuery) -> JsonObject:
    """Return the answer for the events of the customers that the query selects.

    Raises ServerError when the SQL of the filter fails.
    """
    compiled = engines(meter)
    if compiled.matcher.sql_fails:
        raise ServerError
    try:
        counted = [
            (event, read)
            for event in events
            if _has_metadata(event, query.metadata) and compiled.counts(read := as_event(event))
        ]
        return _answer(compiled, AggregationFunction(meter["aggregation"]["func"]), counted, query)
    except QueryError:
        raise ServerError from None


def _has_metadata(event: StoredEvent, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Compare metadata as text: `2.0` does not match 2 (observed)."""
    return all(key in event.metadata and _text(event.metadata[key]) in texts for key, texts in wanted.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _answer(
    compiled: Engines, function: AggregationFunction, counted: Sequence[Counted], query: QuantitiesQuery
) -> JsonObject:
    held: dict[Hashable, list[Counted]] = defaultdict(list)
    for event, read in counted:
        held[bucket(event.moment, query.interval, query.zone)].append((event, read))
    shown = list[JsonObject]()
    found = list[float]()
    for label in labels(query.start, query.end, query.interval, query.zone):
        inside = held.get(bucket(label, query.interval, query.zone))
        quantity = _quantity(compiled, inside, query.function) if inside else 0.0
        found += [quantity] if inside else []
        shown.append({"timestamp": show_time(label), "quantity": quantity})
    return {"quantities": shown, "total": _total(compiled, function, found, counted)}


def _quantity(
    compiled: Engines, events: Sequence[Counted], per_customer: AggregationFunction | None
) -> float:
    measure = compiled.measure.quantity
    if per_customer is None:
        return float(measure([read for _, read in events]))
    customers: dict[str | None, list[Event]] = defaultdict(list)
    for event, read in events:  # a customer named in two ways counts as two (observed)
        customers[event.customer_id or event.external_customer_id].append(read)
    return _OF_CUSTOMERS[per_customer]([float(measure(reads)) for reads in customers.values()])


def _total(
    compiled: Engines, function: AggregationFunction, found: Sequence[float], counted: Sequence[Counted]
) -> float:
    """Return the total: of `avg` and `unique` over all events, else over the buckets (observed)."""
    match function:
        case AggregationFunction.avg | AggregationFunction.unique:
            return float(compiled.measure.quantity([read for _, read in counted]))
        case AggregationFunction.max:
            return max(found, default=0.0)
        case AggregationFunction.min:
            return min(found, default=0.0)
    return sum(found, 0.0)


_OF_CUSTOMERS: Mapping[AggregationFunction, Callable[[Sequence[float]], float]] = {
    AggregationFunction.cnt: lambda found: float(len(found)),
    AggregationFunction.sum: lambda found: sum(found, 0.0),
    AggregationFunction.max: max,
    AggregationFunction.min: min,
    AggregationFunction.avg: lambda found: sum(found, 0.0) / len(found),
    AggregationFunction.unique: lambda found: float(len(set(found))),
}
"""Functions that make one quantity of those of the customers in a bucket."""
