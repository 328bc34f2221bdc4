"""The creates of a run: sent, lost, looked for, found, sent again, or unconfirmed.

    send ──201──────────────────────────────► created
      │──refused, or never sent─────────────► failed
      └──no answer──► lost ──found by marker─► found
                       │ still nothing when it can no longer land
                       ├──────────────► send again (once)
                       └──────────────► unconfirmed: the intent stays in the journal

One lookup serves all lost creates, and other keys go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from polar_iac.api import ApiError
from polar_iac.meter import LiveMeter
from polar_iac.recovery import active_by_marker
from polar_iac.waiting import Clock, StoppedError

MAX_SENDS = 2
"""How often a run sends one create. Still nothing after the second time needs a person, or a later run."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Seconds between two lookups: short at first, for a replica that lags, then easy on the rate limit."""


@dataclass
class Create:
    """A create on its way. `trouble` says what became of its last POST."""

    key: str
    marker: str
    sends: int = 0
    earlier: int = 0
    """Creates of earlier runs that were never answered."""
    trouble: str = ""
    lookup_trouble: str = ""
    """Why the last lookup told nothing."""
    deadline: float = 0.0
    """When it can no longer land, by the clock: a lookup that begins later and finds nothing is the last."""

    @property
    def may_be_sent(self) -> bool:
        return self.sends < MAX_SENDS and not self.lookup_trouble

    @property
    def unconfirmed(self) -> str:
        """What is known of it, where neither an answer nor a meter was found."""
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
    """What one lookup of the lost creates saw; `began` by the clock."""

    began: float
    bearers: Mapping[str, Sequence[LiveMeter]]
    """Active meters by marker, the oldest first."""
    trouble: str = ""


@dataclass
class LostCreates:
    """The creates that may have landed, and when they are looked for.

    `find` asks Polar for the meters that bear one of some markers; `recorded` tells under which key an id is
    recorded.
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
        """Look for a create, for so many seconds at least."""
        now = self.clock.now()
        create.deadline = now + seconds
        self.creates[create.key] = create
        self._pause, self.next_look = _FIRST_PAUSE, now

    @property
    def markers(self) -> Sequence[str]:
        return [create.marker for create in self.creates.values()]

    def look(self, markers: Sequence[str]) -> Look:
        """Ask once for all of them; for a thread of the pool."""
        began = self.clock.now()
        try:
            found = self.find(markers)
        except (ApiError, StoppedError) as error:
            return Look(began, {}, str(error))
        return Look(began, active_by_marker(found, self.recorded))

    def judge(self, look: Look) -> Iterator[tuple[Create, LiveMeter | None]]:
        """The creates that a lookup decides, with the meter that it found; the others wait for the next."""
        for create in list(self.creates.values()):
            create.lookup_trouble = look.trouble
            found = look.bearers.get(create.marker)
            if found or look.began >= create.deadline:
                del self.creates[create.key]
                yield create, found[0] if found else None
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        # The last look is not to come late.
        last = max(min((c.deadline for c in self.creates.values()), default=0.0), self.clock.now())
        self.next_look = min(self.clock.now() + self._pause, max(last, self.clock.now() + _FIRST_PAUSE))
