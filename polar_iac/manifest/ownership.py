"""Meters that change hands: reads `import` and `removed`, and reports entries that contradict the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import Import, Move, Removed
from polar_iac.manifest.node_reader import UUID4, NodeReader
from polar_iac.yaml import tree

_IMPORT = "{to: llm-tokens, id: {production: UUID}}"
_REMOVED = "{from: old-exports}"
_LET_GO = "`removed` lets go of its meter, so remove this entry"


def read_imports(
    reader: NodeReader,
    node: tree.Node,
    meters: tree.Node | None,
    gone: Mapping[str, str | None],
    environments: Sequence[str],
) -> tuple[Import, ...]:
    """Return the entries of `import`. Reports faults to the reader.

    `gone` holds keys that `moved` and `removed` name: what they were moved to, or None. `environments` are
    the names that an entry may hold an id for.
    """
    declared = _keys(meters)
    imports = []
    for item in reader.list(node, "import", f"[{_IMPORT}]"):
        entry = reader.map(item, "an entry of import", _IMPORT)
        if entry is None:
            continue
        reader.keys(entry, ("to", "id"), ("to", "id"), entry)
        key = reader.slug(entry.entries["to"], "to") if "to" in entry.entries else ""
        if key and key not in declared:
            advice = "declare it as it is at Polar"
            if key in gone:
                target = gone[key]
                advice = f"it was moved to `{target}`: write that here" if target else _LET_GO
            reader.fault(entry.entries["to"], f"`{key}` is not declared under meters: {advice}")
        if key and "id" in entry.entries:
            ids, spans = _ids(reader, entry.entries["id"], environments)
            imports.append((Import(key, ids, reader.document.span_of(entry), spans), entry))
    _check_imports(reader, imports)
    return tuple(entry for entry, _ in imports)


def _ids(
    reader: NodeReader, node: tree.Node, environments: Sequence[str]
) -> tuple[dict[str, str], dict[str, SourceSpan]]:
    """Return the ids of an entry and their positions, by environment."""
    ids: dict[str, str] = {}
    spans: dict[str, SourceSpan] = {}
    # A lone id is what others write: it would be taken for the id of every environment.
    if isinstance(node, tree.Scalar) and UUID4.fullmatch(node.text):
        example = f"{{production: {node.text}}}"
        reader.fault(node, f"each environment has its own id: write its name, `id: {example}`")
        return ids, spans
    by_environment = reader.map(node, "id", "{production: UUID}")
    if by_environment is None:
        return ids, spans
    reader.keys(by_environment, environments, (), by_environment)
    if not by_environment.keys:
        reader.fault(node, "id names no environment: write `{production: UUID}`, or remove this entry")
    for key in by_environment.keys:
        value = by_environment.entries[key.text]
        if text := reader.uuid(value, "id"):
            ids[key.text] = text
            spans[key.text] = reader.document.span_of(value)
    return ids, spans


def _check_imports(reader: NodeReader, imports: Sequence[tuple[Import, tree.Map]]) -> None:
    """Report keys that two entries import in one environment, and ids that two keys import."""
    by_key: dict[tuple[str, str], SourceSpan] = {}
    by_id: dict[tuple[str, str], tuple[str, SourceSpan]] = {}
    for entry, node in imports:
        for environment, meter_id in entry.ids.items():
            span = entry.id_spans[environment]
            id_node = node.entries["id"]
            value = id_node.entries[environment] if isinstance(id_node, tree.Map) else id_node
            first = by_key.setdefault((environment, entry.key), span)
            if first is not span:
                reader.fault(
                    value,
                    f"`{entry.key}` is imported twice in {environment}: the first time on line {first.line}",
                )
                continue
            other, place = by_id.setdefault((environment, meter_id), (entry.key, span))
            if other != entry.key:
                reader.fault(
                    value,
                    f"two keys import this meter in {environment}: the other one, `{other}`, "
                    f"on line {place.line}",
                )


def read_removed(
    reader: NodeReader, node: tree.Node, meters: tree.Node | None, moved: Sequence[Move]
) -> tuple[Removed, ...]:
    """Return the entries of `removed`. Reports faults to the reader."""
    declared = _keys(meters)
    moves = {key: move.span for move in moved for key in (move.source, move.target)}
    removed: dict[str, Removed] = {}
    for item in reader.list(node, "removed", f"[{_REMOVED}]"):
        entry = reader.map(item, "an entry of removed", _REMOVED)
        if entry is None:
            continue
        reader.keys(entry, ("from",), ("from",), entry)
        if "from" not in entry.entries or not (key := reader.slug(entry.entries["from"], "from")):
            continue
        place = entry.entries["from"]
        if key in declared:
            message = f"`{key}` is still declared under meters: remove it there, or remove this entry"
            reader.fault(place, message)
        if key in moves:
            message = f"`{key}` is also named by moved, on line {moves[key].line}: remove one of them"
            reader.fault(place, message)
        if key in removed:
            line = removed[key].span.line
            reader.fault(place, f"`{key}` is removed twice: the first time on line {line}")
        removed.setdefault(key, Removed(key, reader.document.span_of(entry)))
    return tuple(removed.values())


def _keys(meters: tree.Node | None) -> Mapping[str, tree.Node]:
    return meters.entries if isinstance(meters, tree.Map) else {}
