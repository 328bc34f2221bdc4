"""What a meter is: its spec, the canonical form that equality uses, and the meter as Polar holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

Scalar = str | int | bool
MetadataValue = str | int | float | bool
Impact = Literal["billing", "invoice", "internal"]

CONJUNCTIONS = ("and", "or")
OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "like", "not_like")
ORDER_OPERATORS = ("gt", "gte", "lt", "lte")
FUNCS = ("count", "sum", "max", "min", "avg", "unique")
UNITS = ("scalar", "token", "custom")
UNIT_FIELDS = ("unit", "custom_label", "custom_multiplier")
IGNORABLE = ("name", "unit", "metadata")
"""What `ignore_changes` may name, besides single keys of metadata; `unit` covers label and multiplier."""

MARKER = "polar_iac"
"""The metadata key of the ownership marker; its value is `<project>/<key>`."""

MAX_METADATA_KEYS = 50
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""An id as Polar writes it."""

IMPACT: Mapping[str, Impact] = {
    "filter": "billing",
    "aggregation": "billing",
    "name": "invoice",
    "unit": "invoice",
    "custom_label": "invoice",
    "custom_multiplier": "invoice",
    "metadata": "internal",
}
"""The fields of a meter in the order in which people read them, and whom a change of each concerns."""


def reading_order(path: str) -> tuple[int, str]:
    """Where people read a path: a field's name, or `metadata.KEY`."""
    name, _, key = path.partition(".")
    return list(IMPACT).index(name), key


FROZEN_FIELDS = ("filter", "aggregation")
"""What Polar refuses to change once the meter aggregates events."""


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys: equal texts mean equal values, and `1`, `1.0` and `true` differ."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_property(name: str) -> str:
    """A property without any leading `metadata.`.

    Polar strips one on each write and another on every read (observed), so only the bare name is stable.
    """
    while name.startswith("metadata."):
        name = name.removeprefix("metadata.")
    return name


def canonical_value(value: Any) -> Any:
    """A clause's value as Polar stores it: whole floats become ints (observed)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def canonical_metadata_value(value: Any) -> Any:
    """A metadata value as a GET returns it: floats written with an exponent that are whole become ints,
    `-0.0` becomes `0.0` (observed: PostgreSQL's jsonb keeps numbers as decimals)."""
    if isinstance(value, float) and value.is_integer():
        return int(Decimal(repr(value))) if "e" in repr(value) else value + 0.0
    return value


@dataclass(frozen=True, eq=False)
class Clause:
    """One comparison of an event's property with a value."""

    property: str
    operator: str
    value: Scalar

    def wire(self) -> dict[str, Any]:
        return {
            "property": canonical_property(self.property),
            "operator": self.operator,
            "value": canonical_value(self.value),
        }

    canonical = wire


@dataclass(frozen=True, eq=False)
class Filter:
    """A conjunction of clauses and filters; without clauses it matches every event."""

    conjunction: str
    clauses: tuple[Clause | Filter, ...] = ()

    def wire(self) -> dict[str, Any]:
        """The filter as it is sent: in the author's order."""
        return {"conjunction": self.conjunction, "clauses": [c.wire() for c in self.clauses]}

    def canonical(self) -> dict[str, Any]:
        """The normal form: equal for filters that differ in form only, since both of Polar's engines read
        them alike (observed).

        A group of one is its member, a group inside one of the same conjunction is part of it, repeats count
        once, and order means nothing. An empty group matches every event: it drops out of an `and`, and
        turns an `or` into every event. The root is always a filter: `or[x]` is `and[x]`, and every event is
        `and[]`.
        """
        return _as_root(_normal_form(self).data)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Filter:
        """Read what `wire` or `canonical` wrote, or what Polar answered.

        Raises KeyError, TypeError or AttributeError when `data` is no filter.
        """
        clauses = (
            cls.from_json(c)
            if "clauses" in c
            else Clause(_text(c["property"]), _text(c["operator"]), _typed(c["value"], str, int, float))
            for c in _typed(data["clauses"], list)
        )
        return cls(_text(data["conjunction"]), tuple(clauses))


@dataclass(frozen=True)
class _Normal:
    """A clause or a group in normal form. `text` is its canonical JSON: equal parts have equal texts."""

    data: Mapping[str, Any]
    text: str
    members: tuple[_Normal, ...] | None = None
    """Of a group; a clause has none. A group without members matches every event."""

    @property
    def order(self) -> tuple[bool, str]:
        """Any total order would do; this one reads well: clauses by their property, groups after them."""
        if self.members is not None:
            return True, self.text
        return False, canonical_json([self.data[name] for name in ("property", "operator", "value")])


_EVERY_EVENT = _Normal({"conjunction": "and", "clauses": []}, '{"clauses":[],"conjunction":"and"}', ())


def _normal_form(part: Clause | Filter) -> _Normal:
    if isinstance(part, Clause):
        data = part.canonical()
        return _Normal(data, canonical_json(data))
    members: dict[str, _Normal] = {}
    for inner in map(_normal_form, part.clauses):
        if inner.members == () and part.conjunction == "or":
            return _EVERY_EVENT
        # `and[a, and[b, c]]` is `and[a, b, c]`. An empty group is an `and` too, with nothing to add to it.
        same = inner.members is not None and inner.data["conjunction"] == part.conjunction
        for member in inner.members or () if same else (inner,):
            members.setdefault(member.text, member)
    if len(members) == 1:
        return next(iter(members.values()))
    ordered = tuple(sorted(members.values(), key=lambda member: member.order))
    if not ordered:
        return _EVERY_EVENT
    data = {"conjunction": part.conjunction, "clauses": [member.data for member in ordered]}
    # Put together from the members' texts: written anew at each level, a deep filter would take long.
    texts = ",".join(member.text for member in ordered)
    return _Normal(data, f'{{"clauses":[{texts}],"conjunction":{json.dumps(part.conjunction)}}}', ordered)


def _as_root(data: Mapping[str, Any]) -> dict[str, Any]:
    return dict(data) if "clauses" in data else {"conjunction": "and", "clauses": [data]}


@dataclass(frozen=True, eq=False)
class Aggregation:
    """How the events that match become a number; `count` has no property."""

    func: str
    property: str | None = None

    def wire(self) -> dict[str, Any]:
        if self.property is None or self.func == "count":
            return {"func": self.func}
        return {"func": self.func, "property": canonical_property(self.property)}

    canonical = wire


@dataclass(frozen=True, eq=False)
class MeterSpec:
    """What the manifest may say of a meter, and so what is compared. Equality is of the canonical form.

    `metadata` is without the ownership marker.
    """

    name: str
    filter: Filter
    aggregation: Aggregation
    unit: str = "scalar"
    custom_label: str | None = None
    custom_multiplier: int | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    archived: bool = False

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """The whole spec as JSON data, every field present, in the form that survives Polar's own."""
        return {
            "name": self.name,
            "unit": self.unit,
            "custom_label": self.custom_label,
            "custom_multiplier": self.custom_multiplier,
            "filter": self.filter.canonical(),
            "aggregation": self.aggregation.canonical(),
            "metadata": {k: canonical_metadata_value(v) for k, v in self.metadata.items()},
            "archived": self.archived,
        }

    @cached_property
    def by_path(self) -> Mapping[str, Any]:
        """The canonical values by path: a field's name, or `metadata.KEY`; `archived` is an action's own."""
        values = {name: self.canonical[name] for name in IMPACT if name != "metadata"}
        return values | {f"metadata.{key}": value for key, value in self.canonical["metadata"].items()}

    @property
    def billing(self) -> str:
        """Equal for two meters exactly where they bill the same: by their filter and aggregation."""
        return canonical_json([self.canonical[name] for name in FROZEN_FIELDS])

    @cached_property
    def fingerprint(self) -> str:
        return canonical_json(self.canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeterSpec) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def wire(self, field_name: str) -> Any:
        """The value of one field as it is sent to Polar."""
        value = getattr(self, field_name)
        return value.wire() if isinstance(value, Filter | Aggregation) else value

    def create_body(self, marker: str) -> dict[str, Any]:
        """The body of a POST: what differs from Polar's defaults, and the ownership marker."""
        body = {"name": self.name, "filter": self.filter.wire(), "aggregation": self.aggregation.wire()}
        if self.unit != "scalar":
            body["unit"] = self.unit
        for optional in ("custom_label", "custom_multiplier"):
            if getattr(self, optional) is not None:
                body[optional] = getattr(self, optional)
        return body | {"metadata": {**self.metadata, MARKER: marker}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MeterSpec:
        """Read a canonical spec or a meter as Polar answers it; fields that later versions of Polar brought
        may be absent. Raises KeyError, TypeError or AttributeError when `data` is no meter."""
        aggregation = data["aggregation"]
        metadata = data.get("metadata", {})
        return cls(
            name=_text(data["name"]),
            filter=Filter.from_json(data["filter"]),
            aggregation=Aggregation(
                _text(aggregation["func"]), _typed(aggregation.get("property"), str, type(None))
            ),
            unit=_text(data.get("unit", "scalar")),
            custom_label=_typed(data.get("custom_label"), str, type(None)),
            custom_multiplier=_typed(data.get("custom_multiplier"), int, type(None)),
            metadata={k: _typed(v, str, int, float) for k, v in metadata.items() if k != MARKER},
            archived=_typed(data.get("archived", data.get("archived_at") is not None), bool),
        )


def _typed(value: Any, *types: type) -> Any:
    if not isinstance(value, types):
        raise TypeError(f"got {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    return str(_typed(value, str))


def is_known(filter_: Any, aggregation: Any) -> bool:
    """Tell whether this version knows every part of a filter and an aggregation, as Polar answers them.

    A part that a later Polar brought (an operator, a function, a field inside a clause) decides what is
    billed. A meter with such a part cannot be compared, so it must never pass for equal.
    """
    unread = [filter_]
    while unread:
        part = unread.pop()
        if not isinstance(part, Mapping):
            return False
        if "clauses" not in part:
            if not _is_known_clause(part):
                return False
        elif part.keys() == {"conjunction", "clauses"} and isinstance(part["clauses"], list):
            if part["conjunction"] not in CONJUNCTIONS:
                return False
            unread += part["clauses"]
        else:
            return False
    return (
        isinstance(aggregation, Mapping)
        and aggregation.keys() <= {"func", "property"}
        and aggregation.get("func") in FUNCS
        and isinstance(aggregation.get("property"), str if aggregation["func"] != "count" else str | None)
    )


def _is_known_clause(clause: Mapping[str, Any]) -> bool:
    return (
        clause.keys() == {"property", "operator", "value"}
        and isinstance(clause["property"], str)
        and clause["operator"] in OPERATORS
        and isinstance(canonical_value(clause["value"]), str | int)
    )


def instant(moment: datetime) -> str:
    """A time as text that compares as times do: RFC 3339 in UTC, to the microsecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class LiveMeter:
    """A meter as Polar holds it now. Times are RFC 3339 texts in UTC of one length, comparable as texts.

    `spec` is None where this version cannot read it, or does not know all parts of its filter and
    aggregation: such a meter is never compared, and nothing but archived. `label` is its name then.
    """

    id: str
    organization_id: str
    created_at: str
    archived_at: str | None
    marker: str | None
    spec: MeterSpec | None
    label: str = ""

    @property
    def name(self) -> str:
        return self.spec.name if self.spec else self.label

    @property
    def archived(self) -> bool:
        return self.archived_at is not None

    def marked(self, marker: str) -> LiveMeter:
        """The same meter under another ownership marker."""
        return replace(self, marker=marker)


@dataclass(frozen=True)
class Record:
    """What the lockfile says of one meter.

    `spec` is what the manifest declared when it was last applied; None when nothing ever was (a meter that
    was found by its marker and then refused a change). `frozen` means that Polar once refused to change its
    filter or aggregation. `ignored` holds the fields of `spec` that were not sent, as `ignore_changes` names
    them. `extra` holds fields of later versions of this tool.
    """

    id: str
    spec: MeterSpec | None
    frozen: bool = False
    ignored: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def applied(self) -> Mapping[str, Any]:
        """The canonical values that the last apply stands for, by path: a field's name, or `metadata.KEY`."""
        values = self.spec.by_path if self.spec else {}
        return {path: value for path, value in values.items() if not is_ignored(path, self.ignored)}

    @property
    def applied_metadata(self) -> Mapping[str, Any]:
        """The base of a merge."""
        return {path.partition(".")[2]: v for path, v in self.applied.items() if path.startswith("metadata.")}


@dataclass(frozen=True)
class Made:
    """Ids of meters that this machine's runs made, as its journal knows.

    `created` are those of 201s that no run has held against the other meters yet; `landed` are meters that
    look like what a create without an answer would have made.
    """

    created: frozenset[str] = frozenset()
    landed: frozenset[str] = frozenset()

    def __contains__(self, meter_id: str) -> bool:
        return meter_id in self.created or meter_id in self.landed


NOTHING_MADE = Made()


def record_of(
    meter_id: str,
    declared: MeterSpec,
    ignore_changes: Set[str],
    base: Record | None,
    *,
    created: bool = False,
) -> Record:
    """What is to be recorded of a meter once it is as declared. `base` is what was recorded of it before;
    `created`: a create sent everything.

    Archiving sends nothing else: the rest stays what was applied before. Telling the same twice changes
    nothing.
    """
    base = base if base and base.id == meter_id else None
    told = replace(base, spec=declared) if base else Record(meter_id, declared)
    if declared.archived and not created:
        if base and base.spec:
            return replace(told, spec=replace(base.spec, archived=True))
        return replace(told, ignored=frozenset((*FROZEN_FIELDS, *IGNORABLE)))
    # What was sent once, and is declared still, is known although it is ignored now.
    sent = base.applied if base else {}
    unsent = (
        "unit" if path in UNIT_FIELDS else path
        for path, value in declared.by_path.items()
        if is_ignored(path, ignore_changes) and (path not in sent or not same_value(sent[path], value))
    )
    return replace(told, ignored=frozenset() if created else frozenset(unsent))


def is_ignored(path: str, ignored: Set[str]) -> bool:
    """Whether `ignore_changes` entries cover a path: a field's name, or `metadata.KEY`."""
    field_name = path.partition(".")[0]
    return path in ignored or ("unit" if field_name in UNIT_FIELDS else field_name) in ignored


def merge_metadata(
    desired: Mapping[str, MetadataValue],
    base: Mapping[str, MetadataValue],
    live: Mapping[str, MetadataValue],
    ignored: frozenset[str],
) -> dict[str, MetadataValue]:
    """Three-way merge, key by key, as `kubectl apply` does it.

    A desired key is set; a key of `base` (what was declared last) that is desired no more is removed, also
    when someone changed it meanwhile; a key that someone else added stays. `ignored` holds
    `ignore_changes` entries: those keys stay as they are live.
    """
    if "metadata" in ignored:
        return dict(live)
    ours = {k for k in {*desired, *base} if f"metadata.{k}" not in ignored}
    kept = {k: v for k, v in live.items() if k not in ours}
    # A value that Polar would only normalise is left as it is, so that no key of ours shows as a change.
    return kept | {
        k: live[k] if k in live and same_value(live[k], v) else v for k, v in desired.items() if k in ours
    }


def same_value(left: Any, right: Any) -> bool:
    """Whether two metadata values are one to Polar; `1`, `1.0` and `true` are three."""
    return canonical_json(canonical_metadata_value(left)) == canonical_json(canonical_metadata_value(right))
