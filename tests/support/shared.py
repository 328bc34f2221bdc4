"""Values that take seconds to build: built once in a run, for all workers of xdist."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

T = TypeVar("T")
DIRECTORY = "TESTS_SHARED_DIRECTORY"
"""Variable with the directory that the workers of a run share; `conftest` makes it."""
ALIVE = "alive"
"""A pipe in that directory, which `conftest` holds open as long as the run lasts."""


def shared(name: str, build: Callable[[], T]) -> T:
    """Return what `build` makes. The first worker that asks builds it, the others read it."""
    path = Path(os.environ[DIRECTORY]) / f"{name}.pickle"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            path.write_bytes(pickle.dumps(build()))
    value: T = pickle.loads(path.read_bytes())  # noqa: S301  our own file
    return value
