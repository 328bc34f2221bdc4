"""Estimate of matched usage from a sample of events, with an error that also holds for heavy tails.

The error holds because a total is known: the quantity that Polar itself counted for the current meter, or
the number of events. A sample gives a lower bound for the part of the total that a change takes away, and
another one for the part that it keeps (`bounds`). The two parts add up to the total, so each lower bound also
gives an upper bound for the other part. Without a known total, a few unread events could hold any quantity,
and nothing is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polar_iac.facts.bounds import lower_mean
from polar_iac.facts.impact import TOLERANCE, Impact, Seen, Side, Sides
from polar_iac.facts.model import EventsRead, Usage
from polar_iac.facts.names import NameReach
from polar_iac.facts.period import Period
from polar_iac.facts.reading import FEWEST_WINDOWS
from polar_iac.meter.spec import MeterSpec

RISK = 0.05
"""Highest chance that the true total is outside the stated error."""
WIDEST = 0.5
"""Largest error that is stated, as a fraction of the usage. A larger one would be useless."""

_TINY = 1e-300
"""Quantity that is treated as zero. A digit of a smaller one may be below the smallest double."""

Worth = Callable[[Seen], float]


@dataclass(frozen=True)
class Estimate:
    """An estimated total. The true total is within `error` of `value`, except with a chance of `RISK`."""

    value: float
    error: float

    def rounded(self) -> Estimate:
        """Return the estimate, rounded to two digits of its error. The error grows by the rounding.

        Example: 1,375,993.85 ± 266,012 is 1,380,000 ± 280,000.
        """
        if self.error < _TINY:
            return self
        digits = 1 - math.floor(math.log10(self.error))
        value, unit = round(self.value, digits), 10.0**-digits
        moved = self.error + abs(value - self.value)
        return Estimate(value, round(math.ceil(moved / unit) * unit, digits))


@dataclass(frozen=True)
class Sample:
    """Quantities that a change takes away and keeps, in windows of one name, out of `total` events.

    A window has at most `size` events. `taken` and `kept` have one number for each window that was read.
    """

    taken: Sequence[float]
    kept: Sequence[float]
    total: int
    size: int
    is_whole: bool

    @property
    def windows(self) -> int:
        """Number of windows that would cover all events of the name."""
        return -(-self.total // self.size)


def estimate_taken(samples: Sequence[Sample], total: float) -> Estimate | None:
    """Estimate the part of a known total that is taken away. None if the numbers contradict the total.

    The risk is divided among the names that were not read whole, and between both sides.
    """
    sampled = [sample for sample in samples if not sample.is_whole]
    risk = RISK / 2 / max(len(sampled), 1)
    taken, kept = [sum(sum(s.taken) for s in samples), sum(sum(s.kept) for s in samples)]
    slack = TOLERANCE * max(1.0, abs(total))
    if taken + kept > total + slack:
        return None
    low = max(taken, _at_least(samples, lambda sample: sample.taken, risk))
    high = total - max(kept, _at_least(samples, lambda sample: sample.kept, risk))
    if low > high + slack:
        return None
    likely = _likely(samples, total)
    value = min(max(likely, low), max(high, low))
    return Estimate(value, max(value - low, high - value, 0.0))


def _at_least(samples: Sequence[Sample], side: Callable[[Sample], Sequence[float]], risk: float) -> float:
    return sum(
        sum(side(sample)) if sample.is_whole else sample.windows * lower_mean(side(sample), risk)
        for sample in samples
    )


def _likely(samples: Sequence[Sample], total: float) -> float:
    """Return what whole names lose, plus the sampled ratio of the rest of the total."""
    whole = [sample for sample in samples if sample.is_whole]
    exact = sum(sum(sample.taken) for sample in whole)
    rest = total - exact - sum(sum(sample.kept) for sample in whole)
    weights = [
        (sample.windows / len(sample.taken), sum(sample.taken), sum(sample.kept))
        for sample in samples
        if not sample.is_whole and sample.taken
    ]
    taken = sum(weight * lost for weight, lost, _ in weights)
    seen = taken + sum(weight * kept for weight, _, kept in weights)
    return exact + (rest * taken / seen if seen else 0.0)


def sampled_impact(
    before: MeterSpec | None,
    after: MeterSpec,
    reads: Sequence[EventsRead],
    period: Period,
    usage: Usage | None,
    reaches: Sequence[NameReach],
) -> Impact:
    """Return the impact as far as a part of the events shows it.

    `reads` has every name that makes a difference. `usage` is what Polar counts by day for the current
    meter, or None where that may include system events. `reaches` holds the possible effects on each name.
    """
    sides = Sides.of(before, after)
    seen = {read.name: [sides.see(window.events) for window in read.windows] for read in reads}
    events = [s for windows in seen.values() for window in windows for s in window]
    known = _known_before(events, sides, period, usage)
    by_name = {reach.name: reach for reach in reaches}
    windows = [_Read(read, by_name[read.name], seen[read.name]) for read in reads]
    estimate = None
    if all(read.is_whole or len(read.windows) >= FEWEST_WINDOWS for read in windows):
        has_all = by_name.keys() <= seen.keys()
        estimate = _after(before, after, sides, windows, known, has_all_names=has_all)
    largest = max(known or 0.0, estimate.value if estimate else 0.0)
    stated = estimate.rounded() if estimate and estimate.error <= WIDEST * largest else None
    return Impact(
        period,
        both=sum(s.before and s.after for s in events),
        only_before=sum(s.before and not s.after for s in events),
        only_after=sum(s.after and not s.before for s in events),
        before=known,
        after=None if stated is None else stated.value,
        read=len(events),
        of=sum(read.total for read in reads),
        error=(stated.error or None) if stated else None,
        estimated=stated is not None and stated.error > 0,
        at_least=_at_least_after(sides.after, windows)
        if stated is None and after.aggregation.func == "sum"
        else None,
    )


@dataclass(frozen=True)
class _Read:
    """Events of a name that were read, and their evaluation by window."""

    events: EventsRead
    reach: NameReach
    windows: Sequence[Sequence[Seen]]

    @property
    def is_whole(self) -> bool:
        return self.events.read == self.events.total

    def sample(self, taken: Worth, kept: Worth) -> Sample:
        """Return the quantities of events, by window."""
        return Sample(
            [sum(map(taken, window)) for window in self.windows],
            [sum(map(kept, window)) for window in self.windows],
            self.events.total,
            max(map(len, self.windows), default=1),
            self.is_whole,
        )


def _known_before(events: Sequence[Seen], sides: Sides, period: Period, usage: Usage | None) -> float | None:
    """Return Polar's own total, if it is the matched usage: both engines must take the same events."""
    if sides.before is None or not sides.before.is_additive or usage is None:
        return None
    in_sql = sides.before.meter.counts_in_quantities([s.event for s in events])
    by_day = {day.date: day.quantity for day in usage.days}
    if in_sql != [s.before for s in events] or not by_day.keys() >= set(period.days):
        return None
    return math.fsum(by_day[day] for day in period.days)


def _after(
    before: MeterSpec | None,
    after: MeterSpec,
    sides: Sides,
    reads: Sequence[_Read],
    known: float | None,
    *,
    has_all_names: bool,
) -> Estimate | None:
    """Estimate the usage after a change, as a part of the usage before it or else of all events.

    The latter needs every name that matters, the former only those that make a difference.
    """
    narrows = all(read.is_whole or read.reach.narrows for read in reads)
    if known is not None and narrows and before and _same_aggregation(before, after):
        return _less(sides.after, reads, known)
    if after.aggregation.func == "count" and has_all_names:
        samples = [read.sample(lambda s: float(s.after), lambda s: float(not s.after)) for read in reads]
        return estimate_taken(samples, sum(read.events.total for read in reads))
    return None


def _same_aggregation(before: MeterSpec, after: MeterSpec) -> bool:
    return bool(before.canonical["aggregation"] == after.canonical["aggregation"])


def _less(side: Side, reads: Sequence[_Read], known: float) -> Estimate | None:
    """Estimate what is left of a known quantity, if sampled names can only lose usage.

    Return None if a number below 0 was read: the part that is kept may then be negative.
    """
    worth = _worth(side)
    seen = [s for read in reads for window in read.windows for s in window if s.before or s.after]
    if any(worth(s) < 0 for s in seen):
        return None
    samples = [
        read.sample(
            lambda s: worth(s) if s.before and not s.after else 0.0,
            lambda s: worth(s) if s.before and s.after else 0.0,
        )
        for read in reads
    ]
    if all(read.is_whole or not read.reach.differs for read in reads):
        taken: Estimate | None = Estimate(sum(sum(sample.taken) for sample in samples), 0.0)
    else:
        taken = estimate_taken(samples, known)
    if taken is None:
        return None
    gained = sum(worth(s) for s in seen if s.after and not s.before)
    return Estimate(known - taken.value + gained, taken.error)


def _worth(side: Side) -> Worth:
    """Return a function that gives the amount that a matched event adds to an additive quantity."""
    return lambda s: side.meter.quantity([s.event]) or 0.0


def _at_least_after(side: Side, reads: Sequence[_Read]) -> float | None:
    """Return a lower bound of a sum, or None if a number below 0 was read or nothing is certain.

    It is as certain as a stated error, and needs no known total. It says nothing about an upper bound.
    """
    worth = _worth(side)
    if any(worth(s) < 0 for read in reads for window in read.windows for s in window if s.after):
        return None
    samples = [read.sample(lambda s: worth(s) if s.after else 0.0, lambda _: 0.0) for read in reads]
    sampled = sum(not sample.is_whole for sample in samples)
    low = max(
        sum(sum(sample.taken) for sample in samples),
        _at_least(samples, lambda sample: sample.taken, RISK / max(sampled, 1)),
    )
    if not _TINY <= low < math.inf:
        return None
    unit = 10.0 ** (math.floor(math.log10(low)) - 2)  # three digits
    return math.floor(low / unit) * unit
