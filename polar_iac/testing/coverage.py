"""Coverage: the clauses and aggregations that tests hold, because they notice every mutant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.meaning.evaluation import compile_meter
from polar_iac.testing.generate import without_a_test
from polar_iac.testing.model import Json, MeterTest
from polar_iac.testing.mutants import Mutant, Part, parts
from polar_iac.testing.run import compiled, passes
from polar_iac.testing.telling import compare


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
    filter_, aggregation, meter = spec.wire("filter"), spec.wire("aggregation"), compiled(spec)
    # A test that fails already holds nothing: it fails with any mutant.
    passing = [test for test in tests if passes(test, meter)]
    for part in parts(spec):
        left = [mutant for mutant in part.mutants if not _is_noticed(mutant, passing)]
        compared = [(mutant, compare(filter_, aggregation, mutant)) for mutant in left]
        unnoticed = [Unnoticed(m, c.event, c.counted) for m, c in compared if c.alike is False]
        undecided = [mutant for mutant, comparison in compared if comparison.alike is None]
        if not all(found.event for found in unnoticed):
            # Two sums of the same events: they differ if some events are known that show it.
            silent = without_a_test(spec, part)
            undecided += [found.mutant for found in unnoticed if not found.event and found.mutant in silent]
            unnoticed = [found for found in unnoticed if found.mutant not in undecided]
        yield PartCoverage(key, part, manifest.span(key, part.place), tuple(unnoticed), tuple(undecided))


def _is_noticed(mutant: Mutant, tests: Sequence[MeterTest]) -> bool:
    changed = compile_meter(mutant.filter, mutant.aggregation)
    return not all(passes(test, changed) for test in tests)
