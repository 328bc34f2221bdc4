"""Coverage: the clauses and aggregations that tests hold, because they notice every mutant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.meaning.evaluation import compile_meter
from polar_iac.testing.model import Json, MeterTest
from polar_iac.testing.mutants import Mutant, Part, parts
from polar_iac.testing.run import compiled, passes
from polar_iac.testing.telling import alike, counted_by, difference


@dataclass(frozen=True)
class Unnoticed:
    """A mutant that no test notices, with an event that would show it: null if none was found."""

    mutant: Mutant
    event: Json | None = None
    counted: bool = False
    """True if the meter counts the event, and the mutant does not."""


@dataclass(frozen=True)
class PartCoverage:
    """The mutants of one clause or aggregation that no test notices."""

    meter: str
    part: Part
    span: SourceSpan
    unnoticed: tuple[Unnoticed, ...]
    undecided: tuple[Mutant, ...]
    """Mutants of which nobody knows whether a test could notice them. They do not count."""

    @property
    def held(self) -> bool:
        return not self.unnoticed


@dataclass(frozen=True)
class Coverage:
    """The coverage of all clauses and aggregations of meters."""

    parts: tuple[PartCoverage, ...]

    @property
    def held(self) -> int:
        return sum(part.held for part in self.parts)

    @property
    def percent(self) -> float:
        return 100 * self.held / len(self.parts) if self.parts else 100.0


def cover(manifest: Manifest, keys: Iterable[str], tests: Sequence[MeterTest]) -> Coverage:
    """Find out which clauses and aggregations of meters tests hold. Archived meters bill nothing."""
    by_meter: dict[str, list[MeterTest]] = {}
    for test in tests:
        by_meter.setdefault(test.meter, []).append(test)
    meters: Mapping[str, DesiredMeter] = {key: manifest.meters[key] for key in dict.fromkeys(keys)}
    return Coverage(
        tuple(
            covered
            for key, meter in meters.items()
            if not meter.spec.archived
            for covered in _meter(manifest, key, by_meter.get(key, []))
        )
    )


def _meter(manifest: Manifest, key: str, tests: Sequence[MeterTest]) -> Iterator[PartCoverage]:
    spec = manifest.meters[key].spec
    meter = compiled(spec)
    # A test that fails already holds nothing: it fails with any mutant.
    passing = [test for test in tests if passes(test, meter)]
    for part in parts(spec):
        unnoticed, undecided = list[Unnoticed](), list[Mutant]()
        for mutant in part.mutants:
            changed = compile_meter(mutant.filter, mutant.aggregation)
            if not all(passes(test, changed) for test in passing):
                continue
            is_alike = alike(spec.wire("filter"), spec.wire("aggregation"), mutant)
            if is_alike is None:
                undecided.append(mutant)
            elif not is_alike:
                unnoticed.append(_unnoticed(spec.wire("filter"), spec.wire("aggregation"), mutant))
        span = manifest.span(key, part.place)
        yield PartCoverage(key, part, span, tuple(unnoticed), tuple(undecided))


def _unnoticed(filter_: Json, aggregation: Json, mutant: Mutant) -> Unnoticed:
    one, other = counted_by(filter_, aggregation), counted_by(mutant.filter, mutant.aggregation)
    if event := difference(one, other).event:
        return Unnoticed(mutant, event, counted=True)
    return Unnoticed(mutant, difference(other, one).event)
