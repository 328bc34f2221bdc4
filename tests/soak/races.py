"""Two applies of one manifest at once, with nothing shared but Polar."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.soak import Soak
from tests.soak.crashes import LAG, scene, warmed
from tests.support import crash_trials as crashes
from tests.support.crash_trials import Raced


def trial(seed: int, directory: Path) -> Raced:
    return crashes.raced(scene(LAG), warmed(), directory, random.Random(seed))


def figures(results: Sequence[Raced]) -> Sequence[str]:
    counts = Counter(tuple(sorted(result.codes)) for result in results)
    ends = [f"{count} races ended with {one} and {two}" for (one, two), count in sorted(counts.items())]
    with_duplicates = sum(result.archived > 0 for result in results)
    return [
        *ends,
        f"{with_duplicates} of them made duplicates, {sum(r.archived for r in results)} in all,"
        " and archived them",
    ]


SOAK = Soak("two applies at once, no lockfile shared", 100, trial, figures)
