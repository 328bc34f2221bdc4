"""Random histories of manifests, dashboards, lockfiles, plans, applies and faults, against an oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.differential import histories
from tests.differential.histories import STEPS, Outcome
from tests.soak import Soak
from tests.soak.crashes import warmed

HISTORIES = 500
"""With 40 steps each: 20,000 steps."""


def trial(seed: int, directory: Path) -> Outcome:
    return histories.trial(seed, directory, warmed())


def figures(outcomes: Sequence[Outcome]) -> list[str]:
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    flagged = {name: count for name, count in sorted(counts.items()) if name.startswith("flag ")}
    flag_counts = ", ".join(f"{name.removeprefix('flag ')} {count}" for name, count in flagged.items())
    return [
        f"{counts['steps']:,} steps of {len(outcomes)} histories: {counts['commands']:,} commands",
        f"{counts['applies']:,} applies, {counts['plans']:,} plans, of which {counts['decided']:,} could be "
        "held against the table",
        f"{counts['faults']:,} faults, {counts['kills']:,} kills, {counts['recoveries']:,} recoveries, "
        f"{counts['late']:,} late creates, of which {counts['settled late']:,} had to be settled",
        f"{sum(flagged.values())} flags" + (f": {flag_counts}" if flag_counts else ""),
    ]


SOAK = Soak(f"random histories of {STEPS} steps against an oracle", HISTORIES, trial, figures)
