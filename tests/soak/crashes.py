"""Fixtures that the crash trials of one pool process share: a warmed command, and Polars that lag."""

from __future__ import annotations

import functools
import multiprocessing.util
from contextlib import ExitStack

from polar_iac.local import LocalPolar
from polar_iac.polar.client import PolarClient
from tests.support import crash_trials as crashes
from tests.support.crash_trials import Scene
from tests.support.fault_trials import faulty_polar
from tests.support.fork_server import ForkServer, fork_server
from tests.support.served_polar import served_polar

LAG = 0.02
"""Seconds by which reads lag; the applies look for what they miss many times as long."""


@functools.cache
def _open() -> ExitStack:
    stack = ExitStack()
    # A process of a pool runs no atexit functions, and waits for its threads.
    multiprocessing.util.Finalize(None, stack.close, exitpriority=1)
    return stack


@functools.cache
def warmed() -> ForkServer:
    return _open().enter_context(fork_server())


@functools.cache
def scene(lag: float) -> Scene:
    """A Polar whose reads lag by `lag` seconds."""
    served = _open().enter_context(served_polar(LocalPolar()))
    truth = _open().enter_context(PolarClient(served.url, "polar_oat_truth"))
    if not lag:
        return Scene(served.polar, served.url, truth)
    faulty = _open().enter_context(faulty_polar(served.polar, lag=lag))
    return Scene(served.polar, faulty.url, truth, lag)


@functools.cache
def slow_scene() -> Scene:
    return _open().enter_context(crashes.slow_scene())
