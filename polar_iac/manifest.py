"""The manifest: YAML text to the desired meters, with a position for every value.

Everything that Polar would refuse, or accept and then break on, is refused here, before anything is sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polar_iac import source
from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError, SourceSpan
from polar_iac.meter import (
    CONJUNCTIONS,
    FROZEN_FIELDS,
    FUNCS,
    MARKER,
    MAX_METADATA_KEYS,
    OPERATORS,
    UNITS,
    Aggregation,
    Clause,
    Filter,
    MetadataValue,
    MeterSpec,
    Scalar,
    canonical_property,
)
from polar_iac.source import clip

ENVIRONMENTS = ("production", "sandbox", "local")
MAX_FILTER_DEPTH = 127
MAX_CLAUSES = 5_000
MAX_BODY = 10 * 1024 * 1024
INT32 = range(-(2**31), 2**31)
INT64 = range(-(2**63), 2**63)

_TOP = ("version", "project", "environments", "moved", "meters")
_METER = (
    "name",
    "unit",
    "custom_label",
    "custom_multiplier",
    "filter",
    "aggregation",
    "metadata",
    "archived",
    "lifecycle",
)
_CLAUSE = ("property", "operator", "value")
_FILTER = ("conjunction", "clauses")
_ORDER = ("gt", "gte", "lt", "lte")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SLUG_RULE = "1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit"
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Move:
    """A key was renamed; the meter stays the same one."""

    source: str
    target: str
    span: SourceSpan


@dataclass(frozen=True)
class DesiredMeter:
    """One meter of the manifest; `span` is that of its key."""

    key: str
    spec: MeterSpec
    ignore_changes: frozenset[str]
    span: SourceSpan


@dataclass(frozen=True)
class Manifest:
    """A whole and right manifest; `organizations` has an id per environment that pins one."""

    file: str
    project: str
    organizations: Mapping[str, str]
    moved: tuple[Move, ...]
    meters: Mapping[str, DesiredMeter]
    document: source.Document = field(
        default_factory=lambda: source.Document("", ""), repr=False, compare=False
    )

    def span(self, key: str, path: Sequence[str | int] = ()) -> SourceSpan:
        """Where the value at `path` below `meters.<key>` stands, or the nearest thing above it there is."""
        return self.document.at(("meters", key, *path))

    def diagnose(self, key: str, path: Sequence[str | int], message: str) -> Diagnostic:
        return self.document.diagnose_span(self.span(key, path), message)


def read(path: Path) -> Manifest:
    """The manifest in the file at `path`.

    Raises DiagnosticError with all that is wrong in it, PolarIacError when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(source.MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolarIacError(f"there is no file {path}: name the manifest with -f") from None
    except IsADirectoryError:
        raise PolarIacError(
            f"{path} is a directory: name the manifest in it, {path / 'meters.yaml'}"
        ) from None
    except OSError as error:
        raise PolarIacError(f"cannot read {path}: {error.strerror}") from None
    return load(data, str(path))


def load(text: bytes, file: str) -> Manifest:
    """The manifest in `text`. Raises DiagnosticError with all that is wrong in it."""
    return _Reader(source.parse(text, file)).manifest()


class _Reader:
    """Reads the tree and collects what is wrong with it.

    A method that reads a value and finds fault with it returns whatever has the right type: nothing is made
    of it, since any fault raises in the end.
    """

    def __init__(self, document: source.Document) -> None:
        self.document = document
        self.faults: list[Diagnostic] = []
        self.clauses = 0  # in the meter being read
        self.large = False  # whether that meter's body may come near the limit

    def fault(self, node: source.Node, message: str) -> None:
        self.faults.append(self.document.diagnose(node, message))

    def manifest(self) -> Manifest:
        root, manifest = self.document.root, None
        if isinstance(root, source.Map):
            manifest = self.top(root)
        elif isinstance(root, source.Scalar) and root.plain and not root.text:
            self.fault(root, "the manifest is empty: begin it with `version: 1`")
        else:
            self.fault(root, f"a manifest is a map that begins with `version: 1`, got {_got(root)}")
        if manifest is None or self.faults or self.document.problems:
            # What the parser could not make sense of is not to be blamed a second time.
            known = {problem.span for problem in self.document.problems}
            faults = [fault for fault in self.faults if fault.span not in known]
            raise DiagnosticError([*self.document.problems, *faults])
        return manifest

    def top(self, root: source.Map) -> Manifest:
        self.keys(root, _TOP, ("version", "project", "meters"), root)
        entries = root.entries
        project, organizations = "", {}
        moved: tuple[Move, ...] = ()
        meters: dict[str, DesiredMeter] = {}
        if "version" in entries:
            self.version(entries["version"])
        if "project" in entries:
            project = self.slug(entries["project"], "project")
        if "environments" in entries:
            organizations = self.environments(entries["environments"])
        if "moved" in entries:
            moved = self.moved(entries["moved"], entries.get("meters"))
        if "meters" in entries:
            meters = self.meters(entries["meters"], project)
        return Manifest(self.document.file, project, organizations, moved, meters, self.document)

    # --- Shapes ---

    def keys(
        self, node: source.Map, known: Sequence[str], required: Sequence[str], blamed: source.Node
    ) -> None:
        """Unknown keys, each with the known one that was probably meant; required ones that are missing."""
        entries = node.entries
        meant = set()
        for key in node.keys:
            if key.text in known or (known is _TOP and key.text.startswith("x-")):
                continue
            guess = source.nearest(key.text, [name for name in known if name not in entries])
            meant.add(guess)
            hint = (
                f"did you mean `{guess}`?"
                if guess
                else _ELSEWHERE.get(key.text, _one_of("known here", known))
            )
            self.fault(key, f"unknown key `{clip(key.text)}`: {hint}")
        for name in required:
            if name not in entries and name not in meant:
                self.fault(blamed, f"`{name}` is missing{_MISSING.get(name, '')}")

    def map(self, node: source.Node, what: str, example: str) -> source.Map | None:
        if isinstance(node, source.Map):
            return node
        self.fault(node, f"{what} must be a map such as `{example}`, got {_got(node)}")
        return None

    def list(self, node: source.Node, what: str, example: str) -> list[source.Node]:
        if isinstance(node, source.List):
            return node.children
        self.fault(node, f"{what} must be a list such as `{example}`, got {_got(node)}")
        return []

    def text(self, node: source.Node, what: str) -> str | None:
        """A text; anything else is a fault, and None."""
        if isinstance(node, source.Scalar):
            value = node.value
            if type(value) is str:
                if "\0" in value:
                    self.fault(node, f"{what} holds a NUL character: remove it")
                    return None
                return value
            if isinstance(value, source.Doubtful):
                self.fault(node, value.advice)
                return None
            if value is not None:
                self.fault(node, f"{what} must be text, got {_got(node)}: put it in quotes")
                return None
        self.fault(node, f"{what} must be text, got {_got(node)}")
        return None

    def choice(self, node: source.Node, what: str, choices: Sequence[str]) -> str:
        text = self.text(node, what)
        if text is not None and text not in choices:
            guess = source.nearest(text, choices)
            hint = f": did you mean {guess}?" if guess else ""
            self.fault(node, f"{what} must be {_either(choices)}, got {_got(node)}{hint}")
        return text or choices[0]

    def slug(self, node: source.Node, what: str) -> str:
        text = self.text(node, what)
        if text is not None and not _SLUG.fullmatch(text):
            self.fault(node, f"{what} must be {_SLUG_RULE}, got {_got(node)}")
        return text or ""

    # --- The top of the file ---

    def version(self, node: source.Node) -> None:
        value = node.value if isinstance(node, source.Scalar) else None
        if type(value) is int and value != 1:
            self.fault(node, f"this polar-iac reads version 1, got {_got(node)}: a newer one may be needed")
        elif type(value) is not int:
            self.fault(node, f"version must be the number 1, got {_got(node)}")

    def environments(self, node: source.Node) -> dict[str, str]:
        example = "sandbox: {organization_id: …}"
        organizations: dict[str, str] = {}
        environments = self.map(node, "environments", example)
        if environments is None:
            return organizations
        self.keys(environments, ENVIRONMENTS, (), environments)
        for key in environments.keys:
            value = self.map(environments.entries[key.text], "an environment", "{organization_id: …}")
            if value is None:
                continue
            self.keys(value, ("organization_id",), ("organization_id",), key)
            if "organization_id" in value.entries:
                identifier = value.entries["organization_id"]
                text = self.text(identifier, "organization_id")
                if text is not None and not _UUID4.fullmatch(text):
                    self.fault(
                        identifier, f"organization_id must be a UUID of version 4, got {_got(identifier)}"
                    )
                organizations[key.text] = (text or "").lower()
        return organizations

    def moved(self, node: source.Node, meters: source.Node | None) -> tuple[Move, ...]:
        moves: list[tuple[str, str, source.Map]] = []
        for item in self.list(node, "moved", "[{from: old-key, to: new-key}]"):
            entry = self.map(item, "an entry of moved", "{from: old-key, to: new-key}")
            if entry is None:
                continue
            self.keys(entry, ("from", "to"), ("from", "to"), entry)
            if "from" in entry.entries and "to" in entry.entries:
                old, new = (self.slug(entry.entries[name], name) for name in ("from", "to"))
                moves.append((old, new, entry))
        self.conflicts(moves, meters.entries if isinstance(meters, source.Map) else {})
        return tuple(Move(old, new, self.document.span_of(entry)) for old, new, entry in moves)

    def conflicts(self, moves: Sequence[tuple[str, str, source.Map]], declared: Mapping[str, Any]) -> None:
        """Moves that contradict one another or the meters. A move to a key that is gone is merely old."""
        by_old: dict[str, tuple[str, source.Map]] = {}
        by_new: dict[str, source.Map] = {}
        for old, new, entry in moves:
            from_node, to_node = entry.entries["from"], entry.entries["to"]
            if old == new:
                self.fault(to_node, f"`{old}` is moved to itself: remove this entry")
                continue
            if old in declared:
                self.fault(
                    from_node,
                    f"`{old}` is still declared under meters: rename it there, or remove this entry",
                )
            if old in by_old:
                line = self.document.span_of(by_old[old][1]).line
                self.fault(from_node, f"`{old}` is moved twice: the first is on line {line}")
                continue
            if new in by_new:
                line = self.document.span_of(by_new[new]).line
                self.fault(to_node, f"two meters are moved to `{new}`: the first is on line {line}")
            by_new.setdefault(new, entry)
            by_old[old] = (new, entry)
        done: set[str] = set()
        for start in by_old:
            path = [start]
            while path[-1] in by_old and path[-1] not in done:
                done.add(path[-1])
                path.append(by_old[path[-1]][0])
            if len(path) > 1 and path[-1] in path[:-1]:
                cycle = path[path.index(path[-1]) :]
                first = by_old[cycle[0]][1]
                self.fault(first, f"these moves go in a circle: {clip(' → '.join(cycle), 200)}")

    # --- Meters ---

    def meters(self, node: source.Node, project: str) -> dict[str, DesiredMeter]:
        found: dict[str, DesiredMeter] = {}
        meters = self.map(node, "meters", "api-requests: {name: …, filter: …, aggregation: …}")
        if meters is None:
            return found
        for key in meters.keys:
            if self.text(key, "a meter's key") is not None and not _SLUG.fullmatch(key.text):
                self.fault(key, f"a meter's key must be {_SLUG_RULE}, got {_got(key)}")
            value = self.map(meters.entries[key.text], "a meter", "{name: …, filter: …, aggregation: …}")
            if value is not None:
                found[key.text] = self.meter(key, value, project)
        return found

    def meter(self, key: source.Scalar, node: source.Map, project: str) -> DesiredMeter:
        entries = node.entries
        self.keys(node, _METER, ("name", "filter", "aggregation"), key)
        self.clauses, self.large = 0, False
        name, archived = "", False
        conditions, aggregation = Filter("and"), Aggregation("count")
        metadata: dict[str, MetadataValue] = {}
        ignored: frozenset[str] = frozenset()
        if "name" in entries:
            name = self.name(entries["name"])
        unit, label, multiplier = self.unit(node)
        if "filter" in entries:
            conditions = self.filter(entries["filter"], node.key("filter"), 1)
            if self.clauses > MAX_CLAUSES:
                self.fault(node.key("filter"), _TOO_WIDE)
        if "aggregation" in entries:
            aggregation = self.aggregation(entries["aggregation"], node.key("aggregation"))
        if "metadata" in entries:
            metadata = self.metadata(entries["metadata"], node.key("metadata"))
        if "archived" in entries:
            archived = self.boolean(entries["archived"], "archived")
        if "lifecycle" in entries:
            ignored = self.lifecycle(entries["lifecycle"])
        spec = MeterSpec(name, conditions, aggregation, unit, label, multiplier, metadata, archived)
        if self.large or self.clauses > 500:
            self.size(spec, key, project)
        span = self.document.span(key.start, key.end)
        return DesiredMeter(key.text, spec, ignored, span)

    def name(self, node: source.Node) -> str:
        text = self.text(node, "name")
        if text is None:
            return ""
        if len(text) < 3:
            self.fault(node, f"name must have 3 characters or more, got {_got(node)}")
        self.large |= len(text) > 1000
        return text

    def boolean(self, node: source.Node, what: str) -> bool:
        value = node.value if isinstance(node, source.Scalar) else None
        if type(value) is not bool:
            self.fault(node, f"{what} must be true or false, got {_got(node)}")
        return value is True

    def unit(self, node: source.Map) -> tuple[str, str | None, int | None]:
        """The unit, its label, and its multiplier, which fits any unit."""
        entries = node.entries
        unit, label, multiplier = "scalar", None, None
        if "unit" in entries:
            unit = self.choice(entries["unit"], "unit", UNITS)
        given = entries.get("custom_label")
        if given is not None and not _is_null(given):
            label = self.text(given, "custom_label")
            if label == "":
                self.fault(given, "custom_label is empty: write what one unit is called")
            self.large |= label is not None and len(label) > 1000
            if unit in UNITS and unit != "custom":
                self.fault(node.key("custom_label"), f"custom_label needs `unit: custom`; the unit is {unit}")
        elif unit == "custom":
            self.fault(entries["unit"], "unit custom needs a custom_label: write what one unit is called")
        given = entries.get("custom_multiplier")
        if given is not None and not _is_null(given):
            multiplier = self.multiplier(given)
        return unit, label, multiplier

    def multiplier(self, node: source.Node) -> int | None:
        value = _whole(node.value) if isinstance(node, source.Scalar) else None
        if isinstance(value, source.Doubtful):
            self.fault(node, value.advice)
        elif type(value) is not int:
            self.fault(node, f"custom_multiplier must be a whole number, got {_got(node)}")
        elif value <= 0 or value not in INT64:
            self.fault(node, f"custom_multiplier must be from 1 to {INT64[-1]}, got {_got(node)}")
        else:
            return value
        return None

    def filter(self, node: source.Node, blamed: source.Node, depth: int) -> Filter:
        """A filter at its level; `depth` 1 is the meter's own."""
        if depth > MAX_FILTER_DEPTH:
            self.fault(node, _TOO_NESTED)
            return Filter("and")
        found = self.map(node, "a filter", "{conjunction: and, clauses: []}")
        if found is None:
            return Filter("and")
        self.keys(found, _FILTER, _FILTER, blamed)
        entries = found.entries
        conjunction = "and"
        if "conjunction" in entries:
            conjunction = self.choice(entries["conjunction"], "conjunction", CONJUNCTIONS)
        items: list[source.Node] = []
        if "clauses" in entries:
            items = self.list(entries["clauses"], "clauses", "[{property: name, operator: eq, value: call}]")
        self.clauses += len(items)
        if self.clauses > MAX_CLAUSES:
            return Filter(conjunction)
        clauses: list[Clause | Filter] = []
        for item in items:
            if isinstance(item, source.Map) and ("clauses" in item.entries or "conjunction" in item.entries):
                clauses.append(self.filter(item, item, depth + 1))
            else:
                clauses.append(self.clause(item))
        return Filter(conjunction, tuple(clauses))

    def clause(self, node: source.Node) -> Clause:
        found = self.map(node, "a clause", "{property: name, operator: eq, value: call}")
        if found is None:
            return Clause("", "eq", "")
        entries = found.entries
        if entries.keys() != _CLAUSE_KEYS:
            self.keys(found, _CLAUSE, _CLAUSE, found)
        name: str | None = None
        operator = "eq"
        value: Scalar = ""
        if "property" in entries:
            name = self.property(entries["property"])
        if "operator" in entries:
            operator = self.choice(entries["operator"], "operator", OPERATORS)
        if "value" in entries:
            value = self.value(entries["value"])
            if value is True or value is False:
                self.bool_clause(name, operator, entries["value"])
        return Clause(name or "", operator, value)

    def property(self, node: source.Node) -> str | None:
        text = self.text(node, "property")
        self.large |= text is not None and len(text) > 1000
        return text

    def value(self, node: source.Node) -> Scalar:
        """A clause's value, in its YAML type; what is no text, number or bool is a fault."""
        value = _whole(node.value) if isinstance(node, source.Scalar) else None
        if type(value) is str:
            if len(value) > 1000:
                self.fault(node, f"value must have at most 1,000 characters, got {len(value):,}")
            elif "\0" in value:
                self.fault(node, "value holds a NUL character: remove it")
            return value
        if type(value) is bool:
            return value
        if type(value) is int:
            if value not in INT32:
                limits = f"{INT32[0]} to {INT32[-1]}"
                self.fault(node, f"value must be from {limits} (32 bits), got {_got(node)}")
            return value
        if isinstance(value, source.Doubtful):
            self.fault(node, value.advice)
        elif type(value) is float:
            hint = ": Polar takes no fractions" if math.isfinite(value) else ""
            self.fault(node, f"value must be a whole number, got {_got(node)}{hint}")
        else:
            self.fault(node, f"value must be text, a whole number, true or false, got {_got(node)}")
        return ""

    def bool_clause(self, name: str | None, operator: str, node: source.Node) -> None:
        """The clauses with true or false that Polar takes and then cannot compute."""
        bare = canonical_property(name) if name is not None else "name"
        if bare == "timestamp" and operator not in ("like", "not_like"):
            self.fault(node, "a timestamp cannot be compared with true or false: write seconds since 1970")
        elif operator in _ORDER and bare not in ("name", "source", "timestamp"):
            self.fault(node, f"{operator} cannot compare with true or false: use eq or ne, or a number")

    def aggregation(self, node: source.Node, blamed: source.Node) -> Aggregation:
        found = self.map(node, "aggregation", "{func: sum, property: tokens}")
        if found is None:
            return Aggregation("count")
        self.keys(found, ("func", "property"), ("func",), blamed)
        func, name = "", None
        if "func" in found.entries:
            func = self.choice(found.entries["func"], "func", FUNCS)
        if "property" in found.entries:
            name = self.property(found.entries["property"])
            if func == "count":
                self.fault(found.key("property"), "count takes no property: remove it, or use another func")
        elif func in FUNCS and func != "count":
            self.fault(found.entries["func"], f"{func} needs a property: write which one it computes")
        return Aggregation(func, name)

    def metadata(self, node: source.Node, blamed: source.Node) -> dict[str, MetadataValue]:
        found = self.map(node, "metadata", "{team: ai}")
        metadata: dict[str, MetadataValue] = {}
        if found is None:
            return metadata
        if len(found.keys) >= MAX_METADATA_KEYS:
            limit = MAX_METADATA_KEYS - 1
            self.fault(
                blamed,
                f"metadata must have at most {limit} keys ({MARKER} is one more), got {len(found.keys)}",
            )
        for key in found.keys:
            text = self.text(key, "a metadata key")
            if text == MARKER:
                self.fault(key, f"`{MARKER}` is where polar-iac marks its meters: use another key")
            elif text is not None and not 1 <= len(text) <= 40:
                self.fault(key, f"a metadata key must have 1 to 40 characters, got {len(text)}")
            metadata[key.text] = self.metadata_value(found.entries[key.text])
        return metadata

    def metadata_value(self, node: source.Node) -> MetadataValue:
        value = node.value if isinstance(node, source.Scalar) else None
        if type(value) is str:
            if not 1 <= len(value) <= 500:
                self.fault(node, f"a metadata text must have 1 to 500 characters, got {len(value):,}")
            elif "\0" in value:
                self.fault(node, "a metadata text holds a NUL character: remove it")
        elif isinstance(value, source.Doubtful):
            self.fault(node, value.advice)
        elif value is None:
            self.fault(node, f"a metadata value must be text, a number, true or false, got {_got(node)}")
            return ""
        elif type(value) is float and not math.isfinite(value):
            self.fault(node, f"a metadata number must be finite, got {_got(node)}")
        return value

    def lifecycle(self, node: source.Node) -> frozenset[str]:
        found = self.map(node, "lifecycle", "{ignore_changes: [name]}")
        ignored: set[str] = set()
        if found is None:
            return frozenset()
        self.keys(found, ("ignore_changes",), (), found)
        if "ignore_changes" in found.entries:
            for item in self.list(
                found.entries["ignore_changes"], "ignore_changes", "[name, metadata.owner]"
            ):
                text = self.text(item, "an entry of ignore_changes")
                if text is not None:
                    self.ignorable(item, text)
                    ignored.add(text)
        return frozenset(ignored)

    def ignorable(self, node: source.Node, text: str) -> None:
        root, _, rest = text.partition(".")
        if text in ("name", "unit", "metadata") or (
            root == "metadata" and 1 <= len(rest) <= 40 and rest != MARKER
        ):
            return
        if root in FROZEN_FIELDS:
            self.fault(node, f"{root} cannot be ignored: it decides what is billed")
        elif text in ("custom_label", "custom_multiplier"):
            self.fault(node, f"{text} cannot be ignored alone: write unit, which covers it")
        else:
            self.fault(node, f"ignore_changes takes name, unit, metadata and metadata.KEY, got {_got(node)}")

    def size(self, spec: MeterSpec, key: source.Scalar, project: str) -> None:
        """Refuse a body that Polar would refuse for its size, without ever building it."""
        small = MeterSpec(spec.name, Filter("and"), spec.aggregation, spec.unit, spec.custom_label)
        size = sum(len(_json(part)) for part in (small.create_body(f"{project}/{key.text}"), spec.metadata))
        open_filters = [spec.filter]
        while open_filters and size <= MAX_BODY:
            for clause in open_filters.pop().clauses:
                if isinstance(clause, Filter):
                    open_filters.append(clause)
                    size += 40
                else:
                    size += len(_json(clause.wire())) + 1
                if size > MAX_BODY:
                    break
        if size > MAX_BODY:
            self.fault(key, f"this meter is larger than the {MAX_BODY // 1024**2} MiB that Polar accepts")


_CLAUSE_KEYS = frozenset(_CLAUSE)
_TOO_NESTED = (
    f"filters are nested more than {MAX_FILTER_DEPTH} levels deep:"
    " Polar would store this and never be able to list it"
)
_TOO_WIDE = f"a filter of more than {MAX_CLAUSES:,} clauses: Polar takes seconds for these, and fails on more"
_MISSING = {"version": ": begin the file with `version: 1`", "meters": ": write `meters: {}` for none"}
_ELSEWHERE = {
    "organization_id": "it stands under environments, at the top of the file",
    "property": "a clause stands in a list under `clauses`",
    "operator": "a clause stands in a list under `clauses`",
    "value": "a clause stands in a list under `clauses`",
}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _is_null(node: source.Node) -> bool:
    return isinstance(node, source.Scalar) and node.value is None


def _whole(value: source.Value) -> source.Value:
    return int(value) if type(value) is float and value.is_integer() else value


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _one_of(what: str, words: Sequence[str]) -> str:
    return f"{what} are {', '.join(words)}" if len(words) > 1 else f"{what} is {words[0]}"


def _got(node: source.Node) -> str:
    """A value as people would say it."""
    if isinstance(node, source.List):
        return "a list"
    if isinstance(node, source.Map):
        return "a map"
    value = node.value
    if value is None:
        return "null" if node.text else "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {clip(node.text)}"
    return f"the text {json.dumps(clip(value), ensure_ascii=False)}"


# --- What Polar says of a manifest -----------------------------------------------------------------------

_BRANCHES = {"Filter": _FILTER, "FilterClause": _CLAUSE}


def problems_of(detail: Iterable[Mapping[str, Any]]) -> dict[tuple[str | int, ...], str]:
    """Polar's 422 `detail` as messages by path below the meter, for `Manifest.diagnose`.

    Polar tries a clause as a clause and as a filter, and a value as each type it may have: of a branch that
    was not meant nothing is kept, and the messages for one place become one.
    """
    entries = [(tuple(entry.get("loc", ())), entry) for entry in detail]
    missing = {loc for loc, entry in entries if entry.get("type") == "missing"}
    noise = {
        (*item, branch)
        for item in {loc[:i] for loc, _ in entries for i in range(2, len(loc)) if loc[i] in _BRANCHES}
        for branch, fields in _BRANCHES.items()
        if all((*item, branch, name) in missing for name in fields)
        and any(loc[: len(item)] == item and loc[len(item)] != branch for loc, _ in entries)
    }
    messages: dict[tuple[str | int, ...], list[str]] = {}
    for loc, entry in entries:
        if not any(loc[: len(branch)] == branch for branch in noise):
            found = messages.setdefault(_plain(loc), [])
            message = str(entry.get("msg", "refused"))
            if message not in found:
                found.append(message)
    return {path: "; ".join(found) for path, found in messages.items()}


def _plain(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """A `loc` without "body" and without what names a member of a union rather than a part of the body."""
    path: list[str | int] = []
    parts = list(loc[1:] if loc[:1] == ("body",) else loc)
    for i, part in enumerate(parts):
        before = parts[i - 1] if i else None
        if (part in _BRANCHES and isinstance(before, int)) or (
            i == 1 and before == "aggregation" and part in FUNCS
        ):
            continue
        path.append(part)
        if (path[0] == "metadata" and len(path) == 2) or (part == "value" and path[0] == "filter"):
            break
    return tuple(path)
