"""Create tracking: each create of a run is sent, lost, looked for, found, sent again, or unconfirmed.

    send ──201──────────────────────────────► created
      │──refused, or never sent─────────────► failed
      └──no answer──► lost ──found by marker─► found
                       │ still nothing when it can no longer land
                       ├──────────────► send again (once)
                       └──────────────► unconfirmed: the intent stays in the journal

One lookup covers all lost creates, and work on other keys continues during it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from polar_iac.apply.bearers import active_by_marker
from polar_iac.clock import Clock, StoppedError
from polar_iac.meter.live import LiveMeter
from polar_iac.polar.errors import ApiError

MAX_SENDS = 2
"""Maximum times that a run sends one create. If nothing is found after that, a person or a later run must
decide."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Shortest and longest time between two lookups, in seconds: short at first, for a replica that lags, then
longer to spare the rate limit."""


@dataclass
class Create:
    """A create in progress. `trouble` describes what happened to its last POST."""

    key: str
    marker: str
    sends: int = 0
    earlier: int = 0
    """Number of unanswered creates from earlier runs."""
    trouble: str = ""
    lookup_trouble: str = ""
    """Reason that the last lookup gave no result."""
    deadline: float = 0.0
    """Time, by the clock, after which it can no longer take effect. A lookup that begins later and finds
    nothing is final."""

    @property
    def may_be_sent(self) -> bool:
        return self.sends < MAX_SENDS and not self.lookup_trouble

    @property
    def unconfirmed(self) -> str:
        """Message for a create with neither an answer nor a meter."""
        times = self.sends + self.earlier
        sent = "once" if times == 1 else f"{times} times"
        cause = f" ({self.trouble})" if self.trouble else ""
        looked = (
            f"looking for the meter failed: {self.lookup_trouble}"
            if self.lookup_trouble
            else "the meter cannot be found"
        )
        return (
            f"create sent {sent} without a usable answer{cause}, and {looked}. Run apply again: it looks for "
            "the meter before creating it"
        )


@dataclass(frozen=True)
class Look:
    """Result of one lookup of the lost creates. `began` is by the clock."""

    began: float
    bearers: Mapping[str, Sequence[LiveMeter]]
    """Active meters by marker, oldest first."""
    trouble: str = ""


@dataclass
class LostCreates:
    """Creates that may have taken effect, and the schedule of their lookups.

    `find` asks Polar for the meters that have one of the given markers. `recorded` maps meter ids to their
    keys.
    """

    find: Callable[[Sequence[str]], Sequence[LiveMeter]]
    recorded: Mapping[str, str]
    clock: Clock
    creates: dict[str, Create] = field(default_factory=dict)
    next_look: float = 0.0
    _pause: float = _FIRST_PAUSE

    def __bool__(self) -> bool:
        return bool(self.creates)

    def add(self, create: Create, seconds: float) -> None:
        """Add a create to look for, during at least `seconds` seconds."""
        now = self.clock.now()
        create.deadline = now + seconds
        self.creates[create.key] = create
        self._pause, self.next_look = _FIRST_PAUSE, now

    @property
    def markers(self) -> Sequence[str]:
        return [create.marker for create in self.creates.values()]

    def look(self, markers: Sequence[str]) -> Look:
        """Look up all lost creates with one request. Runs in a pool thread."""
        began = self.clock.now()
        try:
            found = self.find(markers)
        except (ApiError, StoppedError) as error:
            return Look(began, {}, str(error))
        return Look(began, active_by_marker(found, self.recorded))

    def judge(self, look: Look) -> Iterator[tuple[Create, LiveMeter | None]]:
        """Yield the creates that a lookup decides, with the meter that it found.

        The others wait for the next lookup.
        """
        for create in list(self.creates.values()):
            create.lookup_trouble = look.trouble
            found = look.bearers.get(create.marker)
            if found or look.began >= create.deadline:
                del self.creates[create.key]
                yield create, found[0] if found else None
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        # Do not schedule the last lookup later than the deadline.
        last = max(min((c.deadline for c in self.creates.values()), default=0.0), self.clock.now())
        self.next_look = min(self.clock.now() + self._pause, max(last, self.clock.now() + _FIRST_PAUSE))
