"""Catalog: products, benefits, the organization and customer meters, joined for the application."""

from __future__ import annotations

from polar_iac.local.benefits import Benefits
from polar_iac.local.customer_meters import CustomerMeters
from polar_iac.local.events import Events
from polar_iac.local.listing import Pairs
from polar_iac.local.organizations import get_organization, list_organizations
from polar_iac.local.products import Products
from polar_iac.local.store import JsonObject, Store
from polar_iac.local.tokens import no_organization_fault


class Catalog:
    """Products, benefits and customer meters of one organization."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.products = Products(store)
        self.benefits = Benefits(store)
        self.customer_meters = CustomerMeters(store, Events(store))

    def organizations(self, pairs: Pairs) -> JsonObject:
        """Return a page of the one organization. Raises RequestError."""
        return list_organizations(self._store.organization_id, pairs)

    def organization(self, id_text: str) -> JsonObject:
        """Return the one organization. Raises RequestError, and NotFoundError for any other."""
        return get_organization(self._store.organization_id, id_text)

    def attach_product(self, meter_id: str) -> None:
        """Add an active product with a price by the meter. Raises LookupError when there is no such meter."""
        self._check_meter(meter_id)
        price = {"amount_type": "metered_unit", "meter_id": meter_id, "unit_amount": "1"}
        body = {"name": "Attached product", "recurring_interval": "month", "prices": [price]}
        self.products.create(body, no_organization_fault)

    def attach_benefit(self, meter_id: str) -> None:
        """Add a benefit that grants units of the meter. Raises LookupError when there is no such meter."""
        self._check_meter(meter_id)
        properties = {"meter_id": meter_id, "units": 1, "rollover": False}
        body = {"type": "meter_credit", "description": "Attached benefit", "properties": properties}
        self.benefits.create(body, no_organization_fault)

    def _check_meter(self, meter_id: str) -> None:
        if self._store.find(meter_id) is None:
            raise LookupError(f"no meter {meter_id}")
