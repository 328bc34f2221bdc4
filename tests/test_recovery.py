"""What a run finds that others left: stories to finish, twins to settle, lockfiles that moved on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polar_iac import journal, lockfile
from polar_iac.api import PolarClient, TransientError
from polar_iac.errors import PolarIacError, RefusedError
from polar_iac.journal import Journal
from polar_iac.lockfile import Lockfile
from polar_iac.meter import LiveMeter, Record
from polar_iac.plan import Done, Failed, Left
from polar_iac.recovery import finish_story, settle_twins
from polar_iac.waiting import SystemClock
from tests.build import ORGANIZATION, PROJECT, desired, identifier, meter, record, spec
from tests.faults import faulty_polar
from tests.room import Room
from tests.serve import Served


@pytest.fixture
def client(polar: Served) -> Iterator[PolarClient]:
    with PolarClient(polar.url, "polar_oat_test", retry_wait=0.001) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "meters.sandbox.lock.json"
    lockfile.state_directory(path)
    return path


def made(client: PolarClient, key: str = "calls", **fields: Any) -> LiveMeter:
    fields = {**fields, "metadata": {**fields.get("metadata", {}), "polar_iac": f"{PROJECT}/{key}"}}
    return client.create_meter(meter(**fields))


def opened(path: Path, **meters: Record) -> Journal:
    return Journal(journal.path_for(path), Lockfile("sandbox", None, PROJECT, meters))


def active(client: PolarClient) -> set[str]:
    return {meter.id for meter in client.list_meters() if not meter.archived}


class TestTwins:
    def settle(
        self,
        client: PolarClient,
        story: Journal,
        at_start: dict[str, Record] | None = None,
        live: list[LiveMeter] | None = None,
    ) -> list[Done | Failed | Left]:
        found = client.list_meters() if live is None else live
        return settle_twins(found, PROJECT, at_start or {}, {"calls": spec()}, client, story)

    def test_the_oldest_wins_and_the_loser_gives_its_marker_up(self, client: PolarClient, path: Path) -> None:
        theirs, ours = made(client), made(client, metadata={"team": "ai"})
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), created=True)
            assert self.settle(client, story) == [Done("calls", "retire", ours.id)]
            assert story.meters["calls"] == Record(theirs.id, spec())
            assert not story.created
        assert active(client) == {theirs.id}
        loser = client.get_meter(ours.id)
        assert (loser.marker, dict(loser.spec.metadata)) == (None, {"team": "ai"})

    def test_the_winner_is_the_lockfiles_however_young(self, client: PolarClient, path: Path) -> None:
        ours, theirs = made(client), made(client)
        with opened(path, calls=Record(theirs.id, spec())) as story:
            story.record("calls", Record(ours.id, spec()), created=True)
            events = self.settle(client, story, {"calls": Record(theirs.id, spec())})
            assert events == [Done("calls", "retire", ours.id)]
        assert active(client) == {theirs.id}

    def test_what_a_stopped_run_put_into_the_lockfile_is_no_other_runs_word(
        self, client: PolarClient, path: Path
    ) -> None:
        """It was created, folded into the lockfile, and never swept: the other run knows nothing of it."""
        theirs, ours = made(client), made(client)
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), created=True)
            story.finish(path)
        recorded = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), recorded) as story:
            assert self.settle(client, story, dict(recorded.meters)) == [Done("calls", "retire", ours.id)]
        assert active(client) == {theirs.id}

    def test_what_others_made_is_left_to_them(self, client: PolarClient, path: Path) -> None:
        ours, theirs = made(client), made(client)
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), created=True)
            (event,) = self.settle(client, story)
        assert isinstance(event, Left)
        assert theirs.id in event.reason
        assert active(client) == {ours.id, theirs.id}

    def test_nobody_gives_way_to_one_that_is_gone(self, client: PolarClient, path: Path) -> None:
        """The list is older than the other run's own way out."""
        theirs, ours = made(client), made(client)
        live = client.list_meters()
        client.update_meter(theirs.id, {"is_archived": True, "metadata": {}})
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), created=True)
            (event,) = self.settle(client, story, live=live)
            assert isinstance(event, Left)
            assert set(story.created) == {ours.id}
        assert active(client) == {ours.id}

    def test_one_that_could_not_be_archived_is_tried_again_by_the_next_run(
        self, client: PolarClient, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs, ours = made(client), made(client)

        def refuse(*_: Any) -> LiveMeter:
            raise TransientError("Polar failed with status 503", status=503)

        with opened(path) as story, monkeypatch.context() as patched:
            patched.setattr(client, "update_meter", refuse)
            story.record("calls", Record(ours.id, spec()), created=True)
            assert [type(event) for event in self.settle(client, story)] == [Failed]
            story.finish(path)
        recorded = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), recorded) as story:
            assert set(story.created) == {ours.id}
            assert self.settle(client, story, dict(recorded.meters)) == [Done("calls", "retire", ours.id)]
            story.finish(path)
        assert active(client) == {theirs.id}
        assert not journal.path_for(path).exists()

    def test_a_meter_recorded_under_another_key_is_no_twin(self, client: PolarClient, path: Path) -> None:
        """Its marker is old: its own key's next apply writes it again."""
        moved, ours = made(client), made(client)
        with opened(path, other=Record(moved.id, spec())) as story:
            story.record("calls", Record(ours.id, spec()), created=True)
            assert self.settle(client, story) == []
            assert story.meters["calls"].id == ours.id
        assert active(client) == {moved.id, ours.id}


class TestFinishingAStory:
    def finish(self, client: PolarClient, story: Journal, confirm: Any = lambda _: None) -> None:
        finish_story(client, story, confirm, 0.0, SystemClock())

    def test_what_is_found_is_recorded_as_far_as_it_is_known(self, client: PolarClient, path: Path) -> None:
        same, other = made(client, "same"), made(client, "other", name="Declared otherwise")
        with opened(path) as story:
            for key in ("same", "other", "none"):
                story.intend(key, f"{PROJECT}/{key}", spec())
            self.finish(client, story)
            assert story.meters == {"same": Record(same.id, spec()), "other": Record(other.id, None)}
            assert not story.unresolved

    def test_nothing_of_another_organisation_is_recorded(self, client: PolarClient, path: Path) -> None:
        made(client)

        def confirm(found: list[LiveMeter]) -> None:
            if found:
                raise RefusedError("another organisation's")

        with opened(path) as story:
            story.intend("calls", f"{PROJECT}/calls", spec())
            with pytest.raises(RefusedError):
                self.finish(client, story, confirm)
            assert not story.meters
            assert set(story.unresolved) == {"calls"}

    def test_a_meter_recorded_under_another_key_is_not_found(self, client: PolarClient, path: Path) -> None:
        moved = made(client)
        with opened(path, other=Record(moved.id, spec())) as story:
            story.intend("calls", f"{PROJECT}/calls", spec())
            self.finish(client, story)
            assert set(story.meters) == {"other"}


class TestALockfileThatMovedOn:
    """A run died, others went on, and their lockfile was pulled: what it says is the newer word."""

    def left(self, path: Path, **meters: Record) -> Path:
        story = opened(path, **meters)
        story.record("calls", record(1), created=True)
        story.intend("lost", f"{PROJECT}/lost", spec())
        story.record("frozen", record(3, frozen=True))
        story.learn_organization(ORGANIZATION)
        return journal.path_for(path)

    def read(self, path: Path, **meters: Record) -> journal.Story:
        return journal.read(path, Lockfile("sandbox", None, PROJECT, meters))

    def test_what_only_the_journal_knows_is_kept(self, path: Path) -> None:
        story = self.read(self.left(path), other=record(9))
        assert set(story.meters) == {"calls", "frozen", "other"}
        assert set(story.unresolved) == {"lost"}
        assert set(story.created) == {identifier(1)}
        assert story.organization_id == ORGANIZATION

    def test_a_key_or_a_meter_that_the_lockfile_has_is_the_lockfiles(self, path: Path) -> None:
        newer = {"renamed": record(1), "lost": record(7), "frozen": record(3, name="Newer")}
        story = self.read(self.left(path), **newer)
        assert story.meters == {**newer, "frozen": record(3, name="Newer", frozen=True)}
        assert not story.unresolved

    def test_the_same_lockfile_is_gone_on_from(self, path: Path) -> None:
        before = {"calls": record(1, name="Before"), "old": record(2)}
        story = self.read(self.left(path, **before), **before)
        assert set(story.meters) == {"calls", "old", "frozen"}
        assert story.meters["calls"] == record(1)

    def test_a_run_that_goes_on_makes_the_journal_its_own(self, path: Path) -> None:
        file = self.left(path)
        newer = Lockfile("sandbox", None, PROJECT, {"other": record(9)})
        with Journal(file, newer) as story:
            story.forget("other")
            assert journal.read(file, newer).meters == story.meters
            assert set(story.meters) == {"calls", "frozen"}
            assert set(story.unresolved) == {"lost"}

    @pytest.mark.parametrize(("environment", "project"), [("production", PROJECT), ("sandbox", "other")])
    def test_another_environment_or_project_is_told(self, path: Path, environment: str, project: str) -> None:
        file = self.left(path)
        with pytest.raises(PolarIacError, match="this journal is of the"):
            journal.read(file, Lockfile(environment, None, project))


def test_a_renamed_key_keeps_the_fields_of_later_versions(tmp_path: Path, polar: Served) -> None:
    room = Room(polar.url, tmp_path)
    with room.client:
        room.apply(desired({"old": meter()}))
        state = room.recorded()
        old = state.meters["old"]
        later = Record(old.id, old.spec, extra={"later": {"n": 1}})
        lockfile.save(room.lockfile, Lockfile("sandbox", state.organization_id, PROJECT, {"old": later}))
        room.apply(desired({"new": meter()}, moved=[{"from": "old", "to": "new"}]))
        assert room.recorded().meters["new"].extra == {"later": {"n": 1}}


def test_a_moved_key_that_goes_altogether_is_forgotten_once(tmp_path: Path, polar: Served) -> None:
    room = Room(polar.url, tmp_path)
    with room.client:
        room.apply(desired({"a": meter(), "z": meter()}))
        gone = desired({"z": meter()}, moved=[{"from": "a", "to": "b"}])
        assert [type(event) for event in room.apply(gone)] == [Done]
        again = room.plan(gone)
        assert not again.changes
        assert not again.bookkeeping
        assert set(room.recorded().meters) == {"z"}


def test_a_second_meter_that_was_just_archived_blocks_nobody(tmp_path: Path) -> None:
    """Another run has settled it, and the replica does not show that yet."""
    with faulty_polar(lag=0.2) as faulty:
        room = Room(faulty.url, tmp_path, patience=5.0)
        with room.client, PolarClient(faulty.url, "polar_oat_other") as other:
            first, second = made(other), made(other)
            time.sleep(0.25)
            other.update_meter(second.id, {"is_archived": True, "metadata": {}})
            events = room.apply(desired({"calls": meter()}))
            assert events == [Done("calls", "adopt", first.id)]
            assert faulty.served["GET lag"]


def test_twins_that_stay_are_named(tmp_path: Path, polar: Served, client: PolarClient) -> None:
    room = Room(polar.url, tmp_path)
    with room.client:
        twins = made(client), made(client)
        (event,) = room.apply(desired({"calls": meter()}))
        assert isinstance(event, Left)
        assert all(twin.id in event.reason for twin in twins)
