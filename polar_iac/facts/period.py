"""Range over which usage is compared: 30 whole UTC days, which end yesterday."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

DAYS = 30
"""Days of a period. Today is left out: it is not over, and its events may not be listed yet."""


@dataclass(frozen=True)
class Period:
    """Whole UTC days from `first` to `last`, both included."""

    first: date
    last: date

    @classmethod
    def before(cls, today: date, days: int = DAYS) -> Period:
        """Return the whole days that end yesterday."""
        return cls(today - timedelta(days=days), today - timedelta(days=1))

    @classmethod
    def before_time(cls, time: str) -> Period:
        """Return the whole days that end on the day before a UTC time, as RFC 3339."""
        return cls.before(date.fromisoformat(time[:10]))

    @classmethod
    def of(cls, after: str, until: str) -> Period:
        """Return the period with these `after` and `until` times."""
        day = timedelta(days=1)
        return cls(date.fromisoformat(after[:10]) + day, date.fromisoformat(until[:10]) - day)

    @property
    def after(self) -> str:
        """The time after which the events happened, as RFC 3339. The list of events excludes it (observed).

        The list compares milliseconds. One millisecond before midnight excludes exactly the day before.
        """
        return f"{self.first - timedelta(days=1)}T23:59:59.999Z"

    @property
    def until(self) -> str:
        """The time before which the events happened, as RFC 3339."""
        return f"{self.last + timedelta(days=1)}T00:00:00Z"

    @property
    def days(self) -> tuple[str, ...]:
        """The days in order, each as in 2026-11-24."""
        count = (self.last - self.first).days + 1
        return tuple(str(self.first + timedelta(days=number)) for number in range(count))


@lru_cache(maxsize=4_096)
def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def moment_of(event: Mapping[str, Any]) -> datetime:
    """Return the time of an event in UTC. Raises ValueError if its timestamp is not a time."""
    return _moment(event["timestamp"])


def day_of(event: Mapping[str, Any]) -> str:
    """Return the UTC day of an event, as in 2026-11-24."""
    return str(moment_of(event).date())
