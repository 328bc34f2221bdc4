"""States of a create, and the order of events, without a Polar."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from polar_iac.apply.creates import Creates, CreateState
from polar_iac.apply.events import Skipped
from polar_iac.apply.jobs import EventQueue, Job
from polar_iac.clock import StoppedError
from polar_iac.meter.live import LiveMeter
from polar_iac.plan.model import Bookkeeping
from polar_iac.polar.errors import ApiError, Fate, TransientError
from tests.support.build import PROJECT, live

JOB = Job("calls", None)
MARKER = f"{PROJECT}/calls"


class Clock:
    """A clock that does not move by itself."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Lookups:
    """Creates of one run, with a Polar that shows `meters` or fails."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.meters: list[LiveMeter] = []
        self.error: ApiError | None = None
        self.creates = Creates(self.find, {}, self.clock, lookup_timeout=10.0, resend_after=60.0)
        self.create = self.creates.begin(JOB, MARKER)

    def find(self, markers: Sequence[str]) -> list[LiveMeter]:
        assert markers == [MARKER]
        if self.error:
            raise self.error
        return self.meters

    def send(self, fate: Fate = "lost") -> None:
        self.creates.sent(self.create)
        self.creates.failed(self.create, TransientError("no answer", fate=fate))

    def lookup_at(self, time: float) -> CreateState:
        self.clock.time = time
        assert self.creates.lookup_is_due()
        lookup = self.creates.lookup(self.creates.begin_lookup())
        assert self.creates.lost[0].state is CreateState.LOOKING_UP
        decided = self.creates.decide(lookup)
        assert (self.create in decided) == (self.create.state is not CreateState.LOST)
        return self.create.state


@pytest.mark.parametrize(("fate", "deadline"), [("lost", 60.0), ("over", 10.0)])
def test_a_lost_create_is_sent_again_only_after_its_deadline(fate: Fate, deadline: float) -> None:
    run = Lookups()
    run.send(fate)
    assert run.create.state is CreateState.LOST
    assert run.lookup_at(deadline - 0.01) is CreateState.LOST
    assert run.lookup_at(deadline + 0.1) is CreateState.RESEND
    run.send(fate)
    assert run.lookup_at(2 * deadline + 1) is CreateState.UNCONFIRMED
    assert "create sent 2 times" in run.create.unconfirmed_message


def test_a_meter_with_the_marker_is_found_at_any_time() -> None:
    run = Lookups()
    run.send()
    run.meters = [live(1, "calls")]
    assert run.lookup_at(0.0) is CreateState.FOUND
    assert run.create.meter == run.meters[0]
    assert not run.creates.lost


def test_after_a_failed_lookup_nothing_is_sent_again() -> None:
    run = Lookups()
    run.send()
    run.error = TransientError("Polar failed with status 503")
    assert run.lookup_at(61.0) is CreateState.UNCONFIRMED


def test_a_lookup_says_nothing_about_a_create_that_was_lost_after_it_began() -> None:
    run = Lookups()
    run.creates.lookup_timeout = run.creates.resend_after = 0.0
    run.creates.begin(Job("other", None), f"{PROJECT}/other")
    lookup = run.creates.lookup([MARKER])
    run.send()
    assert run.creates.decide(lookup) == []
    assert run.create.state is CreateState.LOST


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ApiError("refused", status=422), CreateState.NOT_CREATED),
        (TransientError("no connection", fate="not-sent"), CreateState.UNCONFIRMED),
        (StoppedError("SIGINT"), CreateState.UNCONFIRMED),
    ],
)
def test_an_earlier_post_that_may_still_land_keeps_a_create_unconfirmed(
    error: ApiError | StoppedError, state: CreateState
) -> None:
    run = Lookups()
    run.send()
    run.lookup_at(61.0)
    run.creates.sent(run.create)
    run.creates.failed(run.create, error)
    assert run.create.state is state


def test_events_come_in_the_order_of_their_jobs() -> None:
    jobs = [Job(key, None, [Bookkeeping(key, "adopt", "")]) for key in "abcd"]
    first, second, third, fourth = jobs
    queue = EventQueue(jobs)
    queue.put(third, Skipped("c", "create", ""))
    assert list(queue.ready()) == []
    queue.put(first, Skipped("a", "create", ""))
    assert [event.key for event in queue.ready() if isinstance(event, Skipped)] == ["a"]
    queue.postpone(second)
    assert [event.key for event in queue.ready() if isinstance(event, Skipped)] == ["c"]
    queue.put(fourth, Skipped("d", "create", ""))
    assert [event.key for event in queue.rest() if isinstance(event, Skipped)] == ["d"]
