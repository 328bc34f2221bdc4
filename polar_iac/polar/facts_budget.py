"""Budget of facts: how many requests they may send, and how long they may take."""

from __future__ import annotations

from collections import deque

from polar_iac.clock import Clock, StoppedError
from polar_iac.facts.model import Lack

REQUESTS = 60
"""Requests that the facts of one plan may send."""
SECONDS = 20.0
"""Seconds that the facts of one plan may take."""
DAYS = 30
"""Default number of days of usage that are read, today included."""
MAX_DAYS = 365
"""Most days that one request reads. Polar takes 366 between start and end (observed)."""
LIMITS = {"production": 500, "sandbox": 100}
"""Requests per minute that Polar accepts for an organization, all clients together (observed)."""
_SHARE = 5
"""Divisor of that limit for facts: a fifth. The rest is for the customer's own app, and for the plan."""
_MINUTE = 60.0


class LackError(Exception):
    """A fact cannot be read. `lack` and the text say why, as in a `Gap`."""

    def __init__(self, lack: Lack, text: str) -> None:
        super().__init__(text)
        self.lack: Lack = lack


class Budget:
    """Requests and seconds that are left. One thread at a time.

    `server` is the one of Polar's whose limit counts; None for the embedded Polar, which has no limit. The
    time begins with the first request. `spent` counts the requests.
    """

    def __init__(self, requests: int, seconds: float, clock: Clock, server: str | None) -> None:
        self._requests, self._seconds, self._clock = requests, seconds, clock
        self._per_minute = LIMITS[server] // _SHARE if server in LIMITS else None
        self._end: float | None = None
        self._sent: deque[float] = deque()
        self.spent = 0

    @property
    def is_late(self) -> bool:
        """Tell whether the time is up."""
        return self._end is not None and self._clock.now() >= self._end

    @property
    def left(self) -> int:
        """Number of requests that may be sent without a wait."""
        left = self._requests - self.spent
        recent = sum(sent > self._clock.now() - _MINUTE for sent in self._sent)
        return max(0, left if self._per_minute is None else min(left, self._per_minute - recent))

    def spend(self) -> float:
        """Count one request, and return how many seconds it may take. Raises LackError for one too many."""
        now = self._clock.now()
        if self._end is None:
            self._end = now + self._seconds
        if self.spent >= self._requests:
            used = "1 request" if self._requests == 1 else f"{self._requests} requests"
            verb = "is" if self._requests == 1 else "are"
            raise LackError("budget", f"the {used} of --facts-requests {verb} used up")
        self._wait_for_share(now, self._end)
        left = self._end - self._clock.now()
        if left <= 0:
            raise self.late()
        self._sent.append(self._clock.now())
        self.spent += 1
        return left

    def late(self) -> LackError:
        """Return the error for a request that has no time left."""
        return LackError("timeout", f"the {self._seconds:g} s of --facts-timeout are over")

    def _wait_for_share(self, now: float, end: float) -> None:
        """Wait until one more request fits the share per minute, if that is before the time is up."""
        while self._sent and self._sent[0] <= now - _MINUTE:
            self._sent.popleft()
        pause = 0.0
        if self._per_minute is not None and len(self._sent) >= self._per_minute:
            pause = self._sent[0] + _MINUTE - now
        if now + pause >= end and pause:
            raise LackError(
                "budget", f"a fifth of Polar's limit, {self._per_minute} requests a minute, is used up"
            )
        try:
            self._clock.sleep(pause)
        except StoppedError as error:
            raise LackError("timeout", f"the run ends: {error}") from error
