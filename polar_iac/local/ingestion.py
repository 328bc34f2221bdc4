"""Ingestion: what a batch of events may say, and how it is stored."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from polar_iac.local.answers import ServerError
from polar_iac.local.billing import Billing
from polar_iac.local.event_schemas import EventCreate, EventCreateCustomer, EventsIngest, ingest_adapter
from polar_iac.local.events import Events, NewEvent
from polar_iac.local.listing import read_body
from polar_iac.local.request_errors import ErrorEntry, polar_error
from polar_iac.local.store import JsonObject, Store
from polar_iac.local.tokens import OrganizationFault
from polar_iac.meter.meaning.events import stored


class Ingestion:
    """The way of a batch into the database."""

    def __init__(self, store: Store, events: Events, billing: Billing, *, bills_at_once: bool) -> None:
        self._store = store
        self._events = events
        self._billing = billing
        self._bills_at_once = bills_at_once

    def ingest(self, body: object, organization_fault: OrganizationFault) -> JsonObject:
        """Store a batch, match it to the meters, and return how many events are new and how many repeats.

        One wrong event refuses the whole batch. Raises RequestError with every fault, and ServerError for
        what PostgreSQL cannot store.
        """
        batch = read_body(ingest_adapter(), body)
        with self._store.write():
            self._check(batch, organization_fault)
            events = [_new_event(event) for event in batch.events]
            numbers = self._events.insert(events)
            self._billing.match(numbers)
            if self._bills_at_once:
                self._billing.bill()
        return {"inserted": len(numbers), "duplicates": len(events) - len(numbers)}

    def _check(self, batch: EventsIngest, organization_fault: OrganizationFault) -> None:
        named = [str(e.customer_id) for e in batch.events if isinstance(e, EventCreateCustomer)]
        unknown = self._events.unknown_customers(named)
        entries = list[ErrorEntry]()
        for index, event in enumerate(batch.events):
            loc = ["body", "events", index]
            if fault := organization_fault(event.organization_id):
                entries.append({**fault, "loc": [*loc, "organization_id"], "input": event.organization_id})
            elif isinstance(event, EventCreateCustomer) and str(event.customer_id) in unknown:
                entries.append(
                    {
                        "type": "customer_id",
                        "loc": [*loc, "customer_id"],
                        "msg": "Customer not found.",
                        "input": event.customer_id,
                    }
                )
        if entries:
            raise polar_error(*entries)


def _new_event(event: EventCreate) -> NewEvent:
    new = NewEvent(
        id=str(uuid.uuid4()),
        name=event.name,
        timestamp=event.timestamp,
        metadata=_as_stored(event.metadata),
        external_id=event.external_id,
        parent=event.parent_id,
    )
    if isinstance(event, EventCreateCustomer):  # with both ids in a request, this one wins (observed)
        member = None if event.member_id is None else str(event.member_id)
        new = replace(new, customer_id=str(event.customer_id), member_id=member)
    else:
        new = replace(
            new,
            external_customer_id=event.external_customer_id,
            external_member_id=event.external_member_id,
        )
    _check_storable(new)
    return new


def credit_event(meter_id: str, customer_id: str, units: int) -> NewEvent:
    """Return the event that Polar itself makes of now when a customer is granted units of a meter."""
    return NewEvent(
        id=str(uuid.uuid4()),
        name="meter.credited",
        source="system",
        timestamp=datetime.now(UTC),
        customer_id=customer_id,
        metadata=_as_stored({"meter_id": meter_id, "units": units, "rollover": False}),
    )


def _as_stored(metadata: JsonObject) -> JsonObject:
    """Return metadata as it comes back from the database. The amount of a cost passes through a double."""
    return {key: stored(_plain(value)) for key, value in metadata.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: float(item) if isinstance(item, Decimal) else item for key, item in value.items()}
    return value


def _check_storable(event: NewEvent) -> None:
    """Raise ServerError for what PostgreSQL refuses: NaN, infinities and lone surrogates (observed)."""
    texts = (
        event.name,
        event.external_id,
        event.external_customer_id,
        event.external_member_id,
        event.parent,
    )
    try:
        json.dumps([*texts, event.metadata], ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise ServerError from None
