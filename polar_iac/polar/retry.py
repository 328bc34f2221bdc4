"""Retries and rate limits: when a request is sent again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import tenacity

from polar_iac.clock import Clock
from polar_iac.polar.errors import IncompleteError, TransientError
from polar_iac.polar.transport import Answer

Operation = Literal["GET", "PATCH", "POST", "list", "probe"]
"""Method of a request; `list` for a list of several pages, each of which is a GET of its own; `probe` for the
PATCH that asks if a meter is frozen."""


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, TransientError)


def _was_not_sent(error: BaseException) -> bool:
    return isinstance(error, TransientError) and error.fate == "not-sent"


def _is_incomplete(error: BaseException) -> bool:
    return isinstance(error, IncompleteError)


_RETRIED: Mapping[Operation, Callable[[BaseException], bool]] = {
    "GET": _is_transient,
    "PATCH": _is_transient,  # carries whole values, so sending it twice changes nothing more
    "POST": _was_not_sent,  # may otherwise have created a meter: Polar has no idempotency key
    "list": _is_incomplete,
    "probe": _was_not_sent,  # any answer that is not known must be seen by a person
}


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts, waits in seconds, and the errors after which each operation is repeated.

    Waits are random: at most `first_wait` before the first retry, then twice as long each time, up to
    `longest_wait`. Answers of 429 are not errors here: `RateGate` waits, however often they come.
    """

    attempts: int = 6
    first_wait: float = 0.4
    longest_wait: float = 10.0
    retried: Mapping[Operation, Callable[[BaseException], bool]] = field(default_factory=lambda: _RETRIED)

    def retrying(
        self, operation: Operation, clock: Clock, on_retry: Callable[[str], None]
    ) -> tenacity.Retrying:
        """Return a caller that repeats an operation. `on_retry` receives the reason before each wait."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(self.retried[operation]),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait),
            sleep=clock.sleep,
            before_sleep=lambda state: on_retry(str(state.outcome and state.outcome.exception())),
            reraise=True,
        )


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


_LEAST_WAIT = 0.1
"""Minimum wait in seconds after a 429 that asks for no wait."""


def retry_after_of(answer: Answer) -> float:
    """Return the seconds to wait, from either form of the header (number or date).

    Without a usable header the result is 60 seconds, Polar's own window. The result is never 0.
    """
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(max(float(text), _LEAST_WAIT), 3600.0)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 60.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 1.0), 3600.0)
