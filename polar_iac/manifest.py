"""Manifest parser: turns YAML text into desired meters, with a position for every value.

Refuses, before anything is sent, whatever Polar would reject, or accept and then fail on.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from textwrap import indent
from typing import Any

from polar_iac import ENVIRONMENTS, source
from polar_iac.errors import Diagnostic, PolarIacError, SourceSpan
from polar_iac.meter import FUNCS, UNIT_FIELDS, MeterSpec
from polar_iac.meter_rules import CLAUSE_KEYS, FILTER_KEYS, MeterRules
from polar_iac.shapes import Shapes, got
from polar_iac.yaml_text import MAX_BYTES, clip, resolve

_TOP = ("version", "project", "environments", "moved", "meters", "x-…")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*(?: [A-Za-z0-9_.-]+)*")
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Move:
    """A renamed key. The meter stays the same."""

    source: str
    target: str
    span: SourceSpan


@dataclass(frozen=True)
class DesiredMeter:
    """One meter of the manifest. `span` is the position of its key."""

    key: str
    spec: MeterSpec
    ignore_changes: frozenset[str]
    span: SourceSpan


@dataclass(frozen=True)
class Manifest:
    """A complete and valid manifest. `organizations` holds an id for each environment that pins one."""

    file: str
    project: str
    organizations: Mapping[str, str]
    moved: tuple[Move, ...]
    meters: Mapping[str, DesiredMeter]
    document: source.Document = field(
        default_factory=lambda: source.Document("", ""), repr=False, compare=False
    )

    @property
    def specs(self) -> Mapping[str, MeterSpec]:
        return {key: meter.spec for key, meter in self.meters.items()}

    def span(self, key: str, path: Sequence[str | int] = ()) -> SourceSpan:
        """Return the position of `path` below `meters.<key>`, or of its nearest existing parent."""
        return self.document.at(("meters", key, *path))

    def diagnose(self, key: str, path: Sequence[str | int], message: str) -> Diagnostic:
        return self.document.diagnose_span(self.span(key, path), message)


def read(path: Path) -> Manifest:
    """Read the manifest file at `path`.

    Raises DiagnosticError with every problem found, PolarIacError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolarIacError(f"there is no file {path}: name the manifest with -f") from None
    except IsADirectoryError:
        raise PolarIacError(f"{path} is a directory: name the manifest in it with -f") from None
    except OSError as error:
        raise PolarIacError(f"cannot read {path}: {error.strerror}") from None
    return load(data, str(path))


def load(text: bytes, file: str) -> Manifest:
    """Parse the manifest in `text`. Raises DiagnosticError with every problem found."""
    collecting = gc.isenabled()
    gc.disable()  # A tree has no cycles; the collector would only walk it repeatedly while it grows.
    try:
        shapes = Shapes(source.parse(text, file))
        manifest = _manifest(shapes)
        shapes.finish()
    finally:
        if collecting:
            gc.enable()
    return manifest


def _manifest(shapes: Shapes) -> Manifest:
    document = shapes.document
    root = document.root
    project, organizations = "", {}
    moved: tuple[Move, ...] = ()
    meters: dict[str, DesiredMeter] = {}
    if isinstance(root, source.Map):
        entries = root.entries
        shapes.keys(root, _TOP, ("version", "project", "meters"), root)
        if "version" in entries:
            _version(shapes, entries["version"])
        if "project" in entries:
            project = shapes.slug(entries["project"], "project")
        if "environments" in entries:
            organizations = _organizations(shapes, entries["environments"])
        if "moved" in entries:
            moved = _moved(shapes, entries["moved"], entries.get("meters"))
        if "meters" in entries:
            meters = _meters(shapes, entries["meters"], project)
    elif isinstance(root, source.Scalar) and root.value is None:
        shapes.fault(root, "the manifest is empty: begin it with `version: 1`")
    else:
        shapes.fault(root, f"a manifest is a map that begins with `version: 1`, got {got(root)}")
    return Manifest(document.file, project, organizations, moved, meters, document)


def _version(shapes: Shapes, node: source.Node) -> None:
    value = node.value if isinstance(node, source.Scalar) else None
    # `type() is`, because `True == 1` in Python: `version: true` must not pass.
    if type(value) is not int:
        shapes.fault(node, f"version must be the number 1, got {got(node)}")
    elif value != 1:
        shapes.fault(node, f"this polar-iac reads version 1 only, got {got(node)}")


def _organizations(shapes: Shapes, node: source.Node) -> dict[str, str]:
    organizations: dict[str, str] = {}
    environments = shapes.map(node, "environments", "sandbox: {organization_id: …}")
    if environments is None:
        return organizations
    shapes.keys(environments, ENVIRONMENTS, (), environments)
    for key in environments.keys:
        settings = shapes.map(environments.entries[key.text], "an environment", "{organization_id: …}")
        if settings is None:
            continue
        place = environments.place(key.text)
        shapes.keys(settings, ("organization_id",), ("organization_id",), place)
        if "organization_id" in settings.entries:
            value = settings.entries["organization_id"]
            text = shapes.text(value, "organization_id")
            if text is not None and not _UUID4.fullmatch(text):
                shapes.fault(value, f"organization_id must be a UUID of version 4, got {got(value)}")
            organizations[key.text] = (text or "").lower()
    return organizations


def _meters(shapes: Shapes, node: source.Node, project: str) -> dict[str, DesiredMeter]:
    found: dict[str, DesiredMeter] = {}
    if isinstance(node, source.Scalar) and node.value is None:
        shapes.fault(node, "meters is empty: write `meters: {}` if there are none")
        return found
    meters = shapes.map(node, "meters", "api-calls: {name: …, filter: …, aggregation: …}")
    if meters is None:
        return found
    # Also read the entries of duplicate keys, so that their problems are reported in the same run.
    for key, entry in [*((key, meters.entries[key.text]) for key in meters.keys), *meters.repeated]:
        shapes.slug(key, "a meter's key")
        value = shapes.map(entry, "a meter", "{name: …, filter: …, aggregation: …}")
        if value is not None:
            spec, ignored = MeterRules(shapes, key, project).read(value)
            span = shapes.document.span_of(key)
            found[key.text] = DesiredMeter(key.text, spec, ignored, span)
    return found


def block(key: str, spec: MeterSpec) -> str:
    """Return the YAML lines that declare a meter, indented to fit under `meters:`."""
    from ruamel.yaml import YAML

    declared: dict[str, Any] = {"archived": True} if spec.archived else {}
    declared |= {"name": spec.name}
    declared |= {name: v for name in UNIT_FIELDS if (v := getattr(spec, name)) not in (None, "scalar")}
    declared |= {"filter": spec.filter.wire(), "aggregation": spec.aggregation.wire()}
    declared |= {"metadata": dict(spec.metadata)} if spec.metadata else {}

    def quoted(representer: Any, text: str) -> Any:
        """Quote everything except plain words, because YAML parsers disagree on the rest."""
        plain = _PLAIN.fullmatch(text) and resolve(text) == text
        # Single quotes have no escapes, and fold any character that YAML treats as a line break.
        style = None if plain else "'" if text.isprintable() else '"'
        return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    yaml = YAML(typ="safe", pure=True)
    # Set before the first access to `representer`, which copies this setting.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.add_representer(str, quoted)
    yaml.default_flow_style = None
    yaml.width = 100
    text = StringIO()
    yaml.dump({key: declared}, text)
    return indent(text.getvalue(), "  ")


# --- Moves ---


def _moved(shapes: Shapes, node: source.Node, meters: source.Node | None) -> tuple[Move, ...]:
    moves: list[tuple[str, str, source.Map]] = []
    for item in shapes.list(node, "moved", "[{from: old-key, to: new-key}]"):
        entry = shapes.map(item, "an entry of moved", "{from: old-key, to: new-key}")
        if entry is None:
            continue
        shapes.keys(entry, ("from", "to"), ("from", "to"), entry)
        ends = [shapes.slug(entry.entries[end], end) for end in ("from", "to") if end in entry.entries]
        if len(ends) == 2 and all(ends):
            moves.append((ends[0], ends[1], entry))
    _check_moves(shapes, moves, meters.entries if isinstance(meters, source.Map) else {})
    return tuple(Move(old, new, shapes.document.span_of(entry)) for old, new, entry in moves)


def _check_moves(
    shapes: Shapes, moves: Sequence[tuple[str, str, source.Map]], declared: Mapping[str, Any]
) -> None:
    """Report moves that contradict one another or the meters.

    A move whose target is gone is only outdated.
    """
    target: dict[str, str] = {}
    by_old: dict[str, source.Map] = {}
    by_new: dict[str, source.Map] = {}
    for old, new, entry in moves:
        old_node, new_node = entry.entries["from"], entry.entries["to"]
        if old == new:
            shapes.fault(new_node, f"`{old}` is moved to itself: remove this entry")
            continue
        # Example: `moved: [{from: a, to: b}]` while `a` is still under `meters`: `a` would be both renamed
        # and kept.
        if old in declared:
            shapes.fault(
                old_node, f"`{old}` is still declared under meters: rename it there, or remove this entry"
            )
        if old in by_old:
            line = shapes.document.span_of(by_old[old]).line
            shapes.fault(old_node, f"`{old}` is moved twice: the first time on line {line}")
            continue
        if new in by_new:
            line = shapes.document.span_of(by_new[new]).line
            shapes.fault(new_node, f"two keys are moved to `{new}`: the other one on line {line}")
        by_new.setdefault(new, entry)
        by_old[old] = entry
        target[old] = new
    # Follow each chain once. Example: `a → b`, `b → a` is a cycle; `a → b`, `b → c` is a valid chain.
    seen: set[str] = set()
    for start in target:
        path = [start]
        while path[-1] in target and path[-1] not in seen:
            seen.add(path[-1])
            path.append(target[path[-1]])
        if path[-1] in path[:-1]:
            circle = path[path.index(path[-1]) :]
            shapes.fault(by_old[circle[0]], f"these moves go in a circle: {clip(' → '.join(circle), 200)}")


# --- Polar's problems with a manifest ---

_BRANCHES = {"Filter": FILTER_KEYS, "FilterClause": CLAUSE_KEYS}


def problems_of(detail: Iterable[Mapping[str, Any]]) -> dict[tuple[str | int, ...], str]:
    """Convert Polar's 422 `detail` to messages by path below the meter, for `Manifest.diagnose`.

    Polar tries each clause both as a clause and as a filter, and each value as every allowed type. Entries
    from a branch that was not meant are dropped, and the messages for one path are joined.
    """
    entries = [(tuple(entry.get("loc", ())), entry) for entry in detail]
    missing = {loc for loc, entry in entries if entry.get("type") == "missing"}
    tried: dict[tuple[Any, ...], set[str]] = {}
    for loc, _ in entries:
        for i in range(1, len(loc)):
            if loc[i] in _BRANCHES and isinstance(loc[i - 1], int):
                tried.setdefault(loc[:i], set()).add(loc[i])
    unmeant = set()
    for item, branches in tried.items():
        # Example: a clause with a bad operator also fails as a filter, where `conjunction` and `clauses` are
        # both missing. A branch that is missing every one of its fields was not meant.
        empty = [b for b in branches if all((*item, b, name) in missing for name in _BRANCHES[b])]
        if len(empty) == 1 and len(branches) > 1:
            unmeant.add((*item, empty[0]))
    messages: dict[tuple[str | int, ...], list[str]] = {}
    for loc, entry in entries:
        if not any(loc[:i] in unmeant for i in range(2, len(loc))):
            found = messages.setdefault(_plain(loc), [])
            message = str(entry.get("msg", "refused"))
            if message not in found:
                found.append(message)
    return {path: "; ".join(found) for path, found in messages.items()}


def _plain(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return `loc` without "body" and without the parts that name a union member instead of a field."""
    parts = loc[1:] if loc[:1] == ("body",) else loc
    path: list[str | int] = []
    for i, part in enumerate(parts):
        before = parts[i - 1] if i else None
        branch = part in _BRANCHES and isinstance(before, int)
        if branch or (i == 1 and before == "aggregation" and part in FUNCS):
            continue
        path.append(part)
        if (path[0] == "filter" and part == "value") or (path[0] == "metadata" and len(path) == 2):
            break  # The rest names the types that were tried.
    return tuple(path)
