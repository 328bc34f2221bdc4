"""Kill -9 at every boundary, then `apply` until it succeeds: with all lost or not, under lag or not."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.soak import Soak
from tests.soak.crashes import LAG, scene, warmed
from tests.support import crash_trials as crashes

BOUNDARIES = 80
"""More than an apply of the scene meets; beyond its last one it is not killed."""


def trial(seed: int, directory: Path) -> tuple[bool, bool, bool]:
    """Return whether the run was killed, whether its files were lost, and whether reads lagged."""
    lost, lagging = bool(seed // BOUNDARIES % 2), bool(seed // BOUNDARIES // 2 % 2)
    polar = scene(LAG if lagging else 0.0)
    code = crashes.killed_at(polar, warmed(), directory, seed % BOUNDARIES + 1, forget=lost)
    return code == -signal.SIGKILL, lost, lagging


def figures(results: Sequence[tuple[bool, bool, bool]]) -> Sequence[str]:
    killed = Counter((lost, lagging) for dead, lost, lagging in results if dead)
    return [
        f"{killed.total()} kills; {killed[True, False] + killed[True, True]} with lockfile and journal lost, "
        f"{killed[False, True] + killed[True, True]} under lag of {LAG} s"
    ]


SOAK = Soak("kill -9 at every boundary, then apply until it succeeds", 4 * BOUNDARIES, trial, figures)
