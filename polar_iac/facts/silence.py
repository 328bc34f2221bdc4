"""Silence: a meter that counted, and counts no longer. Days are UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

from polar_iac.facts.model import Day, Usage

DAYS = 183
"""Days of usage that are looked at: enough to see several times that a meter counts once a month."""
RECENT = 30
"""Days for which a meter that has stopped is reported."""
_WEEK = 7
"""Days over which the average before the silence is taken."""
_USUAL = 3
"""Number of pauses as long as this one that make it usual. Example: an office's meter, on a Sunday."""


@dataclass(frozen=True)
class Silence:
    """The last day that counted, and the average a day of the week before it."""

    last: str
    daily: float


def silence(usage: Usage, today: str, *, quiet_since_yesterday: bool = False) -> Silence | None:
    """Return the silence of a meter that counted lately and nothing for 24 hours, if that is not usual.

    Whole days show 24 hours only when yesterday counted nothing. `quiet_since_yesterday` says that the hours
    do: the meter counted yesterday, and nothing in the last 24 hours.
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
    """Return the average a day of the week before the last day, or that day's quantity if there is no other.

    The last day is left out where it can be: it ended where the silence began.
    """
    last, quantity = counted[-1]
    week = [(day, q) for day, q in counted[:-1] if day >= last - timedelta(days=_WEEK)]
    if not week:
        return quantity
    return sum(q for _, q in week) / (last - week[0][0]).days


def needs_hours(days: Sequence[Day], today: str) -> bool:
    """Tell whether only hours can show 24 hours of silence: yesterday counted, and today not yet."""
    counted = [day.date for day in days if day.quantity]
    yesterday = date.fromisoformat(today) - timedelta(days=1)
    return bool(counted) and counted[-1] == yesterday.isoformat()


def counts_nothing(days: Sequence[Day]) -> bool:
    """Tell whether no day counted anything."""
    return not any(day.quantity for day in days)


def is_older(moment: str, now: str, *, hours: int) -> bool:
    """Tell whether an RFC 3339 time is at least some hours before another one."""
    return datetime.fromisoformat(moment) <= datetime.fromisoformat(now) - timedelta(hours=hours)
