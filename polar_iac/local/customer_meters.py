"""`GET /v1/customer-meters/`: what each known customer used and was credited of each active meter.

On Polar a worker writes these rows. Here they are computed when they are asked for, so that nothing lags.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from operator import itemgetter
from typing import Any

from pydantic import TypeAdapter

from polar_iac.local.answers import NotFoundError
from polar_iac.local.billing import as_event, engines
from polar_iac.local.events import Events, StoredEvent
from polar_iac.local.listing import (
    Pairs,
    SortKeys,
    ids_parameter,
    is_one_of,
    list_parameters,
    page_of,
    read_list,
)
from polar_iac.local.query import OneOrMoreTexts, Parameter
from polar_iac.local.store import JsonObject, Store, format_time
from polar_iac.local.validation import read_id
from polar_iac.meter.meaning.events import QueryError


class CustomerMeterSortProperty(StrEnum):
    """Sort criteria, in the order in which an error lists them (observed)."""

    created_at = "created_at"
    created_at_desc = "-created_at"
    modified_at = "modified_at"
    modified_at_desc = "-modified_at"
    customer_id = "customer_id"
    customer_id_desc = "-customer_id"
    customer_name = "customer_name"
    customer_name_desc = "-customer_name"
    meter_id = "meter_id"
    meter_id_desc = "-meter_id"
    meter_name = "meter_name"
    meter_name_desc = "-meter_name"
    consumed_units = "consumed_units"
    consumed_units_desc = "-consumed_units"
    credited_units = "credited_units"
    credited_units_desc = "-credited_units"
    balance = "balance"
    balance_desc = "-balance"


_OF_THE_ROW = "created_at modified_at customer_id meter_id consumed_units credited_units balance"
_SORT_KEYS: SortKeys = {
    **{name: itemgetter(name) for name in _OF_THE_ROW.split()},
    "customer_name": lambda row: row["customer"]["name"],
    "meter_name": lambda row: row["meter"]["name"],
}


@cache
def _parameters() -> tuple[Parameter, ...]:
    latest_first = (CustomerMeterSortProperty.modified_at_desc,)
    return list_parameters(
        ids_parameter("customer_id"),
        Parameter("external_customer_id", TypeAdapter(OneOrMoreTexts | None), many=True),
        ids_parameter("meter_id"),
        Parameter("sorting", TypeAdapter(list[CustomerMeterSortProperty]), latest_first, many=True),
    )


class CustomerMeters:
    """The customer meters of one organization."""

    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events

    def list(self, pairs: Pairs) -> JsonObject:
        """Return a page of the rows; an unknown meter or customer has none (observed).

        Raises RequestError.
        """
        wanted = read_list(_parameters(), pairs)
        ours = is_one_of(self._store.organization_id, wanted["organization_id"])
        return page_of(self._rows(wanted) if ours else (), wanted, _SORT_KEYS)

    def get(self, id_text: str) -> JsonObject:
        """Return one row. Raises RequestError and NotFoundError."""
        wanted_id = read_id(id_text)
        for row in self._rows({}):
            if row["id"] == wanted_id:
                return row
        raise NotFoundError

    def _rows(self, wanted: Mapping[str, Any]) -> Iterator[JsonObject]:
        """Yield a row for each active meter of each known customer, used or not (observed).

        A customer without any event has none (observed).
        """
        with self._store.read():
            customers = [
                customer
                for customer in self._events.customers()
                if is_one_of(customer["id"], wanted.get("customer_id"))
                and is_one_of(customer["external_id"], wanted.get("external_customer_id"))
            ]
            meters = [meter for meter in self._store.meters() if meter["archived_at"] is None]
            events = self._events.all() if customers else []
        used = _by_customer(events, customers)
        for meter in meters:
            if is_one_of(meter["id"], wanted.get("meter_id")):
                for customer in customers:
                    if customer["id"] in used:
                        yield _row(meter, customer, used[customer["id"]])


def _by_customer(
    events: Sequence[StoredEvent], customers: Sequence[JsonObject]
) -> Mapping[str, list[StoredEvent]]:
    """Return the events of each customer. An event may have either of the two ids."""
    by_external_id = {c["external_id"]: c["id"] for c in customers if c["external_id"] is not None}
    found: dict[str, list[StoredEvent]] = defaultdict(list)
    for event in events:
        customer_id = event.customer_id or by_external_id.get(event.external_customer_id)
        if customer_id is not None:
            found[customer_id].append(event)
    return found


def _row(meter: JsonObject, customer: JsonObject, events: Sequence[StoredEvent]) -> JsonObject:
    """Return what a customer used of a meter, counted as `/quantities` counts it (observed).

    The time of the last change is that of the newest event that counts, since no arrival times of events are
    kept. Polar gives the time at which its worker ran.
    """
    credits = [e for e in events if e.source == "system" and e.metadata.get("meter_id") == meter["id"]]
    consumed, counted = _consumed(meter, [event for event in events if event.source == "user"])
    credited = sum(event.metadata["units"] for event in credits)
    created_at = max(meter["created_at"], customer["created_at"])
    newest = max((*credits, *counted), key=lambda event: event.micros, default=None)
    return {
        "id": _row_id(customer["id"], meter["id"]),
        "created_at": created_at,
        "modified_at": max(created_at, format_time(newest.moment)) if newest else None,
        "customer_id": customer["id"],
        "meter_id": meter["id"],
        "consumed_units": consumed,
        "credited_units": credited,
        "balance": float(credited - consumed),
        "customer": customer,
        "meter": meter,
    }


def _consumed(meter: JsonObject, events: Sequence[StoredEvent]) -> tuple[float, list[StoredEvent]]:
    """Return the units, and the events behind them. A filter that fails in SQL counts none (assumed)."""
    compiled = engines(meter)
    if compiled.matcher.sql_fails:
        return 0.0, []
    try:
        counted = [(event, read) for event in events if compiled.counts(read := as_event(event))]
        units = float(compiled.measure.quantity([read for _, read in counted])) if counted else 0.0
    except QueryError:
        return 0.0, []
    return units, [event for event, _ in counted]


def _row_id(customer_id: str, meter_id: str) -> str:
    """Return a stable id, in the form of a random one."""
    digest = hashlib.sha256(f"{customer_id} {meter_id}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
