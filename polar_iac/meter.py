"""Meter data model: the spec, its canonical form for comparison, and the meter as Polar holds it."""

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
"""Fields that `ignore_changes` may name, in addition to single metadata keys. `unit` includes the label and
multiplier."""

MARKER = "polar_iac"
"""The metadata key of the ownership marker; its value is `<project>/<key>`."""

MAX_METADATA_KEYS = 50
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""Pattern of an id as Polar writes it."""

IMPACT: Mapping[str, Impact] = {
    "filter": "billing",
    "aggregation": "billing",
    "name": "invoice",
    "unit": "invoice",
    "custom_label": "invoice",
    "custom_multiplier": "invoice",
    "metadata": "internal",
}
"""Fields of a meter in display order, each with what a change of it affects."""


def reading_order(path: str) -> tuple[int, str]:
    """Sort key for a path (a field name or `metadata.KEY`): fields in display order, then metadata keys."""
    name, _, key = path.partition(".")
    return list(IMPACT).index(name), key


FROZEN_FIELDS = ("filter", "aggregation")
"""Fields that Polar refuses to change once the meter has aggregated events."""


def canonical_json(value: Any) -> str:
    """Return compact JSON with sorted keys.

    Equal texts mean equal values; `1`, `1.0`, and `true` are all different.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_property(name: str) -> str:
    """Return a property name without any leading `metadata.`.

    Polar strips one such prefix on each write and another on each read (observed), so only the bare name is
    stable.
    """
    while name.startswith("metadata."):
        name = name.removeprefix("metadata.")
    return name


def canonical_value(value: Any) -> Any:
    """Return a clause's value as Polar stores it: whole floats become ints (observed)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def canonical_metadata_value(value: Any) -> Any:
    """Return a metadata value as a GET returns it.

    Whole floats written with an exponent become ints, and `-0.0` becomes `0.0` (observed: PostgreSQL's jsonb
    stores numbers as decimals).
    """
    if isinstance(value, float) and value.is_integer():
        # Examples: `1e20` (repr "1e+20") becomes 100000000000000000000; `5.0` stays 5.0.
        return int(Decimal(repr(value))) if "e" in repr(value) else value + 0.0
    return value


@dataclass(frozen=True, eq=False)
class Clause:
    """A comparison of one event property with a value."""

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
    """A conjunction ("and" or "or") of clauses and filters. Without clauses it matches every event."""

    conjunction: str
    clauses: tuple[Clause | Filter, ...] = ()

    def wire(self) -> dict[str, Any]:
        """Return the filter as it is sent to Polar, in the author's order."""
        return {"conjunction": self.conjunction, "clauses": [c.wire() for c in self.clauses]}

    def canonical(self) -> dict[str, Any]:
        """Return the normal form, which is equal for filters that differ only in form.

        Both of Polar's engines treat such filters the same (observed). A group of one is replaced by its
        member, a group inside one of the same conjunction is flattened, duplicates are removed, and order is
        ignored. An empty group matches every event: it drops out of an `and`, and makes an `or` match every
        event. The root is always a filter: `or[x]` becomes `and[x]`, and "every event" is `and[]`.
        """
        return _as_root(_normal_form(self).data)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Filter:
        """Parse the output of `wire` or `canonical`, or an answer from Polar.

        Raises KeyError, TypeError, or AttributeError when `data` is not a filter.
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
    """A clause or a group in normal form. `text` is its canonical JSON, so equal parts have equal texts."""

    data: Mapping[str, Any]
    text: str
    members: tuple[_Normal, ...] | None = None
    """Members of a group, or None for a clause. A group without members matches every event."""

    @property
    def order(self) -> tuple[bool, str]:
        """Sort key: clauses by property, then groups. Any total order would do; this one is easy to read."""
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
        # `or[x, and[]]` matches every event, so the other members do not matter.
        if inner.members == () and part.conjunction == "or":
            return _EVERY_EVENT
        # `and[a, and[b, c]]` becomes `and[a, b, c]`. An empty group is also an `and`, with no members to add.
        same = inner.members is not None and inner.data["conjunction"] == part.conjunction
        for member in inner.members or () if same else (inner,):
            members.setdefault(member.text, member)
    if len(members) == 1:
        return next(iter(members.values()))
    ordered = tuple(sorted(members.values(), key=lambda member: member.order))
    if not ordered:
        return _EVERY_EVENT
    data = {"conjunction": part.conjunction, "clauses": [member.data for member in ordered]}
    # Join the members' texts: serializing again at each level would be slow for a deep filter.
    texts = ",".join(member.text for member in ordered)
    return _Normal(data, f'{{"clauses":[{texts}],"conjunction":{json.dumps(part.conjunction)}}}', ordered)


def _as_root(data: Mapping[str, Any]) -> dict[str, Any]:
    return dict(data) if "clauses" in data else {"conjunction": "and", "clauses": [data]}


@dataclass(frozen=True, eq=False)
class Aggregation:
    """Function that turns the matching events into a number. `count` has no property."""

    func: str
    property: str | None = None

    def wire(self) -> dict[str, Any]:
        if self.property is None or self.func == "count":
            return {"func": self.func}
        return {"func": self.func, "property": canonical_property(self.property)}

    canonical = wire


@dataclass(frozen=True, eq=False)
class MeterSpec:
    """The part of a meter that the manifest declares, and that is compared. Equality uses the canonical form.

    `metadata` does not include the ownership marker.
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
        """The whole spec as JSON data, with every field present.

        Writing it to Polar and reading it back changes nothing.
        """
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
        """Canonical values by path: a field name or `metadata.KEY`.

        `archived` is not included; it has its own actions.
        """
        values = {name: self.canonical[name] for name in IMPACT if name != "metadata"}
        return values | {f"metadata.{key}": value for key, value in self.canonical["metadata"].items()}

    @property
    def billing(self) -> str:
        """Text that is equal for two meters exactly when they bill the same: same filter and aggregation."""
        return canonical_json([self.canonical[name] for name in FROZEN_FIELDS])

    @cached_property
    def fingerprint(self) -> str:
        return canonical_json(self.canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeterSpec) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def wire(self, field_name: str) -> Any:
        """Return the value of one field as it is sent to Polar."""
        value = getattr(self, field_name)
        return value.wire() if isinstance(value, Filter | Aggregation) else value

    def create_body(self, marker: str) -> dict[str, Any]:
        """Return a POST body: the fields that differ from Polar's defaults, and the ownership marker."""
        body = {"name": self.name, "filter": self.filter.wire(), "aggregation": self.aggregation.wire()}
        if self.unit != "scalar":
            body["unit"] = self.unit
        for optional in ("custom_label", "custom_multiplier"):
            if getattr(self, optional) is not None:
                body[optional] = getattr(self, optional)
        return body | {"metadata": {**self.metadata, MARKER: marker}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MeterSpec:
        """Parse a canonical spec or a meter from Polar. Fields that Polar added later may be missing.

        Raises KeyError, TypeError, or AttributeError when `data` is not a meter.
        """
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
    """Tell whether this version knows every part of a filter and an aggregation from Polar.

    A part that a later Polar added (an operator, a function, a field inside a clause) affects billing. A
    meter with such a part cannot be compared, so it must never be treated as equal.
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
    """Format a time as RFC 3339 in UTC, to the microsecond, so that texts sort like times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class LiveMeter:
    """A meter as Polar holds it now.

    Times are RFC 3339 texts in UTC, all of one length, so they sort as texts. `spec` is None when this
    version cannot read the meter, or does not know every part of its filter and aggregation. Such a meter is
    never compared, and can only be archived; `label` is its name.
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
        """Return the same meter with another ownership marker."""
        return replace(self, marker=marker)


@dataclass(frozen=True)
class Record:
    """Lockfile entry of one meter.

    `spec` is what the manifest declared at the last apply. It is None when nothing was ever applied: the
    meter was found by its marker and then refused a change. `frozen` means that Polar once refused to change
    its filter or aggregation. `ignored` holds the fields of `spec` that were not sent, named as in
    `ignore_changes`. `extra` holds fields of later versions of this tool.
    """

    id: str
    spec: MeterSpec | None
    frozen: bool = False
    ignored: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def applied(self) -> Mapping[str, Any]:
        """Canonical values of the last apply, by path: a field name or `metadata.KEY`."""
        values = self.spec.by_path if self.spec else {}
        return {path: value for path, value in values.items() if not is_ignored(path, self.ignored)}

    @property
    def applied_metadata(self) -> Mapping[str, Any]:
        """Metadata of the last apply: the base of a three-way merge."""
        return {path.partition(".")[2]: v for path, v in self.applied.items() if path.startswith("metadata.")}


@dataclass(frozen=True)
class Made:
    """Ids of meters that runs on this machine created, according to its journal.

    `created` are ids from 201 answers that no run has yet checked for duplicates. `landed` are meters that
    match a create without an answer.
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
    """Return the lockfile entry for a meter once it is as declared.

    `base` is its previous entry. `created` means that a create sent every field. Archiving sends only the
    archived flag, so the rest stays as it was last applied. Recording the same state twice changes nothing.
    """
    base = base if base and base.id == meter_id else None
    told = replace(base, spec=declared) if base else Record(meter_id, declared)
    if declared.archived and not created:
        if base and base.spec:
            return replace(told, spec=replace(base.spec, archived=True))
        # The meter is archived, and nothing of this spec was ever applied: record it all as not sent.
        return replace(told, ignored=frozenset((*FROZEN_FIELDS, *IGNORABLE)))
    # A value that was sent before, and is still declared, is known even if the field is ignored now. Example:
    # `name` was applied as "A", then added to `ignore_changes` and still declared as "A": it stays recorded.
    sent = base.applied if base else {}
    unsent = (
        "unit" if path in UNIT_FIELDS else path
        for path, value in declared.by_path.items()
        if is_ignored(path, ignore_changes) and (path not in sent or not same_value(sent[path], value))
    )
    return replace(told, ignored=frozenset() if created else frozenset(unsent))


def is_ignored(path: str, ignored: Set[str]) -> bool:
    """Tell whether `ignore_changes` entries cover a path: a field name or `metadata.KEY`."""
    field_name = path.partition(".")[0]
    return path in ignored or ("unit" if field_name in UNIT_FIELDS else field_name) in ignored


def merge_metadata(
    desired: Mapping[str, MetadataValue],
    base: Mapping[str, MetadataValue],
    live: Mapping[str, MetadataValue],
    ignored: frozenset[str],
) -> dict[str, MetadataValue]:
    """Merge metadata three ways, key by key, like `kubectl apply`.

    A desired key is set. A key of `base` (the last declared metadata) that is no longer desired is removed,
    even if someone changed it since. A key that someone else added stays. `ignored` holds `ignore_changes`
    entries; those keys keep their live values.
    """
    if "metadata" in ignored:
        return dict(live)
    # Example: base {a, b}, desired {a}, live {a, b, c}: `b` is removed, and `c` (not ours) stays.
    ours = {k for k in {*desired, *base} if f"metadata.{k}" not in ignored}
    kept = {k: v for k, v in live.items() if k not in ours}
    # Keep the live value if Polar would only normalize ours. Example: 1e20 and 100000000000000000000 are
    # equal.
    return kept | {
        k: live[k] if k in live and same_value(live[k], v) else v for k, v in desired.items() if k in ours
    }


def same_value(left: Any, right: Any) -> bool:
    """Tell whether Polar treats two metadata values as equal. `1`, `1.0`, and `true` are all different."""
    return canonical_json(canonical_metadata_value(left)) == canonical_json(canonical_metadata_value(right))
