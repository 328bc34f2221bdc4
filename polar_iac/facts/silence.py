"""Silence: a meter that used to count and no longer does. Days are UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

from polar_iac.facts.model import Day, Usage

DAYS = 183
"""Days of usage that are examined: enough to recognize a meter that counts once a month."""
RECENT = 30
"""Days for which a meter that has stopped is reported."""
_WEEK = 7
"""Days over which the average before the silence is taken."""
_USUAL = 3
"""Number of equally long pauses that make a pause usual. Example: an office's meter, on a Sunday."""


@dataclass(frozen=True)
class Silence:
    """The last day with usage, and the daily average of the week before it."""

    last: str
    daily: float


def silence(usage: Usage, today: str, *, quiet_since_yesterday: bool = False) -> Silence | None:
    """Return the silence of a meter that counted recently but not in the last 24 hours, if that is unusual.

    Whole days prove 24 hours of silence only if yesterday has no usage. `quiet_since_yesterday` means that
    the hours prove it: the meter counted yesterday, and nothing in the last 24 hours.
    """
    counted = [(date.fromisoformat(day.date), day.quantity) for day in usage.days if day.quantity]
    if not counted:
        return None
    now, last = date.fromisoformat(today), counted[-1][0]
    age = (now - last).days
    if age > RECENT or age < 1 or (age == 1 and not quiet_since_yesterday):
        return None
    pauses = [(later - earlier).days - 1 for (earlier, _), (later, _) in pairwise(counted)]
    if sum(pause >= max(1, age - 1) for pause in pauses) >= _USUAL:
        return None
    return Silence(last.isoformat(), _daily(counted))


def _daily(counted: Sequence[tuple[date, float]]) -> float:
    """Return the daily average of the week before the last day, or that day's quantity if it is the only one.

    The last day is left out if possible, since the silence began during it.
    """
    last, quantity = counted[-1]
    week = [(day, q) for day, q in counted[:-1] if day >= last - timedelta(days=_WEEK)]
    if not week:
        return quantity
    return sum(q for _, q in week) / (last - week[0][0]).days


def needs_hours(days: Sequence[Day], today: str) -> bool:
    """Tell whether only hours can prove 24 hours of silence: yesterday has usage, and today has none yet."""
    counted = [day.date for day in days if day.quantity]
    yesterday = date.fromisoformat(today) - timedelta(days=1)
    return bool(counted) and counted[-1] == yesterday.isoformat()


def counts_nothing(days: Sequence[Day]) -> bool:
    """Tell whether no day has usage."""
    return not any(day.quantity for day in days)


def is_older(moment: str, now: str, *, hours: int) -> bool:
    """Tell whether an RFC 3339 time is at least some hours before another one."""
    return datetime.fromisoformat(moment) <= datetime.fromisoformat(now) - timedelta(hours=hours)
