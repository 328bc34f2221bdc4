"""Mutated manifests, lockfiles, journals and API answers, in a process that may hold 1 GiB."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

from tests.soak import Soak
from tests.support import fuzz_targets as fuzz

BATCH = 1000
MEMORY = 1 << 30


def trial(seed: int, _directory: Path) -> int:
    """A thousand inputs for one target; how many were fed."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, resource.RLIM_INFINITY))  # address space, not memory
    names = sorted(fuzz.TARGETS)
    start = seed // len(names) * BATCH
    fuzz.fuzz(names[seed % len(names)], range(start, start + BATCH))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert held < MEMORY, f"held {held >> 20} MiB"
    return BATCH


def figures(results: Sequence[int]) -> Sequence[str]:
    return [f"{sum(results):,} inputs, none with a traceback, over {fuzz.SECONDS} s, or over 1 GiB"]


SOAK = Soak("mutated manifests, lockfiles, journals and API answers", 120, trial, figures)
