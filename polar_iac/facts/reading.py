"""Choice and reading of the events that several meters need, within a number of requests.

A name whose events fit is read whole, in pages of 100. For other names a sample is read: small windows of
events, at random places in the whole list. Requests are scarce, and many small windows say more than a few
large ones. The name, the period and the number of events seed the random generator, so the same plan reads
the same events. All windows have the same chance, and they are read in random order: if the requests run out
early, the windows that were read are still a random sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

from polar_iac.facts.model import EventsRead, Window
from polar_iac.facts.period import Period

SAMPLE = 1_000
"""Events that are read for a meter, if it has no fewer."""
MOST_WINDOWS = 50
"""Most windows of a meter's sample. More would cost requests and add little."""
FEWEST_WINDOWS = 5
"""Fewest windows of a useful sample."""
PAGE = 100
"""Most events that one request returns (observed)."""


class EventPage(Protocol):
    """A page of the events of a name, oldest first. `total` is 0 past the last page (observed).

    `ids` identify events that moved to the next page and were read twice.
    """

    @property
    def total(self) -> int: ...
    @property
    def events(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def ids(self) -> Sequence[str]: ...


ReadPage = Callable[[str, str, str, int, int], EventPage | None]
"""Reads a page by name, start and end (both exclusive), number and size. None: there will be no more."""


@dataclass(frozen=True)
class Want:
    """Names whose events a meter needs, the most important first."""

    key: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Portion:
    """Pages of a name to read, in this order, each of at most `size` events."""

    size: int
    pages: tuple[int, ...]


def read_events(
    read_page: ReadPage, wants: Sequence[Want], period: Period, as_of: str, requests: int
) -> dict[str, EventsRead]:
    """Read events for all meters, each name once, with at most this number of requests.

    A name is missing where not even its first page could be read.
    """
    reader = _Reader(read_page, period, requests)
    totals: dict[str, int] = {}
    for name in _by_turns([want.names for want in wants]):
        first = reader.page(name, 1, PAGE)
        if first is None:
            break
        totals[name] = first.total
    portions = deal(totals, wants, period, reader.left)
    for name, number in _by_turns([[(name, n) for n in p.pages] for name, p in portions.items()]):
        reader.page(name, number, portions[name].size)
    return {name: reader.read(name, total, portions.get(name), as_of) for name, total in totals.items()}


class _Reader:
    """Pages that were read, and how many more may be."""

    def __init__(self, read_page: ReadPage, period: Period, requests: int) -> None:
        self.left = requests
        self._read_page, self._period = read_page, period
        self._pages: dict[tuple[str, int, int], EventPage] = {}

    def page(self, name: str, number: int, size: int) -> EventPage | None:
        key = (name, number, size)
        if key in self._pages or self.left <= 0:
            return self._pages.get(key)
        self.left -= 1
        page = self._read_page(name, self._period.after, self._period.until, number, size)
        if page is None:
            self.left = 0
        else:
            self._pages[key] = page
        return page

    def read(self, name: str, total: int, portion: Portion | None, as_of: str) -> EventsRead:
        """Return the events of a name that were read. Some may have come since the total was read."""
        windows = self._windows(name, portion)
        total = max(total, sum(len(window.events) for window in windows))
        return EventsRead(name, self._period.after, self._period.until, total, windows, as_of)

    def _windows(self, name: str, portion: Portion | None) -> tuple[Window, ...]:
        """Return the pages of a portion up to the first one that was not read, oldest first.

        The pages were requested in random order, so these are a random sample.
        """
        read: dict[int, EventPage] = {}
        for number in portion.pages if portion else ():
            page = self._pages.get((name, number, portion.size if portion else PAGE))
            if page is None:
                break
            read[number] = page
        seen: set[str] = set()
        return tuple(_window(read[number], seen) for number in sorted(read) if read[number].events)


def _window(page: EventPage, seen: set[str]) -> Window:
    """Return a page as a window, without the events of an earlier page."""
    events = [event for event, id_ in zip(page.events, page.ids, strict=True) if id_ not in seen]
    seen.update(page.ids)
    times = [str(event["timestamp"]) for event in page.events]
    return Window(times[0], times[-1], tuple(events))


def deal(
    totals: Mapping[str, int], wants: Sequence[Want], period: Period, requests: int
) -> dict[str, Portion]:
    """Return which pages to read of each name, beyond its first, with at most this number of requests.

    Each meter has the same share. Requests that a meter does not need go to the others, and a name that two
    meters need is dealt once. A name is read whole if that costs no more requests than a sample.
    """
    portions = {
        name: _portion(name, total, period, PAGE, 1) for name, total in totals.items() if total <= PAGE
    }
    left = requests
    waiting = [Want(w.key, tuple(n for n in w.names if n in totals)) for w in wants]
    waiting.sort(key=lambda want: (sum(totals[name] for name in want.names), want.key))
    for place, want in enumerate(waiting):
        known = {*portions, *want.names}
        others = sum(not known.issuperset(later.names) for later in waiting[place + 1 :])
        share = left // (1 + others)
        for name, portion in _portions_of(want, totals, portions, period, share):
            portions[name] = portion
            left -= _cost(portion)
    return portions


def _cost(portion: Portion) -> int:
    """Return the requests that a portion costs. The first page of 100 has been read."""
    return len(set(portion.pages) - ({1} if portion.size == PAGE else set()))


def _portions_of(
    want: Want, totals: Mapping[str, int], dealt: Mapping[str, Portion], period: Period, share: int
) -> Iterator[tuple[str, Portion]]:
    """Yield the portions of a meter's names that are not dealt yet, in proportion to their events."""
    events = sum(totals[name] for name in want.names)
    windows = min(share, max(MOST_WINDOWS, -(-events // PAGE) if events <= SAMPLE else 0))
    for name in want.names:
        if name in dealt:
            continue
        part = totals[name] / events
        fair = min(max(round(windows * part), FEWEST_WINDOWS), share)
        size = PAGE if events <= SAMPLE else max(1, min(PAGE, round(SAMPLE * part / max(fair, 1))))
        whole = _portion(name, totals[name], period, PAGE, -(-totals[name] // PAGE))
        portion = whole if _cost(whole) <= fair else _portion(name, totals[name], period, size, fair)
        yield name, portion
        share -= _cost(portion)


def _portion(name: str, total: int, period: Period, size: int, windows: int) -> Portion:
    """Draw a page of the list for each window, in random order.

    The list is not divided into sections with one page drawn from each. Their lengths would differ, pages of
    shorter sections would have a larger chance, and no error could be stated.
    """
    pages = -(-total // size)
    # The same plan must read the same events again. Nothing here is a secret.
    random_ = random.Random(f"{name} {period.first} {period.last} {total} {size}")  # noqa: S311
    return Portion(size, tuple(random_.sample(range(1, pages + 1), min(windows, pages))))


def _by_turns(lists: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """Yield the first item of each list, then the second of each, and so on, without repetitions."""
    yielded = set()
    for row in zip_longest(*lists):
        for item in row:
            if item is not None and item not in yielded:
                yielded.add(item)
                yield item
