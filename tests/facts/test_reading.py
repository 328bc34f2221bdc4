"""Which events are read for several meters, within a number of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from polar_iac.facts.model import EventsRead
from polar_iac.facts.period import Period
from polar_iac.facts.reading import FEWEST_WINDOWS, PAGE, SAMPLE, Want, read_events
from tests.support.sampling_trials import Page

PERIOD = Period.before(date(2026, 11, 25))


@dataclass
class Listed:
    """A list of events by name, in which an event is its own place, and what was asked of it."""

    totals: Mapping[str, int]
    ends_after: int = 10**9
    moved: int = 0
    """Events by which each page but the first begins too early."""
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def page(self, name: str, start: str, end: str, number: int, size: int) -> Page | None:
        assert (start, end) == (PERIOD.after, PERIOD.until)
        if len(self.asked) >= self.ends_after:
            return None
        self.asked.append((name, number, size))
        first = max((number - 1) * size - self.moved, 0)
        places = range(first, min(first + size, self.totals[name]))
        return Page(
            self.totals[name] if places else 0,
            [{"timestamp": f"{n:09}"} for n in places],
            [str(n) for n in places],
        )

    def read(self, *wants: tuple[str, ...], requests: int = 55) -> dict[str, EventsRead]:
        named = [Want(f"m{n}", names) for n, names in enumerate(wants)]
        return read_events(self.page, named, PERIOD, "2026-11-25T00:00:00Z", requests)


def places(read: EventsRead) -> list[int]:
    return [int(event["timestamp"]) for window in read.windows for event in window.events]


def test_events_that_fit_are_all_read_and_once() -> None:
    listed = Listed({"call": 1_000})
    read = listed.read(("call",))["call"]
    assert places(read) == list(range(1_000))
    assert (read.read, read.total) == (1_000, 1_000)
    assert sorted(listed.asked) == [("call", number, PAGE) for number in range(1, 11)]


def test_no_events_take_one_request() -> None:
    listed = Listed({"call": 0})
    read = listed.read(("call",))["call"]
    assert (read.read, read.total, len(listed.asked)) == (0, 0, 1)


def test_a_sample_is_many_small_windows_over_the_whole_range() -> None:
    listed = Listed({"call": 81_233})
    read = listed.read(("call",))["call"]
    assert (read.read, read.total, len(read.windows)) == (SAMPLE, 81_233, 50)
    tenths = {place * 10 // 81_233 for place in places(read)}
    assert tenths == set(range(10))
    assert len(listed.asked) == 51


def test_the_same_plan_reads_the_same_events() -> None:
    first, again = (Listed({"call": 81_233}).read(("call",))["call"] for _ in range(2))
    assert first == again


def test_events_are_read_whole_where_that_costs_no_more_than_a_sample() -> None:
    read = Listed({"call": 4_000}).read(("call",))["call"]
    assert read.read == read.total == 4_000


def test_two_meters_share_the_requests_and_what_both_need() -> None:
    listed = Listed({"a": 81_233, "b": 300, "c": 50_000})
    reads = listed.read(("a", "b"), ("b", "c"), requests=40)
    assert len(listed.asked) <= 40
    assert reads["b"].read == 300
    assert all(len(reads[name].windows) >= 10 for name in "ac")
    assert len(set(listed.asked)) == len(listed.asked)


def test_meters_of_one_name_have_all_requests_for_it() -> None:
    read = Listed({"call": 81_233}).read(("call",), ("call",), ("call",))["call"]
    assert len(read.windows) == 50


def test_where_requests_end_what_was_read_is_spread_as_well() -> None:
    listed = Listed({"call": 81_233}, ends_after=21)
    read = listed.read(("call",))["call"]
    assert len(read.windows) == 20
    assert {place * 4 // 81_233 for place in places(read)} == set(range(4))
    assert [w.start for w in read.windows] == sorted(w.start for w in read.windows)


def test_a_name_that_was_to_be_read_whole_is_a_random_sample_where_requests_end() -> None:
    """The first page is read in any case, and is part of the sample only where its turn came."""
    whole = Listed({"call": 900})
    whole.read(("call",))
    order = [number for _, number, _ in whole.asked]
    cut = Listed({"call": 900}, ends_after=4)
    read = cut.read(("call",))["call"]
    assert 3 <= len(read.windows) <= 4
    assert {place // PAGE + 1 for place in places(read)} <= set(order[:4])


def test_names_that_could_not_be_asked_for_are_missing() -> None:
    reads = Listed({"a": 5, "b": 5, "c": 5}).read(("a", "b"), ("c",), requests=2)
    assert set(reads) == {"a", "c"}


def test_an_event_that_moved_to_the_next_page_is_read_once_and_not_all_are_read() -> None:
    read = Listed({"call": 300}, moved=1).read(("call",))["call"]
    assert len(set(places(read))) == len(places(read)) == read.read == 299


def test_an_event_that_came_meanwhile_is_read_as_well() -> None:
    listed = Listed({"call": 299})

    def page(name: str, start: str, end: str, number: int, size: int) -> Page | None:
        found = listed.page(name, start, end, number, size)
        listed.totals = {"call": 300}
        return found

    read = read_events(page, [Want("m", ("call",))], PERIOD, "2026-11-25T00:00:00Z", 55)["call"]
    assert (read.read, read.total) == (300, 300)


TOTALS = st.sampled_from([0, 1, 99, 100, 101, 500, 999, 1_001, 4_000, 30_000])


@given(
    st.fixed_dictionaries(dict.fromkeys("abcd", TOTALS)),
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, unique=True), max_size=4),
    st.integers(0, 60),
)
def test_never_more_requests_than_there_are(
    totals: dict[str, int], wants: Sequence[Sequence[str]], requests: int
) -> None:
    listed = Listed(totals)
    reads = listed.read(*map(tuple, wants), requests=requests)
    assert len(listed.asked) <= requests
    assert len(set(listed.asked)) == len(listed.asked)
    for name, read in reads.items():
        assert read.total == totals[name]
        assert read.read <= read.total
        assert len(set(places(read))) == len(places(read))
    if wants and requests >= 60 and all(total <= 100 for total in totals.values()):
        assert all(read.read == read.total for read in reads.values())


def test_fewest_windows_are_reached_by_a_usual_share() -> None:
    reads = Listed({str(n): 30_000 for n in range(7)}).read(*[(str(n),) for n in range(7)], requests=50)
    assert all(len(read.windows) >= FEWEST_WINDOWS for read in reads.values())
