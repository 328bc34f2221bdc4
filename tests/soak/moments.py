"""Kill -9, SIGINT and SIGTERM at random times, of the real command, then `apply` until it succeeds."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.soak import Soak
from tests.soak.crashes import slow_scene, warmed
from tests.support import crash_trials as crashes


def trial(seed: int, directory: Path) -> int:
    """The exit code of the run that was disturbed."""
    rng = random.Random(seed)
    polar = slow_scene()
    number = rng.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    if number == signal.SIGKILL:
        lost = rng.random() < 0.5
        return crashes.killed_after(polar, warmed(), directory, rng.uniform(0.2, 0.7), forget=lost)
    return crashes.stopped_after(polar, warmed(), directory, rng.uniform(0, 0.25), number)


def figures(results: Sequence[int]) -> Sequence[str]:
    endings = {0: "had ended", -9: "killed", 130: "interrupted", 143: "terminated"}
    return [", ".join(f"{count} {endings[code]}" for code, count in sorted(Counter(results).items()))]


SOAK = Soak("kill -9, Ctrl-C and SIGTERM at random times", 150, trial, figures)
