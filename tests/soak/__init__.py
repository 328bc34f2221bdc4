"""Trials by seed, run many times over: the suite runs a sample of them, `python -m tests.soak` all.

A soak is a module of this package with a `SOAK`; nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Soak(Generic[T]):
    """`trial(seed, directory)` runs one trial in an empty directory, raises when something is wrong, and
    returns what `figures` makes lines of; the same seed runs the same trial. `count` is how many trials a
    full run has. Results travel between processes, so they can be pickled.
    """

    what: str
    count: int
    trial: Callable[[int, Path], T]
    figures: Callable[[Sequence[T]], Sequence[str]]


Attempt = tuple[int, Any, str | None]
"""A seed, its trial's result, and its error's text; an error may have a `result` to count by."""


def soaks() -> dict[str, Soak[Any]]:
    names = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    modules = ((name, importlib.import_module(f"{__name__}.{name}")) for name in names)
    return {name: module.SOAK for name, module in modules if hasattr(module, "SOAK")}


def attempt(name: str, seed: int) -> Attempt:
    """One trial, in a process of the pool."""
    soak: Soak[Any] = importlib.import_module(f"{__name__}.{name}").SOAK
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        try:
            return seed, soak.trial(seed, Path(directory)), None
        except Exception as error:  # noqa: BLE001  whatever it is, it fails this seed alone
            return seed, getattr(error, "result", None), traceback.format_exc()
