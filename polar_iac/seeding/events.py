"""Series of events as the single events that are ingested."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from polar_iac.seeding.model import EventSeries
from polar_iac.seeding.moments import resolve

MAX_EVENTS = 200_000
"""Most events of one seed. Ingesting them takes about a minute."""


def fault_of(series: EventSeries, now: datetime) -> tuple[str, str] | None:
    """Return the key at fault in the time of a series, and what to do; None if nothing is wrong."""
    start, end = _range(series, now)
    if end < start:
        return "from", "`from` is later than `to`: swap them"
    # An older event breaks the real server's filters, for other organizations too (observed).
    if start.year < 1970:
        return ("at" if series.end is None else "from"), "the time is before 1970: write a later one"
    if end > now:
        message = "the time is in the future, and Polar refuses such an event: write a time such as `-1h`"
        return ("at" if series.end is None else "to"), message
    return None


def count_of(series: EventSeries, now: datetime) -> int:
    """Return how many events a series has."""
    return _moments(series, now) * series.times * len(series.customers)


def events_of(series: EventSeries, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the events of a series, in the form of an ingest. All customers have the same times."""
    start, end = _range(series, now)
    turn = 0
    for number in range(_moments(series, now) if series.every else series.times):
        if series.every:
            moment = start + number * series.every
        else:
            moment = start + number * (end - start) / series.times
        for customer in series.customers:
            for _ in range(series.times if series.every else 1):
                yield {
                    "name": series.name,
                    "external_customer_id": customer,
                    "timestamp": moment,
                    "metadata": {key: values[turn % len(values)] for key, values in series.metadata.items()},
                }
                turn += 1


def _range(series: EventSeries, now: datetime) -> tuple[datetime, datetime]:
    start = resolve(series.start, now)
    return start, start if series.end is None else resolve(series.end, now)


def _moments(series: EventSeries, now: datetime) -> int:
    """Return the number of moments, from the start until before the end, at which `times` events happen."""
    start, end = _range(series, now)
    if series.every is None:
        return 1
    return max(1, math.ceil((end - start) / max(series.every, timedelta(microseconds=1))))
