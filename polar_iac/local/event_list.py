"""`GET /v1/events/` and `GET /v1/events/names`: what their queries may say, and the pages that they answer.

On Polar a third engine reads these, the analytics store. It is not modeled: `filter` and `meter_id` select
the events that `/quantities` counts, and the text of `query` is looked for in the name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Annotated, Any

from pydantic import UUID4, AwareDatetime, Field, TypeAdapter, ValidationError

from polar_iac.local.answers import ServerError
from polar_iac.local.billing import as_event, engines
from polar_iac.local.event_schemas import EventSource
from polar_iac.local.events import EPOCH, Customers, Events
from polar_iac.local.query import (
    MAX_LIMIT,
    OneOrMoreIds,
    OneOrMoreTexts,
    Parameter,
    as_texts,
    metadata_query,
    page_parameters,
    read_parameters,
)
from polar_iac.local.request_errors import ErrorEntry, RequestError, polar_error
from polar_iac.local.schemas import Filter, JsonObject
from polar_iac.local.store import Store
from polar_iac.meter.meaning.events import QueryError, json_text

INT64_MAX = 2**63 - 1

Pairs = Sequence[tuple[str, str]]
FindMeter = Callable[[str], JsonObject | None]


class EventSortProperty(StrEnum):
    """Sort criteria of events. The error for an unknown one lists them in this order."""

    timestamp = "timestamp"
    timestamp_desc = "-timestamp"


class EventNamesSortProperty(StrEnum):
    """Sort criteria of event names."""

    name = "name"
    name_desc = "-name"
    occurrences = "occurrences"
    occurrences_desc = "-occurrences"
    first_seen = "first_seen"
    first_seen_desc = "-first_seen"
    last_seen = "last_seen"
    last_seen_desc = "-last_seen"


@cache
def _shared() -> tuple[Parameter, ...]:
    sources = EventSource | Sequence[EventSource]
    return (
        *page_parameters(),
        Parameter("organization_id", TypeAdapter(OneOrMoreIds | None), many=True),
        Parameter("customer_id", TypeAdapter(OneOrMoreIds | None), many=True),
        Parameter("external_customer_id", TypeAdapter(OneOrMoreTexts | None), many=True),
        Parameter("source", TypeAdapter(sources | None), many=True),
    )


@cache
def _list_parameters() -> tuple[Parameter, ...]:
    sorting = (EventSortProperty.timestamp_desc,)
    moment: TypeAdapter[Any] = TypeAdapter(AwareDatetime | None)
    return (
        *_shared(),
        Parameter("sorting", TypeAdapter(list[EventSortProperty]), sorting, many=True),
        Parameter("filter", TypeAdapter(str | None)),
        Parameter("start_timestamp", moment),
        Parameter("end_timestamp", moment),
        Parameter("meter_id", TypeAdapter(UUID4 | None)),
        Parameter("name", TypeAdapter(OneOrMoreTexts | None), many=True),
        Parameter("query", TypeAdapter(Annotated[str, Field(min_length=3)] | None)),
        Parameter("parent_id", TypeAdapter(UUID4 | None)),
        Parameter("depth", TypeAdapter(Annotated[int, Field(ge=0, le=5)] | None)),
        Parameter("cursor_pagination", TypeAdapter(bool), False),
    )


@cache
def _names_parameters() -> tuple[Parameter, ...]:
    sorting = (EventNamesSortProperty.last_seen_desc,)
    return (
        *_shared(),
        Parameter("sorting", TypeAdapter(list[EventNamesSortProperty]), sorting, many=True),
        Parameter("query", TypeAdapter(str | None)),
    )


class EventList:
    """The lists of one organization's events."""

    def __init__(self, store: Store, events: Events, find_meter: FindMeter) -> None:
        self._store = store
        self._events = events
        self._find_meter = find_meter

    def list(self, pairs: Pairs) -> JsonObject:
        """Return a page of events. Past the last page it says that there are none at all (observed)."""
        wanted = _read(_list_parameters(), pairs)
        condition = self._condition(wanted)
        condition.add_texts("name", wanted["name"])
        condition.add_times(wanted["start_timestamp"], wanted["end_timestamp"])
        condition.add_metadata(metadata_query(pairs))
        self._add_depth(condition, wanted["depth"], wanted["parent_id"])
        self._add_filters(condition, wanted)
        limit = wanted["limit"]
        found, total = self._events.page(
            condition.sql,
            condition.values,
            descending=wanted["sorting"][0] is EventSortProperty.timestamp_desc,
            limit=limit + 1,
            offset=_offset(wanted),
        )
        items = found[:limit]
        if wanted["cursor_pagination"]:
            return {"items": items, "pagination": {"has_next_page": len(found) > limit}}
        return {"items": items, "pagination": _pagination(total if items else 0, limit)}

    def names(self, pairs: Pairs) -> JsonObject:
        """Return a page of event names. Past the last page it keeps its count (observed)."""
        wanted = _read(_names_parameters(), pairs)
        condition = self._condition(wanted)
        order = ", ".join(
            f"{criterion.lstrip('-')} {_direction(criterion)}" for criterion in wanted["sorting"]
        )
        items, total = self._events.names(
            condition.sql, condition.values, f"{order}, name", limit=wanted["limit"], offset=_offset(wanted)
        )
        return {"items": items, "pagination": _pagination(total, wanted["limit"])}

    def _condition(self, wanted: Mapping[str, Any]) -> _Condition:
        """Return the conditions that both lists know."""
        condition = _Condition()
        organizations = as_texts(wanted["organization_id"])
        if organizations is not None and self._store.organization_id not in organizations:
            condition.add("FALSE")
        customers = Customers(as_texts(wanted["customer_id"]), as_texts(wanted["external_customer_id"]))
        sql, values = customers.condition()
        condition.add(sql, *values)
        condition.add_texts("source", wanted["source"])
        if wanted["query"] is not None:
            condition.add("ilike(?, name)", wanted["query"])
        return condition

    def _add_depth(self, condition: _Condition, depth: int | None, parent_id: object) -> None:
        """Keep events up to a depth below the roots, or below the parent; without a depth keep all (read)."""
        if depth is None:
            return
        anchor = "SELECT id, 0 FROM event WHERE parent_id IS NULL"
        values: tuple[str, ...] = ()
        if parent_id is not None:
            anchor, values = "SELECT id, 0 FROM event WHERE parent_id = ?", (str(parent_id),)
        below = (
            f"WITH RECURSIVE below (id, depth) AS ({anchor} UNION ALL"
            " SELECT child.id, below.depth + 1 FROM below JOIN event child ON child.parent_id = below.id"
            " WHERE below.depth < ?) SELECT id FROM below"
        )
        condition.add(f"id IN ({below})", *values, depth)

    def _add_filters(self, condition: _Condition, wanted: Mapping[str, Any]) -> None:
        meters = list[JsonObject]()
        if wanted["meter_id"] is not None:
            meter = self._find_meter(str(wanted["meter_id"]))
            if meter is None:
                loc = ["query", "meter_id"]
                raise polar_error(
                    {"type": "meter_id", "loc": loc, "msg": "Meter not found.", "input": wanted["meter_id"]}
                )
            meters.append({**meter, "aggregation": {"func": "count"}})
        if wanted["filter"] is not None:
            filter_ = _read_filter(wanted["filter"])
            meters.append({"filter": filter_.model_dump(), "aggregation": {"func": "count"}})
        for meter in meters:
            compiled = engines(meter)
            if compiled.matcher.sql_fails:
                raise ServerError
            try:
                numbers = [e.number for e in self._events.all() if compiled.counts(as_event(e))]
            except QueryError:
                raise ServerError from None
            condition.add("number IN (SELECT value FROM json_each(?))", json.dumps(numbers))


class _Condition:
    """Conditions on an event, all of which must hold, as SQL and its values."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.values: list[Any] = []

    @property
    def sql(self) -> str:
        return " AND ".join(f"({part})" for part in self._parts) or "TRUE"

    def add(self, sql: str, *values: object) -> None:
        self._parts.append(sql)
        self.values += values

    def add_texts(self, column: str, texts: Sequence[str] | None) -> None:
        if texts is not None:
            self.add(f"{column} IN (SELECT value FROM json_each(?))", json.dumps(list(texts)))

    def add_times(self, start: datetime | None, end: datetime | None) -> None:
        """Keep events after the start and before the end, both exclusive, in milliseconds (observed)."""
        if start is not None:
            self.add("millis > ?", _millis(start))
        if end is not None:
            self.add("millis < ?", _millis(end))

    def add_metadata(self, wanted: Mapping[str, Sequence[str]]) -> None:
        for key, texts in wanted.items():
            self.add("metadata_text(metadata, ?) IN (SELECT value FROM json_each(?))", key, json.dumps(texts))


def metadata_text(metadata: str, key: str) -> str | None:
    """Return a value of the metadata as text, for SQL: others than text as JSON. None when it is absent."""
    value = json.loads(metadata).get(key)
    return value if value is None or isinstance(value, str) else json_text(value)


def _millis(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _read(parameters: Sequence[Parameter], pairs: Pairs) -> dict[str, Any]:
    errors = list[ErrorEntry]()
    values = read_parameters(parameters, pairs, errors)
    if errors:
        raise RequestError(errors)
    return {**values, "limit": min(values["limit"], MAX_LIMIT)}


def _read_filter(text: str) -> Filter:
    """Return the filter in a query. The `loc` of a fault begins within the filter (observed)."""
    try:
        return Filter.model_validate_json(text)
    except ValidationError as e:
        raise RequestError([{**entry, "loc": list(entry["loc"])} for entry in e.errors()]) from None


def _offset(wanted: Mapping[str, Any]) -> int:
    """Return the offset of a page. One beyond 64 bits is an empty page (observed)."""
    return min(int(wanted["limit"] * (wanted["page"] - 1)), INT64_MAX)


def _direction(criterion: str) -> str:
    return "DESC" if criterion.startswith("-") else "ASC"


def _pagination(total: int, limit: int) -> JsonObject:
    return {"total_count": total, "max_page": math.ceil(total / limit)}
