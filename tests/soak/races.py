"""Two applies of one manifest at once, with nothing shared but Polar."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests import crashes
from tests.soak import Soak
from tests.soak.crashes import LAG, scene, warmed


def trial(seed: int, directory: Path) -> tuple[int, int]:
    one, two = crashes.raced(scene(LAG), warmed(), directory, random.Random(seed))
    return one, two


def figures(results: Sequence[tuple[int, int]]) -> Sequence[str]:
    counts = Counter(tuple(sorted(codes)) for codes in results)
    return [f"{count} races ended with {one} and {two}" for (one, two), count in sorted(counts.items())]


SOAK = Soak("two applies at once, no lockfile shared", 100, trial, figures)
