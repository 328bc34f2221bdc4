"""Event names that matter for a change: decided of the filters, without any event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.facts.model import EventName
from polar_iac.meter.meaning import bill_alike, implies, never
from polar_iac.meter.spec import MeterSpec

Json = Mapping[str, Any]


@dataclass(frozen=True)
class NameReach:
    """What a change can mean for the users' events of a name. What is not decided counts as possible.

    `differs`: some event may be matched on one side only, or make another quantity. Events of a name that
    does not differ are part of the total, not of the difference. `narrows`: whatever is matched after is
    matched before.
    """

    name: str
    before: bool
    after: bool
    differs: bool
    narrows: bool

    @property
    def matters(self) -> bool:
        """Tell whether an event of the name can be matched at all."""
        return self.before or self.after


def reach(name: str, before: MeterSpec | None, after: MeterSpec) -> NameReach:
    """Return what a change can mean for a name. `before` is None for a create."""
    new = _of_name(after, name, "user")
    is_after = never(new) is not True
    if before is None:
        return NameReach(name, before=False, after=is_after, differs=is_after, narrows=not is_after)
    old = _of_name(before, name, "user")
    is_before = never(old) is not True
    same = before.canonical["aggregation"] == after.canonical["aggregation"]
    differs = (is_before or is_after) and not (same and bill_alike(old, new) is True)
    narrows = not is_after or (is_before and implies(new, old) is True)
    return NameReach(name, is_before, is_after, differs, narrows)


def reaches(names: Iterable[EventName], before: MeterSpec | None, after: MeterSpec) -> tuple[NameReach, ...]:
    """Return the names that matter for a change: those that make a difference first, then the most frequent.

    System events are on no invoice, so their names do not matter.
    """
    users = sorted((n for n in names if n.source == "user"), key=lambda n: (-n.occurrences, n.name))
    found = [reach(n.name, before, after) for n in users]
    return tuple(sorted((r for r in found if r.matters), key=lambda r: not r.differs))


def counts_system_events(names: Iterable[EventName], spec: MeterSpec) -> bool:
    """Tell whether `/quantities` may count system events that exist: it does, and invoices do not."""
    return any(n.source == "system" and never(_of_name(spec, n.name, "system")) is not True for n in names)


def _of_name(spec: MeterSpec, name: str, source: str) -> Json:
    fixed = [
        {"property": "name", "operator": "eq", "value": name},
        {"property": "source", "operator": "eq", "value": source},
    ]
    return {"conjunction": "and", "clauses": [spec.canonical["filter"], *fixed]}
