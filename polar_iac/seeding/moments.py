"""Moments and durations as a seed writes them: `-3d`, `now`, `2026-11-01`, `2026-11-01T12:00:00Z`, `1h`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_PART = re.compile(r"(\d{1,6})([wdhms])", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d))?",
    re.ASCII,
)
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

Moment = datetime | timedelta
"""A moment, or its distance before the time of seeding."""


def read_duration(text: str) -> timedelta | None:
    """Return a duration such as `1h` or `1d12h`, or None for any other text and for nothing at all."""
    if not _DURATION.fullmatch(text):
        return None
    parts = (timedelta(**{_UNITS[unit]: int(number)}) for number, unit in _PART.findall(text))
    try:
        return sum(parts, timedelta()) or None
    except OverflowError:  # some million years
        return None


def read_moment(text: str) -> Moment | None:
    """Return a moment, or None for any other text. A date is its midnight in UTC."""
    if text == "now":
        return timedelta()
    if text.startswith("-"):
        return read_duration(text[1:])
    if not _TIME.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def resolve(moment: Moment, now: datetime) -> datetime:
    """Return the moment in time, or the start of the calendar if it is earlier."""
    if not isinstance(moment, timedelta):
        return moment
    try:
        return now - moment
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
