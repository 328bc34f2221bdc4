"""Trials that try to refute what the decision procedure claims of two random filters, by random events."""

from __future__ import annotations

from collections import Counter
from random import Random

from polar_iac.meter import meaning
from polar_iac.meter.meaning.building import is_ingestible
from polar_iac.meter.meaning.events import Event, QueryError
from polar_iac.meter.meaning.filters import Matcher, compile_filter
from tests.support.random_meaning import Json, changed, clauses_of, random_event, random_filter

Tally = Counter[str]
"""Number of times that each claim was made, by name and answer, and of pairs of filter and event tried."""


def sql(matcher: Matcher, event: Event) -> bool | None:
    """True if SQL matches; None where the query fails."""
    try:
        return matcher.sql(event)
    except QueryError:
        return None


class Claims:
    """Everything that is claimed of two filters."""

    def __init__(self, one: Json, other: Json) -> None:
        self.one, self.other = one, other
        self.first, self.second = compile_filter(one), compile_filter(other)
        self.never, self.always = meaning.never(one), meaning.always(one)
        self.implies, self.overlap = meaning.implies(one, other), meaning.overlap(one, other)
        self.bill_alike, self.count_alike = meaning.bill_alike(one, other), meaning.count_alike(one, other)
        self.equivalent = meaning.equivalent(one, other)
        self.witness, self.difference = meaning.witness(one), meaning.difference(one, other)
        self.ingestible = meaning.ingestible_witness(one)

    def hold_together(self) -> None:
        """Hold that examples are what they are said to be, and that no two answers contradict each other."""
        assert (self.witness is not None) == (self.never is False)
        assert (self.difference is not None) == (self.implies is False)
        for example, missed in (
            (self.witness, False),
            (self.difference, True),
            (self.ingestible.event, False),
        ):
            if example is not None:
                assert self.first.billing(Event.from_json(example))
                assert not (missed and self.second.billing(Event.from_json(example)))
        if self.ingestible.event is not None:
            assert self.witness is not None
            assert is_ingestible(self.ingestible.event)
            assert is_ingestible(self.witness)
        assert not (self.never and (self.always or self.overlap or self.implies is False))
        assert not (self.equivalent and (self.bill_alike is False or self.count_alike is False))
        assert not (self.equivalent is False and self.bill_alike and self.count_alike)

    def hold_for(self, data: Json) -> None:
        """Hold that an event refutes nothing."""
        event = Event.from_json(data)
        first, second = self.first.billing(event), self.second.billing(event)
        said = f"{self.one} {self.other} {data}"
        assert not (self.never and first), f"never: {said}"
        assert not (self.always and not first), f"always: {said}"
        assert not (self.implies and first and not second), f"implies: {said}"
        assert not (self.overlap is False and first and second), f"overlap: {said}"
        assert not ((self.bill_alike or self.equivalent) and first != second), f"alike: {said}"
        if self.ingestible.status == "none" and is_ingestible(data):
            assert not first, f"ingestible: {said}"
        if self.count_alike or self.equivalent:
            counted = sql(self.first, event), sql(self.second, event)
            assert None in counted or counted[0] == counted[1], f"counted alike: {said}"

    def tally(self) -> Tally:
        names = ("never", "always", "implies", "overlap", "bill_alike", "count_alike", "equivalent")
        return Counter(f"{name} {getattr(self, name)}" for name in names)


def refute(seed: int, events: int) -> Tally:
    """Try to refute what is claimed of two filters by that many events; raises AssertionError if one does."""
    random = Random(seed)
    one = random_filter(random)
    other = changed(random, one) if random.random() < 0.7 else random_filter(random)
    claims = Claims(one, other)
    claims.hold_together()
    near = [*clauses_of(one), *clauses_of(other)]
    for _ in range(events):
        claims.hold_for(random_event(random, near))
    return claims.tally() + Counter({"pairs": 2 * events})
