"""Estimates from samples of heavy-tailed events, compared with the whole: 300 samples of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from tests.soak import Soak
from tests.support.sampling_trials import KINDS, Outcome, trial

BATCH = 100
"""Samples of a trial, all of one kind."""
MISSED = 3
"""Most of them that may be outside of the stated error. It is made for 5, whatever the events are."""


def run(seed: int, _directory: Path) -> Sequence[Outcome]:
    """A hundred samples of one kind, and what came of each."""
    kind = list(KINDS)[seed % len(KINDS)]
    outcomes = [trial(kind, seed // len(KINDS) * BATCH + number) for number in range(BATCH)]
    missed = sum(not outcome.covered for outcome in outcomes)
    assert missed <= MISSED, f"{kind}: {missed} of {BATCH} are outside of what is stated"
    return outcomes


def figures(results: Sequence[Sequence[Outcome]]) -> Sequence[str]:
    return list(_figures([outcome for outcomes in results for outcome in outcomes]))


def _figures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    stated = [o for o in outcomes if o.stated]
    held = sum(o.covered for o in stated)
    yield f"{held:,} of {len(stated):,} estimates held, of {len(outcomes):,} samples"
    for kind in KINDS:
        of_kind = [o for o in outcomes if o.kind == kind]
        for func, windows in sorted({(o.func, o.windows) for o in of_kind}, reverse=True):
            these = [o for o in of_kind if (o.func, o.windows) == (func, windows)]
            known = [o for o in these if o.stated]
            held = sum(o.covered for o in known)
            error = f"; median error {median(o.error for o in known):.0%}" if known else ""
            yield f"{kind}, {func}, {windows} windows: {held}/{len(known)} held of {len(these)}{error}"


SOAK = Soak("estimates from samples of heavy-tailed events", 3 * len(KINDS), run, figures)
