"""Sowing of seeds into the embedded Polar, under the same rules as its requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError
from polar_iac.local import LocalPolar
from polar_iac.local.request_errors import RequestError
from polar_iac.local.tokens import no_organization_fault
from polar_iac.local.validation import read_create, read_update
from polar_iac.meter.marker import MARKER, OwnershipMarker
from polar_iac.seeding.events import MAX_EVENTS, count_of, events_of, fault_of
from polar_iac.seeding.model import Entry, Seed
from polar_iac.testing.doubts import place_of
from polar_iac.yaml import tree
from polar_iac.yaml.scalars import clip, nearest

_BATCH = 1_000
"""Events per ingest."""
_WRITTEN_AS = {"meter_id": "meter", "is_archived": "archived"}
"""Members of a request that have other names in a seed."""


@dataclass
class Sown:
    """Result of sowing: ids by the names in the file, and the number of new events."""

    meters: dict[str, str] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)
    benefits: dict[str, str] = field(default_factory=dict)
    products: dict[str, str] = field(default_factory=dict)
    events: int = 0


def sow_once(polar: LocalPolar, seed: Seed, now: datetime) -> Sown | None:
    """Sow a seed into a database without usage. Return None if this file has been sown already.

    Raises what `sow` raises, and PolarIacError if the database holds anything but meters.
    """
    with polar.transaction() as db:
        if db.execute("SELECT 1 FROM seed WHERE digest = ?", (seed.digest,)).fetchone():
            return None
        held = [
            f"{count} {name}{'s' if count > 1 else ''}"
            for name in ("event", "customer", "benefit", "product")
            if (count := db.execute(f"SELECT count(*) FROM {name}").fetchone()[0])  # noqa: S608
        ]
        if held:
            raise PolarIacError(
                f"{seed.document.file}: the embedded Polar is not empty, it holds {', '.join(held)}: delete"
                " .polar-iac/ to begin anew (`polar-iac apply -e local` makes the meters again), or serve"
                " without --seed"
            )
        return sow(polar, seed, now)


def sow(polar: LocalPolar, seed: Seed, now: datetime) -> Sown:
    """Put a seed into the embedded Polar, whole or not at all, and run billing. Times are relative to `now`.

    Raises DiagnosticError with everything that Polar would refuse, or that names something unknown.
    """
    sower = _Sower(polar, seed, now)
    with polar.transaction() as db:
        sower.sow()
        if sower.faults:
            raise DiagnosticError(sower.faults)
        db.execute("INSERT OR IGNORE INTO seed VALUES (?)", (seed.digest,))
        polar.bill()
    return sower.sown


class _Sower:
    def __init__(self, polar: LocalPolar, seed: Seed, now: datetime) -> None:
        self.polar = polar
        self.seed = seed
        self.now = now
        self.sown = Sown()
        self.faults: list[Diagnostic] = []

    def sow(self) -> None:
        self._meters()
        for customer in self.seed.customers:
            self._customer(customer)
        for benefit in self.seed.benefits:
            with self._reported(benefit.node, "benefit"):
                self._benefit(benefit)
        for product in self.seed.products:
            with self._reported(product.node, "product"):
                self._product(product)
        self._events()
        for credit in self.seed.credits:
            self._credit(credit)

    def _fault(self, node: tree.Node, message: str) -> None:
        self.faults.append(self.seed.document.diagnose(node, message))

    @contextmanager
    def _reported(self, node: tree.Node, what: str) -> Iterator[None]:
        """Report what Polar refuses in the block, where each refused value is written."""
        try:
            yield
        except RequestError as error:
            for entry in error.entries:
                place, names = _place(node, entry["loc"])
                of = f" (`{'.'.join(names)}`)" if names else ""
                self._fault(place, f"Polar refuses this {what}{of}: {entry['msg']}")

    # --- Meters ---

    def _meters(self) -> None:
        for meter in self.seed.meters:
            with self._reported(meter.node, "meter"):
                made = self.polar.meters.create(read_create(meter.spec.declared()))
                self.sown.meters[meter.key] = made["id"]
                if meter.spec.archived:
                    self.polar.meters.update(*read_update(made["id"], {"is_archived": True}))

    @cached_property
    def _known(self) -> Mapping[str, str]:
        """Ids of meters by every name that an entry may use. A name in the file comes first."""
        known: dict[str, str] = {}
        for meter in reversed(self.polar.meters.all()):
            marker = OwnershipMarker.parse(str(meter["metadata"].get(MARKER, "")))
            names = [meter["id"], meter["name"], *([marker.key] if marker else [])]
            known |= dict.fromkeys(names, meter["id"])
        return known | self.sown.meters

    def _meter(self, node: tree.Node, said: Mapping[str, Any]) -> str | None:
        """Return the id of the meter that an entry names, or None after a fault."""
        name = str(said.get("meter"))
        if name not in self._known:
            guess = nearest(name, tuple(self._known))
            hint = (
                f"did you mean `{guess}`?"
                if guess
                else "`polar-iac apply -e local` makes those of the manifest"
            )
            place = place_of(node, ["meter"]) or node
            self._fault(place, f"neither this file nor the embedded Polar has a meter `{clip(name)}`: {hint}")
        return self._known.get(name)

    # --- What is sold ---

    def _customer(self, entry: Entry) -> None:
        external_id = str(entry.said["external_id"])
        email = str(entry.said.get("email", f"{external_id}@example.com"))
        name = str(entry.said.get("name", external_id))
        try:
            customer_id = self.polar.usage.add_customer(external_id=external_id, email=email, name=name)
            self.sown.customers[external_id] = customer_id
        except ValueError as error:
            self._fault(entry.node, f"{error}: remove this one")

    def _benefit(self, entry: Entry) -> None:
        meter_id = self._meter(entry.node, entry.said)
        if meter_id is None:
            return
        said = entry.said
        properties = {"units": said["units"], "rollover": said.get("rollover", False), "meter_id": meter_id}
        body = {"type": "meter_credit", "description": said["description"], "properties": properties}
        made = self.polar.catalog.benefits.create(body, no_organization_fault)
        self.sown.benefits[made["description"]] = made["id"]

    def _product(self, entry: Entry) -> None:
        nodes = entry.items("prices")
        prices = [self._price(node, said) for node, said in zip(nodes, entry.said["prices"], strict=True)]
        benefits = [self._benefit_id(entry, name) for name in entry.said.get("benefits", [])]
        if None in prices or None in benefits:
            return
        own = {key: value for key, value in entry.said.items() if key not in ("benefits", "archived")}
        body = {"recurring_interval": "month", **own, "prices": prices}
        products = self.polar.catalog.products
        made = products.create(body, no_organization_fault)
        self.sown.products[made["name"]] = made["id"]
        if benefits:
            products.set_benefits(made["id"], {"benefits": benefits})
        if entry.said.get("archived"):
            products.update(made["id"], {"is_archived": True})

    def _price(self, node: tree.Node, said: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if "meter" not in said:
            return {"amount_type": "fixed", **said}
        meter_id = self._meter(node, said)
        own = {key: value for key, value in said.items() if key != "meter"}
        return {"amount_type": "metered_unit", "meter_id": meter_id, **own} if meter_id else None

    def _benefit_id(self, entry: Entry, description: object) -> str | None:
        found = self.sown.benefits.get(str(description))
        # One that is there and was not made has a fault of its own.
        if all(benefit.said["description"] != description for benefit in self.seed.benefits):
            place = entry.place("benefits")
            self._fault(
                place, f"this file has no benefit `{clip(str(description))}`: add it under `benefits`"
            )
        return found

    # --- Usage ---

    def _events(self) -> None:
        found = [(series, fault_of(series, self.now)) for series in self.seed.events]
        for series, fault in found:
            if fault:
                self._fault(place_of(series.node, [fault[0]]) or series.node, fault[1])
        counts = [(count_of(series, self.now), series.node) for series, fault in found if not fault]
        if (count := sum(count for count, _ in counts)) > MAX_EVENTS:
            _, largest = max(counts, key=lambda counted: counted[0])
            message = (
                f"a seed has at most {MAX_EVENTS:,} events, and with these it has {count:,}: write fewer here"
            )
            self._fault(largest, message)
        if self.faults:
            return
        events = [event for series in self.seed.events for event in events_of(series, self.now)]
        events.sort(key=lambda event: event["timestamp"])
        for start in range(0, len(events), _BATCH):
            batch = {"events": events[start : start + _BATCH]}
            self.sown.events += self.polar.usage.ingest(batch, no_organization_fault)["inserted"]

    def _credit(self, entry: Entry) -> None:
        meter_id = self._meter(entry.node, entry.said)
        external_id, units = str(entry.said["customer"]), entry.said["units"]
        customer_id = self.sown.customers.get(external_id)
        if customer_id is None:
            place = entry.place("customer")
            self._fault(place, f"this file has no customer `{clip(external_id)}`: add it under `customers`")
        if type(units) is not int:
            self._fault(entry.place("units"), "units must be a whole number")
        elif meter_id and customer_id:
            self.polar.usage.credit(meter_id, customer_id, units)


def _place(node: tree.Node, loc: list[str | int]) -> tuple[tree.Node, list[str]]:
    """Return the most precise position in the file for an error, and its path.

    The path of an error also has parts that the file lacks: `body`, and the alternatives of a union.
    """
    place, names = node, list[str]()
    for part in loc:
        name = _WRITTEN_AS.get(part, part) if isinstance(part, str) else part
        if isinstance(node, tree.Map) and name in node.entries:
            place, node = node.place(str(name)), node.entries[str(name)]
        elif isinstance(node, tree.List) and isinstance(name, int) and name < len(node.children):
            place = node = node.children[name]
        else:
            continue
        names.append(str(name))
    return place, names
