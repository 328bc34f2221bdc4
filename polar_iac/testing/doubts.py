"""Doubts about tests: properties that are probably misspelled, or declared differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.manifest.model import Manifest
from polar_iac.meter.declared import Misfit, misfits
from polar_iac.meter.meaning.events import ABSENT, OWN_FIELDS, bare, lookup
from polar_iac.meter.spec import MeterSpec
from polar_iac.testing.model import Json, MeterTest
from polar_iac.yaml import tree
from polar_iac.yaml.scalars import nearest

Place = tuple[str | int, ...]
_LIKENESS = 0.8
"""`input_tokens` and `output_tokens` are just as alike as this: see `doubtful_properties`."""


def properties(spec: MeterSpec) -> Mapping[str, Place]:
    """Return the metadata properties that a meter reads, each with its first place below the meter."""
    found: dict[str, Place] = {}
    for place, clause in clauses(spec.wire("filter"), ("filter",)):
        found.setdefault(bare(clause["property"]), (*place, "property"))
    aggregation = spec.wire("aggregation")
    if "property" in aggregation:
        found.setdefault(bare(aggregation["property"]), ("aggregation", "property"))
    return {name: place for name, place in found.items() if name and name not in OWN_FIELDS}


def clauses(part: Json, place: Place) -> Iterator[tuple[Place, Json]]:
    """Yield the clauses of a filter with their places, in the order of the filter."""
    if "clauses" not in part:
        yield place, part
        return
    for number, inner in enumerate(part["clauses"]):
        yield from clauses(inner, (*place, "clauses", number))


def doubtful_properties(
    document: tree.Document,
    given: tree.Node,
    test: MeterTest,
    manifest: Manifest,
    known: Mapping[str, Place],
) -> Iterator[Diagnostic]:
    """Yield a warning for each property of the meter that no event has, while they have a similar one.

    `known` are the properties of the meter. A similar one that it reads as well is meant as it is.
    """
    absent = [name for name in known if not _is_there(name, test)]
    if not absent:
        return
    unread = {key for event in test.given for key in _paths(event.data["metadata"])} - known.keys()
    for name in absent:
        if similar := nearest(name, tuple(sorted(unread)), _LIKENESS):
            read_at = manifest.span(test.meter, known[name])
            message = (
                f"no event of this test has `{name}`, which {test.meter} reads"
                f" ({read_at.file}:{read_at.line}): is `{similar}` meant for it?"
            )
            yield document.diagnose_span(_span(document, given, similar), message)


def undeclared_properties(
    document: tree.Document, given: tree.Node, test: MeterTest, manifest: Manifest
) -> Iterator[Diagnostic]:
    """Yield a warning for each property that `events` of the manifest declares differently.

    A property of one event name is reported once, however many events have it.
    """
    if not manifest.events:
        return
    seen = set[tuple[str, Misfit]]()
    for number, event in enumerate(test.given):
        name, metadata = event.data["name"], event.data["metadata"]
        if event.data.get("source", "user") != "user":
            continue
        for misfit in misfits(manifest.events, name, metadata):
            # An event of a test has the fewest properties: what it leaves out is left out on purpose.
            if not misfit.is_missing and (name, misfit) not in seen:
                seen.add((name, misfit))
                item = given.children[number] if isinstance(given, tree.List) else given
                place = place_of(item, ("metadata", misfit.property)) or item
                yield document.diagnose(place, _misfit_text(name, misfit, manifest))


def _misfit_text(name: str, misfit: Misfit, manifest: Manifest) -> str:
    known = misfit.declared
    if known is None:
        guess = nearest(misfit.property, tuple(manifest.events[name]))
        hint = f": did you mean `{guess}`?" if guess else ""
        return f"{manifest.file} declares `{name}` without `{misfit.property}`{hint}"
    declared = f"declares `{misfit.property}` of `{name}` as {known.type}"
    return f"{manifest.file} {declared}, and this value has another type"


def _is_there(name: str, test: MeterTest) -> bool:
    read = lookup(name, ABSENT)
    return any(read(event.event) is not ABSENT for event in test.given)


def _paths(metadata: Json) -> Iterator[str]:
    for key, value in metadata.items():
        yield key
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in value)


def _span(document: tree.Document, given: tree.Node, path: str) -> SourceSpan:
    """Return where an event has a key, or where the events are."""
    steps = ("metadata", *path.split("."))
    for item in given.children if isinstance(given, tree.List) else ():
        if place := place_of(item, steps):
            return document.span_of(place)
    return document.span_of(given)


def place_of(node: tree.Node, path: Sequence[str]) -> tree.Node | None:
    """Return where an entry is written, below maps; None if it is not there."""
    place = None
    for step in path:
        if not isinstance(node, tree.Map) or step not in node.entries:
            return None
        place, node = node.place(step), node.entries[step]
    return place
