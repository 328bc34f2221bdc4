"""Usage: events, quantities and billing of one organization, joined for the application."""

from __future__ import annotations

from collections.abc import Sequence

from polar_iac.local.answers import NotFoundError
from polar_iac.local.billing import Billing
from polar_iac.local.customers import customer_document
from polar_iac.local.event_list import EventList, metadata_text
from polar_iac.local.events import Events
from polar_iac.local.ingestion import Ingestion, credit_event
from polar_iac.local.quantities import check_range, quantities, read_quantities_query
from polar_iac.local.store import JsonObject, Store
from polar_iac.local.tokens import OrganizationFault
from polar_iac.local.validation import read_id

Pairs = Sequence[tuple[str, str]]


class Usage:
    """The part of the embedded Polar that begins with an event."""

    def __init__(self, store: Store, *, bills_at_once: bool) -> None:
        self._store = store
        self._events = Events(store)
        self._billing = Billing(store, self._events)
        self._ingestion = Ingestion(store, self._events, self._billing, bills_at_once=bills_at_once)
        self._list = EventList(store, self._events, self._find_meter)
        store.connection.create_function("metadata_text", 2, metadata_text, deterministic=True)

    def _find_meter(self, meter_id: str) -> JsonObject | None:
        found = self._store.find(meter_id)
        return None if found is None else found.document

    def ingest(self, body: object, organization_fault: OrganizationFault) -> JsonObject:
        """Store a batch of events. Raises RequestError with every fault, and ServerError."""
        return self._ingestion.ingest(body, organization_fault)

    def events(self, pairs: Pairs) -> JsonObject:
        """Return a page of events. Raises RequestError."""
        return self._list.list(pairs)

    def names(self, pairs: Pairs) -> JsonObject:
        """Return a page of event names. Raises RequestError."""
        return self._list.names(pairs)

    def event(self, id_text: str) -> JsonObject:
        """Return one event. Raises RequestError and NotFoundError."""
        event = self._events.get(read_id(id_text))
        if event is None:
            raise NotFoundError
        return event

    def quantities(self, id_text: str, pairs: Pairs) -> JsonObject:
        """Return the quantities of a meter. Raises RequestError, NotFoundError and ServerError."""
        query = read_quantities_query(id_text, pairs)
        meter = self._find_meter(query.meter_id)
        if meter is None:
            raise NotFoundError
        check_range(query)
        return quantities(meter, self._events.all(query.customers), query)

    def begin(self, meter: JsonObject) -> None:
        """Start billing a new meter. Call inside `Store.write`. Raises ServerError."""
        self._billing.begin(meter)

    def bill(self) -> None:
        """Run billing once."""
        with self._store.write():
            self._billing.bill()

    def add_customer(self, *, external_id: str | None, email: str, name: str | None) -> str:
        """Add a customer without any event, and return the id. Raises ValueError for a used external id."""
        with self._store.write():
            customer = customer_document(
                self._store.organization_id,
                self._store.now(),
                external_id=external_id,
                email=email,
                name=name,
            )
            self._events.add_customer(customer)
        return str(customer["id"])

    def credit(self, meter_id: str, customer_id: str, units: int) -> None:
        """Grant units of a meter to a customer: a system event, which billing matches unless it is archived.

        Raises LookupError when there is no such meter or customer.
        """
        with self._store.write():
            if self._find_meter(meter_id) is None or self._events.unknown_customers([customer_id]):
                raise LookupError("no such meter or customer")
            self._billing.match(self._events.insert([credit_event(meter_id, customer_id, units)]))
