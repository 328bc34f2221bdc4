"""Buckets of time: the labels of an answer, and the calendar bucket that holds a moment.

The label of a bucket is not its content: labels step from the start, the content is the calendar bucket that
holds the label (observed).
"""

from __future__ import annotations

import calendar
from collections.abc import Hashable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum


class TimeInterval(StrEnum):
    """The intervals, in the order in which an error lists them."""

    year = "year"
    month = "month"
    week = "week"
    day = "day"
    hour = "hour"


LONGEST_DAYS = {
    TimeInterval.hour: 7,
    TimeInterval.day: 366,
    TimeInterval.week: 371,
    TimeInterval.month: 1460,
    TimeInterval.year: 3650,
}
"""The longest range of each interval, in calendar days (observed)."""


def fits(start: datetime, end: datetime, interval: TimeInterval) -> bool:
    """Tell whether the range from start to end is neither reversed nor too long. Their dates count."""
    return 0 <= end.toordinal() - start.toordinal() <= LONGEST_DAYS[interval]


def labels(start: datetime, end: datetime, interval: TimeInterval, zone: tzinfo) -> Iterator[datetime]:
    """Yield the labels from start to end, both included, as times in UTC.

    Each is a step after the one before it: by month from January 31 they are 31 Jan, 28 Feb, 28 Mar
    (observed). Hours are hours of time, all other steps are of the zone's calendar.
    """
    label = start.astimezone(UTC)
    while label <= end:
        yield label
        if interval is TimeInterval.hour:
            label += timedelta(hours=1)
        else:
            local = label.astimezone(zone).replace(tzinfo=None)
            label = _instant(_step(local, interval), zone)


def bucket(moment: datetime, interval: TimeInterval, zone: tzinfo) -> Hashable:
    """Return what is equal for two moments of one calendar bucket: an hour, day, ISO week, month or year."""
    local = moment.astimezone(zone)
    match interval:
        case TimeInterval.hour:  # the hour that a clock repeats in autumn is two buckets
            begun = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            return moment.astimezone(UTC) - begun
        case TimeInterval.day:
            return local.date()
        case TimeInterval.week:
            return local.isocalendar()[:2]
        case TimeInterval.month:
            return local.year, local.month
    return local.year


def _step(local: datetime, interval: TimeInterval) -> datetime:
    match interval:
        case TimeInterval.day:
            return local + timedelta(days=1)
        case TimeInterval.week:
            return local + timedelta(weeks=1)
        case TimeInterval.month:
            year, month = divmod(local.year * 12 + local.month, 12)
            return _on(local, year, month + 1)
    return _on(local, local.year + 1, local.month)


def _on(local: datetime, year: int, month: int) -> datetime:
    """Return the same day and time of another month, or the month's last day."""
    return local.replace(year=year, month=month, day=min(local.day, calendar.monthrange(year, month)[1]))


def _instant(local: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a wall clock's time, as PostgreSQL does (read).

    Of a time that the clock shows twice it takes the second; one that is skipped is read by the offset
    before. Both are the smaller offset of the two.
    """
    readings = [local.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
    return min(readings, key=lambda reading: reading.utcoffset() or timedelta()).astimezone(UTC)
