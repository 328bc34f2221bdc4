"""Creates of one run: the state of each, from its first POST to its outcome.

    sent ──201──────────────────────────────────► created
      │──refused, or never sent─────────────────► not-created
      └──no answer──► lost ◄──not found yet──┐
                        └──► looking-up ─────┤
                                             ├──► found
         resend ◄── can no longer land ──────┤
           └──► sent (MAX_SENDS at most)     └──► unconfirmed

A create that an earlier run may have sent starts as `lost`. One lookup covers all lost creates, and work on
other keys continues during it. `found`, `created`, and `not-created` are final. The sweep at the end of a run
looks for `unconfirmed` creates once more; in the journal they stay unanswered for the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from polar_iac.apply.jobs import Job
from polar_iac.apply.marked import active_by_marker
from polar_iac.clock import Clock, StoppedError
from polar_iac.meter.live import LiveMeter
from polar_iac.polar.errors import ApiError, TransientError

MAX_SENDS = 2
"""Maximum times that a run sends one create. If nothing is found after that, a person or a later run must
decide."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Shortest and longest time between two lookups, in seconds: short at first, for a replica that lags, then
longer to spare the rate limit."""


class CreateState(Enum):
    """State of a create. The module's docstring shows the transitions."""

    SENT = "sent"
    """The POST is in flight."""
    LOST = "lost"
    """No usable answer came: the POST may have taken effect, or may still do so."""
    LOOKING_UP = "looking-up"
    """A lookup that covers this create is in flight."""
    FOUND = "found"
    """A lookup found `meter` by the marker."""
    RESEND = "resend"
    """No lookup found it, and it can no longer take effect: it may be sent again."""
    UNCONFIRMED = "unconfirmed"
    """No lookup found it, and this run sends it no more."""
    CREATED = "created"
    """A 201 returned the meter."""
    NOT_CREATED = "not-created"
    """Known to have created nothing."""


@dataclass
class Create:
    """A create, and what is known of its requests."""

    job: Job
    marker: str
    state: CreateState
    earlier: int = 0
    """Number of unanswered creates from earlier runs."""
    sends: int = 0
    post_error: str = ""
    """Error of the last POST."""
    lookup_error: str = ""
    """Error of the last lookup. Empty if it gave a result."""
    deadline: float = 0.0
    """Time, by the clock, after which it can no longer take effect. A lookup that begins later and finds
    nothing is final."""
    meter: LiveMeter | None = None

    @property
    def unconfirmed_message(self) -> str:
        """Message for a create with neither an answer nor a meter."""
        times = self.sends + self.earlier
        sent = "once" if times == 1 else f"{times} times"
        cause = f" ({self.post_error})" if self.post_error else ""
        looked = (
            f"looking for the meter failed: {self.lookup_error}"
            if self.lookup_error
            else "the meter cannot be found"
        )
        return (
            f"create sent {sent} without a usable answer{cause}, and {looked}. Run apply again: it looks for "
            "the meter before creating it"
        )


@dataclass(frozen=True)
class Lookup:
    """Result of one lookup. `began` is by the clock."""

    began: float
    by_marker: Mapping[str, Sequence[LiveMeter]]
    """Active meters by marker, oldest first."""
    error: str = ""


@dataclass
class Creates:
    """All creates of a run by key, and the schedule of the lookups.

    `find` asks Polar for the meters that have one of the given markers. `key_by_id` maps recorded meter
    ids to keys. `lookup_timeout` and `resend_after` are those of `Limits`.
    """

    find: Callable[[Sequence[str]], Sequence[LiveMeter]]
    key_by_id: Mapping[str, str]
    clock: Clock
    lookup_timeout: float
    resend_after: float
    next_lookup: float = 0.0
    _by_key: dict[str, Create] = field(default_factory=dict)
    _lost: dict[str, Create] = field(default_factory=dict)
    """Creates that are `lost` or `looking-up`. A run may have thousands of others."""
    _pause: float = _FIRST_PAUSE

    def get(self, key: str) -> Create | None:
        return self._by_key.get(key)

    @property
    def lost(self) -> list[Create]:
        """Creates whose fate only a lookup can tell: `lost` or `looking-up`."""
        return list(self._lost.values())

    @property
    def unconfirmed(self) -> list[Create]:
        return [create for create in self._by_key.values() if create.state is CreateState.UNCONFIRMED]

    def lookup_is_due(self) -> bool:
        return bool(self._lost) and self.clock.now() >= self.next_lookup

    def stop_looking(self, create: Create) -> None:
        """Leave a create to the sweep, or to the next run."""
        self._lost.pop(create.job.key, None)
        create.state = CreateState.UNCONFIRMED

    def find_late(self, by_marker: Mapping[str, Sequence[LiveMeter]]) -> list[tuple[Job, LiveMeter]]:
        """Return the unconfirmed creates whose meters have appeared since. They are `found` now."""
        late = [create for create in self.unconfirmed if by_marker.get(create.marker)]
        for create in late:
            create.state = CreateState.FOUND
        return [(create.job, by_marker[create.marker][0]) for create in late]

    @property
    def landing_time(self) -> float:
        """Seconds after which a create that is not found was not made."""
        return max(self.resend_after, self.lookup_timeout)

    def begin(self, job: Job, marker: str) -> Create:
        """Add a create that is about to be sent for the first time."""
        create = self._by_key[job.key] = Create(job, marker, CreateState.SENT)
        return create

    def resume(self, job: Job, marker: str, earlier: int, seconds: float) -> None:
        """Add a create that earlier runs sent, and that may still take effect for `seconds` seconds."""
        create = self._by_key[job.key] = Create(job, marker, CreateState.LOST, earlier)
        self._lose(create, seconds)

    def sent(self, create: Create) -> None:
        create.sends += 1
        create.state = CreateState.SENT

    def failed(self, create: Create, error: ApiError | StoppedError) -> None:
        """Decide the state after a POST that returned no meter."""
        fate = error.fate if isinstance(error, TransientError) else "not-sent"
        if fate == "not-sent":
            create.sends -= 1
            # Example: the first POST timed out, and for the second there was no connection. The first may
            # still take effect. After a refusal (422) the job has failed all the same, with Polar's reason.
            refused = not isinstance(error, TransientError | StoppedError)
            may_land = bool(create.sends or create.earlier) and not refused
            create.state = CreateState.UNCONFIRMED if may_land else CreateState.NOT_CREATED
            return
        create.post_error = str(error)
        # Polar's own 500 ends the request, so only a lagging replica can still hide its meter. Example of the
        # other case: a gateway answered 504 while the request still runs behind it.
        self._lose(create, self.lookup_timeout if fate == "over" else self.landing_time)

    def _lose(self, create: Create, seconds: float) -> None:
        now = self.clock.now()
        create.state, create.deadline = CreateState.LOST, now + seconds
        self._lost[create.job.key] = create
        self._pause, self.next_lookup = _FIRST_PAUSE, now

    def begin_lookup(self) -> list[str]:
        """Return the markers that a lookup must cover."""
        for create in self._lost.values():
            create.state = CreateState.LOOKING_UP
        return [create.marker for create in self._lost.values()]

    def lookup(self, markers: Sequence[str]) -> Lookup:
        """Look up all these markers with one request. Runs in a pool thread."""
        began = self.clock.now()
        try:
            meters = self.find(markers)
        except (ApiError, StoppedError) as error:
            return Lookup(began, {}, str(error))
        return Lookup(began, active_by_marker(meters, self.key_by_id))

    def decide(self, lookup: Lookup) -> list[Create]:
        """Return the creates that a lookup decides, in their new state. The others are lost again."""
        decided = []
        # Creates that were lost after the lookup began are still `lost`: it says nothing about them.
        for create in [c for c in self._lost.values() if c.state is CreateState.LOOKING_UP]:
            create.lookup_error = lookup.error
            meters = lookup.by_marker.get(create.marker)
            if meters:
                create.state, create.meter = CreateState.FOUND, meters[0]
            elif lookup.began < create.deadline:
                create.state = CreateState.LOST
                continue
            elif create.sends < MAX_SENDS and not lookup.error:
                create.state = CreateState.RESEND
            else:  # a failed lookup proves nothing, so nothing is sent again after one
                create.state = CreateState.UNCONFIRMED
            del self._lost[create.job.key]
            decided.append(create)
        self._schedule()
        return decided

    def _schedule(self) -> None:
        """Set the time of the next lookup: after a growing pause, but no later than the next deadline."""
        now = self.clock.now()
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        deadline = min((create.deadline for create in self._lost.values()), default=now)
        self.next_lookup = min(now + self._pause, max(deadline, now + _FIRST_PAUSE))
