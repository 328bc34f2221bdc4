"""Letting time pass: while Polar limits the rate, until it shows what was written, until a run is to end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from polar_iac.errors import PolarIacError


class StoppedError(PolarIacError):
    """The run was asked to end while it waited; nothing was sent since."""


class Stop:
    """The wish to end a run early, from a signal or a deadline. The first reason counts."""

    _SLICE = 0.05
    """Seconds after which a wait looks for the wish. A signal may come in the midst of anything, also of a
    wait in the same thread, so no lock may be taken to tell of it, and none is there to be woken by."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def request(self, reason: str) -> None:
        self.reason = self.reason or reason

    def wait(self, seconds: float) -> bool:
        """Let so many seconds pass; whether the wish came meanwhile, or was there."""
        end = time.monotonic() + seconds
        while self.reason is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self._SLICE))
        return self.reason is not None


class Clock(Protocol):
    """Seconds that only go forward, and a way to let some pass."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None:
        """Raises StoppedError when the run is to end, even where none are to pass."""


class SystemClock:
    def __init__(self, stop: Stop | None = None) -> None:
        self._stop = stop or Stop()

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError(self._stop.reason or "stopped")


def look_repeatedly(look: Callable[[], bool], patience: float, clock: Clock) -> None:
    """Look at least once, and again until `look` is content or one began after `patience` seconds.

    Polar may read from a replica that lags (read): what was just written may not show at once. When a look
    began is what counts: one that was slow tells of the time before.
    """
    end, pause = clock.now() + patience, 0.05
    while True:
        began = clock.now()
        if look() or began >= end:
            return
        clock.sleep(max(0.0, min(pause, end - clock.now())))
        pause = min(pause * 2, 2.0)


class RateGate:
    """Holds all workers back together when Polar says 429.

    Polar's window is fixed, from its first request, and `Retry-After` is always the whole window: an upper
    bound (observed). So one worker tries when the window that this process has seen must have ended; the
    others wait for its success, or for the upper bound. A try while limited costs nothing (observed).
    `on_wait` is told the seconds of each wait.
    """

    _MARGIN = 0.02
    """Of a window, for the way to Polar: its window begins a little after ours."""
    _NEXT_TRY = 0.1
    """Of a window, between two tries."""

    def __init__(self, clock: Clock, on_wait: Callable[[float], None]) -> None:
        self._clock, self._on_wait = clock, on_wait
        self._lock = threading.Lock()
        self._sent: deque[float] = deque(maxlen=1000)
        self._epoch = 0
        self._closed_until: float | None = None
        self._try_at = 0.0

    def enter(self) -> int:
        """Return when a request may be sent, with a ticket for `passed` or `limited`."""
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
                # Woken now and then: a success may open the gate before its time.
                pause = min(self._try_at - now, 1.0)
            self._clock.sleep(pause)

    def passed(self, ticket: int) -> None:
        """A request was not limited. Answers to requests from before the gate closed say nothing."""
        with self._lock:
            if self._closed_until is not None and ticket == self._epoch:
                self._open(self._clock.now())

    def limited(self, ticket: int, window: float) -> None:
        """A request was answered 429, and told to wait for `window` seconds."""
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
