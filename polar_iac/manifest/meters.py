"""Rules for one meter of the manifest: the fields of Polar's create body, and Polar's checks of each.

What Polar refuses only of a new meter is no fault here, because a meter that exists may be so:
`polar_iac.meter.limits`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from polar_iac.manifest.node_reader import NodeReader, describe, describe_text, quotes_hint, several_values
from polar_iac.meter.canonical import canonical_property, canonical_value
from polar_iac.meter.fields import (
    FIELDS,
    IGNORABLE,
    MAX_METADATA_KEY,
    MAX_METADATA_KEYS,
    MAX_METADATA_TEXT,
    MAX_MULTIPLIER,
    UNITS,
    FieldPath,
    MetadataValue,
)
from polar_iac.meter.filter import (
    CLAUSE_KEYS,
    CONJUNCTIONS,
    EVENT_FIELDS,
    FILTER_KEYS,
    FUNCS,
    INT32,
    MAX_VALUE_TEXT,
    OPERATORS,
    ORDER_OPERATORS,
    Aggregation,
    Clause,
    Filter,
    Scalar,
)
from polar_iac.meter.marker import MARKER, OwnershipMarker
from polar_iac.meter.spec import MeterSpec
from polar_iac.yaml import tree
from polar_iac.yaml.scalars import Doubtful, Value

_METER_KEYS = (*FIELDS, "lifecycle", "environments")
_REQUIRED = tuple(name for name, field in FIELDS.items() if field.required)
_MAX_DEPTH = 127
"""Maximum filter depth that Polar can return. A clause counts as one level, so a clause inside filter 127 is
too deep."""
_MAX_CLAUSES = 5_000
_MAX_BODY = 10 * 1024 * 1024
_LONG = 1_000
"""Length from which a text counts as long. Without a long text, and with at most 500 clauses, no body comes
near the size limit."""


class MeterReader:
    """Reader of one meter. `blamed` is the node to report for missing fields."""

    def __init__(self, reader: NodeReader, key: tree.Scalar, project: str) -> None:
        self.reader = reader
        self.key = key
        self.blamed: tree.Node = key
        self.project = project
        self.clauses = 0
        self.long_texts = False

    def read(self, node: tree.Map) -> tuple[MeterSpec, frozenset[str]]:
        """Return the spec, and the fields that `lifecycle.ignore_changes` names."""
        entries = node.entries
        self.blamed = tree.written_at(self.key, node)
        self.reader.keys(node, _METER_KEYS, _REQUIRED, self.blamed)
        name, archived = "", False
        conditions, aggregation = Filter("and"), Aggregation("count")
        metadata: dict[str, MetadataValue] = {}
        ignored: frozenset[str] = frozenset()
        if "name" in entries:
            name = self.text(entries["name"], "name") or ""
        unit, label, multiplier = self.unit(node)
        if "filter" in entries:
            conditions = self.filter(entries["filter"], node.place("filter"), 1)
            if self.clauses > _MAX_CLAUSES:
                self.reader.fault(node.place("filter"), _TOO_WIDE)
        if "aggregation" in entries:
            aggregation = self.aggregation(entries["aggregation"], node.place("aggregation"))
        if "metadata" in entries:
            metadata = self.metadata(entries["metadata"], node.place("metadata"))
        if "archived" in entries:
            archived = self.reader.boolean(entries["archived"], "archived")
        if "lifecycle" in entries:
            ignored = self.ignored(entries["lifecycle"])
        spec = MeterSpec(name, conditions, aggregation, unit, label, multiplier, metadata, archived)
        if (self.long_texts or self.clauses > 500) and _body_size(spec, self.marker) > _MAX_BODY:
            limit = _MAX_BODY // 1024**2
            self.reader.fault(self.blamed, f"this meter is larger than the {limit} MiB that Polar accepts")
        return spec, ignored

    @property
    def marker(self) -> str:
        return str(OwnershipMarker(self.project, self.key.text))

    def text(self, node: tree.Node, what: str) -> str | None:
        """Return a text that Polar limits only through the size of the whole body."""
        text = self.reader.text(node, what)
        if text is not None and len(text) > _LONG:
            self.long_texts = True
        return text

    def unit(self, node: tree.Map) -> tuple[str, str | None, int | None]:
        """Return the unit, its label, and its multiplier."""
        entries = node.entries
        unit, label, multiplier = FIELDS["unit"].default, None, None
        if "unit" in entries:
            unit = self.reader.choice(entries["unit"], "unit", UNITS)
        given = entries.get("custom_label")
        if given is not None and not _is_null(given):
            label = self.text(given, "custom_label")
        given = entries.get("custom_multiplier")
        if given is not None and not _is_null(given):
            multiplier = self.multiplier(given)
        return unit, label, multiplier

    def multiplier(self, node: tree.Node) -> int | None:
        value = _value(node)
        if isinstance(value, Doubtful):
            self.reader.fault(node, value.advice)
        elif type(value) is not int:
            hint = quotes_hint(node, int)
            self.reader.fault(node, f"custom_multiplier must be a whole number, got {describe(node)}{hint}")
        elif not 0 < value <= MAX_MULTIPLIER:
            self.reader.fault(
                node, f"custom_multiplier must be from 1 to {MAX_MULTIPLIER}, got {describe(node)}"
            )
        else:
            return value
        return None

    # --- Fields that affect billing ---

    def filter(self, node: tree.Node, blamed: tree.Node, depth: int) -> Filter:
        """Return a filter and everything below it. `depth` 1 is the meter's own filter."""
        group = self.reader.map(node, "a filter", "{conjunction: and, clauses: []}")
        if group is None:
            return Filter("and")
        entries = group.entries
        if entries.keys() != _FILTER_KEYS:
            self.reader.keys(group, FILTER_KEYS, FILTER_KEYS, blamed)
        conjunction = "and"
        if "conjunction" in entries:
            conjunction = self.reader.choice(entries["conjunction"], "conjunction", CONJUNCTIONS)
        items: list[tree.Node] = []
        if "clauses" in entries:
            example = "[{property: name, operator: eq, value: call}]"
            items = self.reader.list(entries["clauses"], "clauses", example)
        self.clauses += len(items)
        if self.clauses > _MAX_CLAUSES:
            return Filter(conjunction)  # Rejected as a whole and not read, because it may be huge.
        clauses: list[Clause | Filter] = []
        for item in items:
            if depth == _MAX_DEPTH:
                self.reader.fault(item, _TOO_DEEP)
            elif isinstance(item, tree.Map) and _is_filter(item.entries):
                clauses.append(self.filter(item, item, depth + 1))
            else:
                clauses.append(self.clause(item))
        return Filter(conjunction, tuple(clauses))

    def clause(self, node: tree.Node) -> Clause:
        mapping = self.reader.map(node, "a clause", "{property: name, operator: eq, value: call}")
        if mapping is None:
            return Clause("", "eq", "")
        entries = mapping.entries
        if entries.keys() != _CLAUSE_KEYS:
            self.reader.keys(mapping, CLAUSE_KEYS, CLAUSE_KEYS, mapping)
        name: str | None = None
        operator = ""
        value: Scalar = ""
        if "property" in entries:
            name = self.text(entries["property"], "property")
        if "operator" in entries:
            operator = self.reader.choice(entries["operator"], "operator", OPERATORS)
        if "value" in entries:
            value = self.value(entries["value"], operator, name)
            if type(value) is bool and name is not None and operator in OPERATORS:
                self.bool_clause(canonical_property(name), operator, entries["value"])
        return Clause(name or "", operator, value)

    def value(self, node: tree.Node, operator: str, name: str | None) -> Scalar:
        """Return a clause's value in its YAML type: `5`, `"5"`, and `true` are different."""
        value = _value(node)
        if type(value) is str:
            value = self.reader.without_break(node, "value", value)
            if len(value) > MAX_VALUE_TEXT:
                limit = f"{MAX_VALUE_TEXT:,} characters"
                self.reader.fault(node, f"value must have at most {limit}, got {len(value):,}")
            elif "\0" in value:
                self.reader.fault(node, "value holds a NUL character: remove it", rule="invisible-character")
            return value
        if type(value) is int:
            if value not in INT32:
                limits = f"{INT32[0]} to {INT32[-1]}"
                message = f"value must be from {limits} (32 bits), got {describe(node)}"
                is_time = canonical_property(name or "") == "timestamp"
                if is_time and value // 1000 in INT32:
                    message += f": a timestamp is in seconds, {value // 1000}"
                self.reader.fault(node, message, rule="implausible-timestamp" if is_time else "")
            return value
        if type(value) is bool:
            return value
        if isinstance(value, Doubtful):
            self.reader.fault(node, value.advice)
        elif type(value) is float:
            hint = ": Polar takes no fractions" if math.isfinite(value) else ""
            self.reader.fault(node, f"value must be a whole number, got {describe(node)}{hint}")
        else:
            message = f"value must be text, a whole number, true or false, got {describe_text(node)}"
            if isinstance(node, tree.List):
                message = f"{message}: {several_values(operator)}"
            self.reader.fault(node, message)
        return ""

    def bool_clause(self, name: str, operator: str, node: tree.Node) -> None:
        """Reject the true/false clauses that Polar stores and then cannot compute."""
        if name == "timestamp" and operator not in ("like", "not_like"):
            message = "a timestamp cannot be compared with true or false: write seconds since 1970"
            self.reader.fault(node, message, rule="boolean-order")
        elif operator in ORDER_OPERATORS and name not in EVENT_FIELDS:
            message = f"{operator} cannot compare with true or false: use eq or ne, or a number"
            self.reader.fault(node, message, rule="boolean-order")

    def aggregation(self, node: tree.Node, blamed: tree.Node) -> Aggregation:
        mapping = self.reader.map(node, "aggregation", "{func: sum, property: tokens}")
        if mapping is None:
            return Aggregation("count")
        self.reader.keys(mapping, ("func", "property"), ("func",), blamed)
        func, name = "", None
        if "func" in mapping.entries:
            func = self.reader.choice(mapping.entries["func"], "func", FUNCS)
        if func == "count":
            if "property" in mapping.entries:
                message = "count takes no property: remove it, or use another func"
                self.reader.fault(mapping.key("property"), message)
        elif "property" in mapping.entries:
            name = self.text(mapping.entries["property"], "property")
        elif func in FUNCS:
            self.reader.fault(
                mapping.entries["func"], f"{func} needs a property: write what it is the {func} of"
            )
        return Aggregation(func, name)

    # --- Other fields ---

    def metadata(self, node: tree.Node, blamed: tree.Node) -> dict[str, MetadataValue]:
        mapping = self.reader.map(node, "metadata", "{team: ai}")
        metadata: dict[str, MetadataValue] = {}
        if mapping is None:
            return metadata
        if len(mapping.keys) > MAX_METADATA_KEYS:
            message = f"metadata must have at most {MAX_METADATA_KEYS} keys, got {len(mapping.keys)}"
            self.reader.fault(blamed, message, mapping)
        for key in mapping.keys:
            text = self.reader.text(key, "a metadata key")
            if text == MARKER:
                message = f"{MARKER} is where polar-iac marks its meters: use another key"
                self.reader.fault(key, message)
            elif text is not None and not 1 <= len(text) <= MAX_METADATA_KEY:
                limit = f"1 to {MAX_METADATA_KEY} characters"
                self.reader.fault(key, f"a metadata key must have {limit}, got {len(text)}")
            metadata[key.text] = self.metadata_value(mapping.entries[key.text])
        return metadata

    def metadata_value(self, node: tree.Node) -> MetadataValue:
        value = node.value if isinstance(node, tree.Scalar) else None
        if type(value) is str:
            if not 1 <= len(value) <= MAX_METADATA_TEXT:
                limit = f"1 to {MAX_METADATA_TEXT} characters"
                self.reader.fault(node, f"a metadata text must have {limit}, got {len(value):,}")
            elif "\0" in value:
                self.reader.fault(
                    node, "a metadata text holds a NUL character: remove it", rule="invisible-character"
                )
        elif isinstance(value, Doubtful):
            self.reader.fault(node, value.advice)
        elif value is None:
            message = f"a metadata value must be text, a number, true or false, got {describe_text(node)}"
            self.reader.fault(node, message)
            return ""
        elif type(value) is float and not math.isfinite(value):
            self.reader.fault(node, f"a metadata number must be finite, got {describe(node)}")
        return value

    def ignored(self, node: tree.Node) -> frozenset[str]:
        lifecycle = self.reader.map(node, "lifecycle", "{ignore_changes: [name]}")
        ignored: set[str] = set()
        if lifecycle is None:
            return frozenset()
        self.reader.keys(lifecycle, ("ignore_changes",), (), lifecycle)
        if "ignore_changes" in lifecycle.entries:
            entries = lifecycle.entries["ignore_changes"]
            for item in self.reader.list(entries, "ignore_changes", "[name, metadata.owner]"):
                text = self.reader.text(item, "an entry of ignore_changes")
                if text is not None:
                    self.ignorable(item, text)
                    ignored.add(text)
        return frozenset(ignored)

    def ignorable(self, node: tree.Node, text: str) -> None:
        path = FieldPath.parse(text)
        if text in IGNORABLE:
            return
        if path.name == "metadata" and path.key and len(path.key) <= MAX_METADATA_KEY and path.key != MARKER:
            return
        field = FIELDS.get(path.name)
        if field and field.freezes:
            self.reader.fault(node, f"{field.name} cannot be ignored: it decides what is billed")
        elif field and field.ignorable and text == field.name:
            # Example: `custom_label`, which is covered by `unit`.
            message = f"{text} cannot be ignored by itself: write {field.group}, which covers it"
            self.reader.fault(node, message)
        else:
            names = f"{', '.join(IGNORABLE)} and metadata.KEY"
            self.reader.fault(node, f"ignore_changes takes {names}, got {describe(node)}")


_CLAUSE_KEYS = frozenset(CLAUSE_KEYS)
_FILTER_KEYS = frozenset(FILTER_KEYS)
_TOO_DEEP = (
    f"a filter may be {_MAX_DEPTH} levels deep, and a clause counts as one: Polar stores a deeper one, and"
    " then fails to list the meters. Move this into a filter further out"
)
_TOO_WIDE = f"a filter may have {_MAX_CLAUSES:,} clauses: Polar takes many seconds for more, or fails"


def _is_filter(entries: Mapping[str, tree.Node]) -> bool:
    return "clauses" in entries or ("conjunction" in entries and "property" not in entries)


def _is_null(node: tree.Node) -> bool:
    return isinstance(node, tree.Scalar) and node.value is None


def _value(node: tree.Node) -> Value:
    """Return a scalar's value, or None for other nodes. Whole floats become ints, as Polar stores them."""
    if not isinstance(node, tree.Scalar):
        return None
    value = node.value
    return canonical_value(value) if type(value) is float else value


def _body_size(spec: MeterSpec, marker: str) -> int:
    """Return the size of the body to send, or a number above the limit. The whole body is never built."""
    without_filter = MeterSpec(
        spec.name, Filter("and"), spec.aggregation, spec.unit, spec.custom_label, metadata=spec.metadata
    )
    size = len(_json(without_filter.create_body(marker)))
    unread = [spec.filter]
    while unread and size <= _MAX_BODY:
        for clause in unread.pop().clauses:
            if isinstance(clause, Filter):
                unread.append(clause)
                size += len('{"conjunction":"and","clauses":[]},')
            elif size <= _MAX_BODY:
                size += len(_json(clause.wire())) + 1
    return size


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
