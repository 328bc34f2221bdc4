"""Waiting: for the rate limit, for Polar to show what was written, and for a run to stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from polar_iac.errors import PolarIacError


class StoppedError(PolarIacError):
    """The run was asked to stop while it waited. Nothing was sent since."""


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
        while self.reason is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self._SLICE))
        return self.reason is not None


class Clock(Protocol):
    """Monotonic clock in seconds, and a way to sleep."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None:
        """Sleep. Raises StoppedError when the run must end, even for 0 seconds."""


class SystemClock:
    def __init__(self, stop: Stop | None = None) -> None:
        self._stop = stop or Stop()

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError(self._stop.reason or "stopped")


def look_repeatedly(look: Callable[[], bool], patience: float, clock: Clock) -> None:
    """Call `look` at least once, and again until it returns True or a call began after `patience` seconds.

    Polar may read from a replica that lags (read), so a recent write may not show at once. The time that a
    call began counts, because a slow call shows the state from before.
    """
    end, pause = clock.now() + patience, 0.05
    while True:
        began = clock.now()
        if look() or began >= end:
            return
        clock.sleep(max(0.0, min(pause, end - clock.now())))
        pause = min(pause * 2, 2.0)


class RateGate:
    """Gate that holds back all workers together when Polar answers 429.

    Polar's window is fixed and starts with the first request. `Retry-After` is always the whole window, which
    is an upper bound (observed). So one worker tries again when the window seen by this process must have
    ended; the others wait for its success, or for the upper bound. A request while limited costs nothing
    (observed). `on_wait` receives the seconds of each wait.
    """

    _MARGIN = 0.02
    """Fraction of a window to add for network delay: Polar's window begins slightly after ours."""
    _NEXT_TRY = 0.1
    """Fraction of a window between two tries."""

    def __init__(self, clock: Clock, on_wait: Callable[[float], None]) -> None:
        self._clock, self._on_wait = clock, on_wait
        self._lock = threading.Lock()
        self._sent: deque[float] = deque(maxlen=1000)
        self._epoch = 0
        self._closed_until: float | None = None
        self._try_at = 0.0

    def enter(self) -> int:
        """Wait until a request may be sent. Return a ticket for `passed` or `limited`."""
        while True:
            with self._lock:
                now = self._clock.now()
                if self._closed_until is not None and now >= self._closed_until:
                    self._open(now)
                if self._closed_until is None:
                    self._sent.append(now)
                    return self._epoch
                if now >= self._try_at:
                    self._try_at = self._closed_until
                    return self._epoch
                # Wake up regularly: a success may open the gate early.
                pause = min(self._try_at - now, 1.0)
            self._clock.sleep(pause)

    def passed(self, ticket: int) -> None:
        """Report that a request was not limited.

        Answers to requests from before the gate closed are ignored.
        """
        with self._lock:
            if self._closed_until is not None and ticket == self._epoch:
                self._open(self._clock.now())

    def limited(self, ticket: int, window: float) -> None:
        """Report that a request was answered 429 with a wait of `window` seconds."""
        with self._lock:
            if ticket != self._epoch:
                return
            now = self._clock.now()
            if self._closed_until is not None:
                self._try_at = min(now + window * self._NEXT_TRY, self._closed_until)
                return
            start = self._sent[0]
            for sent in self._sent:
                if sent >= start + window:
                    start = sent
            self._epoch += 1
            self._closed_until = now + window
            self._try_at = min(start + window * (1 + self._MARGIN), self._closed_until)
            wait = self._try_at - now
        self._on_wait(max(wait, 0.0))

    def _open(self, now: float) -> None:
        self._closed_until = None
        self._sent.clear()
        self._sent.append(now)
