"""Time: clocks, requests to stop, and polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from polar_iac.errors import PolarIacError


class StoppedError(PolarIacError):
    """The run was asked to stop while it waited. Nothing was sent since."""


def utc_now() -> datetime:
    """Return the time of day by this machine's clock, in UTC."""
    return datetime.now(UTC)


class Stop:
    """Request to end a run early, from a signal or a deadline. The first reason counts."""

    _SLICE = 0.05
    """Seconds between checks for the request. A signal can interrupt anything, including a wait in the same
    thread, so setting the reason must not take a lock; a waiting thread therefore polls."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def request(self, reason: str) -> None:
        self.reason = self.reason or reason

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` seconds. Return True if a stop is requested."""
        end = time.monotonic() + seconds
        while self.reason is None and (remaining := end - time.monotonic()) > 0:
            time.sleep(min(remaining, self._SLICE))
        return self.reason is not None


class Clock(Protocol):
    """Monotonic clock in seconds, and a way to sleep."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None:
        """Sleep. Raises StoppedError when the run must end, even for 0 seconds."""


class SystemClock:
    """Clock of this machine, whose sleep ends early when `stop` is requested."""

    def __init__(self, stop: Stop | None = None) -> None:
        self._stop = stop or Stop()

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError(self._stop.reason or "stopped")


def poll_until(is_complete: Callable[[], bool], timeout: float, clock: Clock) -> None:
    """Call `is_complete` until it returns True, or until a call that began after `timeout` seconds.

    It is called at least once. Polar may read from a replica that lags (read), so a recent write may not show
    at once. The time that a call began counts, because a slow call shows the state from before.
    """
    end, pause = clock.now() + timeout, 0.05
    while True:
        began = clock.now()
        if is_complete() or began >= end:
            return
        clock.sleep(max(0.0, min(pause, end - clock.now())))
        pause = min(pause * 2, 2.0)
