"""Trials of sampling: an impact is estimated from a sample of heavy-tailed events of many kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

from polar_iac.facts.model import Day, Usage
from polar_iac.facts.names import reach
from polar_iac.facts.period import Period
from polar_iac.facts.reading import Want, read_events
from polar_iac.facts.sampling import sampled_impact
from polar_iac.meter.spec import MeterSpec
from tests.support.build import spec

PERIOD = Period.before(date(2026, 11, 25))
NAME = "llm.completion"
EVENTS = 12_000
"""Events of a population: twelve times as many as are read."""
Json = dict[str, Any]
Draw = Callable[[Random, int], tuple[float, bool]]
"""Draws a value, and whether the change no longer counts the event, by the event's place in time."""


def independent(value: Callable[[Random], float], lost: float) -> Callable[[Random], Draw]:
    """Each event for itself."""
    return lambda _: lambda random, _place: (value(random), random.random() < lost)


def one_customer(share: float, times: float) -> Callable[[Random], Draw]:
    """A customer whose events are `share` of all, each worth many times those of others; all are lost."""

    def draw(random: Random, _place: int) -> tuple[float, bool]:
        big = random.random() < share
        return random.lognormvariate(3, 1) * (times if big else 1), big or random.random() < 0.05

    return lambda _: draw


def bursts(share: float, length: int, times: float) -> Callable[[Random], Draw]:
    """The same customer, who comes in bursts of so many events and is away in between."""

    def kind(random: Random) -> Draw:
        busy = {n for n in range(-(-EVENTS // length)) if random.random() < share}

        def draw(random: Random, place: int) -> tuple[float, bool]:
            big = place // length in busy
            return random.lognormvariate(3, 1) * (times if big else 1), big

        return draw

    return kind


KINDS: Mapping[str, Callable[[Random], Draw]] = {
    "even": independent(lambda random: random.uniform(10, 1000), 0.34),
    "log-normal, sigma 1": independent(lambda random: random.lognormvariate(5, 1), 0.34),
    "log-normal, sigma 2": independent(lambda random: random.lognormvariate(5, 2), 0.34),
    "Pareto 1.5": independent(lambda random: random.paretovariate(1.5), 0.34),
    "Pareto 1.1": independent(lambda random: random.paretovariate(1.1), 0.34),
    "few lost": independent(lambda random: random.lognormvariate(5, 1), 0.003),
    "one customer, 60 %": one_customer(0.05, 28),
    "one customer, 60 % in 1 event of 1,000": one_customer(0.001, 1500),
    "one customer, 60 % in long bursts": bursts(0.3, 600, 3.5),
    "one customer, 60 % in short bursts": bursts(0.06, 40, 23),
    "one burst": bursts(0.1, 1200, 1),
}
"""Kinds of populations of about `EVENTS` events. Each draws one population by a generator."""
REQUESTS = (55, 26, 12)
"""Requests that a trial may send: enough for 50 windows, 25 and 10."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: an error as a part of the usage before, or nothing that is stated.

    Of the sum of a new meter a bound is stated, and the error is what it falls short of. `covered` tells
    whether the truth is within the error.
    """

    kind: str
    func: str
    windows: int
    stated: bool
    covered: bool
    error: float


@dataclass(frozen=True)
class Page:
    total: int
    events: list[Json]
    ids: list[str]


def meter(func: str, *, narrow: bool) -> MeterSpec:
    kept = {"property": "kept", "operator": "eq", "value": 1}
    name = {"property": "name", "operator": "eq", "value": NAME}
    aggregation = {"func": "count"} if func == "count" else {"func": "sum", "property": "n"}
    clauses = [name, kept] if narrow else [name]
    return spec(filter={"conjunction": "and", "clauses": clauses}, aggregation=aggregation)


Drawn = tuple[float, bool]
"""The value of an event, and whether it is lost."""
START = datetime.fromisoformat(PERIOD.until) - timedelta(days=len(PERIOD.days))
STEP = timedelta(days=len(PERIOD.days)) / EVENTS


def event(place: int, drawn: Drawn) -> Json:
    """An event as the reader hands it on; events are spread evenly over the period."""
    value, lost = drawn
    return {
        "name": NAME,
        "source": "user",
        "timestamp": (START + place * STEP).isoformat(),
        "metadata": {"n": value, "kept": int(not lost)},
        "customer_id": "1",
    }


def usage_of(worth: Sequence[float]) -> Usage:
    per_day = EVENTS // len(PERIOD.days)
    days = [Day(day, sum(worth[n * per_day : (n + 1) * per_day])) for n, day in enumerate(PERIOD.days)]
    return Usage(None, tuple(days), "2026-11-25T00:00:00Z")


def trial(kind: str, seed: int) -> Outcome:
    """Draw a population, read a sample of it as a plan does, and compare the estimate with the whole.

    The meter sums a property, mostly, or counts, or is a new one. Which pages are read depends on name and
    period alone, so each trial draws its events anew.
    """
    random = Random(f"{kind} {seed}")
    draw = KINDS[kind](random)
    events = [draw(random, place) for place in range(EVENTS)]
    case = random.choice(["sum", "sum", "sum", "count", "new count", "new sum"])
    func = case.removeprefix("new ")
    worth = [value if func == "sum" else 1.0 for value, _ in events]

    def read_page(_name: str, _start: str, _end: str, page: int, size: int) -> Page:
        places = range((page - 1) * size, min(page * size, EVENTS))
        return Page(EVENTS, [event(n, events[n]) for n in places], [str(n) for n in places])

    requests = REQUESTS[seed % len(REQUESTS)]
    reads = read_events(read_page, [Want("m", (NAME,))], PERIOD, "2026-11-25T00:00:00Z", requests)
    before = None if case.startswith("new") else meter(func, narrow=False)
    after = meter(func, narrow=True)
    usage = None if before is None else usage_of(worth)
    impact = sampled_impact(before, after, [reads[NAME]], PERIOD, usage, [reach(NAME, before, after)])
    windows = len(reads[NAME].windows)
    truth = sum(value for value, (_, lost) in zip(worth, events, strict=True) if not lost)
    if case == "new sum":
        least = impact.at_least or 0.0
        return Outcome(kind, case, windows, stated=least > 0, covered=least <= truth, error=1 - least / truth)
    if impact.after is None:
        return Outcome(kind, func, windows, stated=False, covered=True, error=0.0)
    whole, error = sum(worth), impact.error or 0.0
    covered = abs(impact.after - truth) <= error + 1e-9 * whole
    return Outcome(kind, func, windows, stated=True, covered=covered, error=error / whole)
