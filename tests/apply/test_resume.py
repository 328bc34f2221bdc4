"""What a run finds that others left: creates to find, duplicates to settle, lockfiles that moved on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from polar_iac.apply.duplicates import no_duplicates, settle_duplicates
from polar_iac.apply.events import Applied, Failed, Skipped
from polar_iac.apply.resume import found_creates, may_still_show
from polar_iac.errors import PolarIacError
from polar_iac.files import state_directory
from polar_iac.meter.live import NOTHING_MADE, LiveMeter, Made
from polar_iac.meter.record import Record
from polar_iac.polar.client import PolarClient
from polar_iac.polar.errors import TransientError
from polar_iac.polar.retry import RetryPolicy
from polar_iac.state import journal, lockfile
from polar_iac.state.journal import Journal
from polar_iac.state.journal_state import JournalState
from polar_iac.state.lockfile import Lockfile
from tests.support.build import (
    NOW,
    ORGANIZATION,
    PROJECT,
    desired,
    identifier,
    live,
    meter,
    record,
    spec,
    spec_of,
)
from tests.support.fault_trials import faulty_polar
from tests.support.served_polar import Served
from tests.support.workspace import Room

LONG_AGO = NOW - timedelta(days=30)


@pytest.fixture
def client(polar: Served) -> Iterator[PolarClient]:
    with PolarClient(polar.url, "polar_oat_test", retry=RetryPolicy(first_wait=0.001)) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "meters.sandbox.lock.json"
    state_directory(path)
    return path


def made(client: PolarClient, key: str = "calls", **fields: Any) -> LiveMeter:
    fields = {**fields, "metadata": {**fields.get("metadata", {}), "polar_iac": f"{PROJECT}/{key}"}}
    return client.create_meter(meter(**fields))


def opened(path: Path, **meters: Record) -> Journal:
    return Journal(journal.path_for(path), Lockfile("sandbox", None, PROJECT, meters))


def active(client: PolarClient) -> set[str]:
    return {meter.id for meter in client.list_meters() if not meter.archived}


class TestDuplicatesOfOneRun:
    def settle(
        self,
        client: PolarClient,
        story: Journal,
        at_start: dict[str, Record] | None = None,
        live: list[LiveMeter] | None = None,
    ) -> list[Applied | Failed | Skipped]:
        found = client.list_meters() if live is None else live
        own = set(story.created)
        return settle_duplicates(found, own, PROJECT, at_start or {}, {"calls": spec()}, client, story)

    def test_the_oldest_wins_and_the_loser_gives_its_marker_up(self, client: PolarClient, path: Path) -> None:
        theirs, ours = made(client), made(client, metadata={"team": "ai"})
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), answer="created")
            assert self.settle(client, story) == [Applied("calls", "settle", ours.id)]
            assert story.meters["calls"] == Record(theirs.id, spec())
            assert no_duplicates(client.list_meters(), story)
        assert active(client) == {theirs.id}
        loser = client.get_meter(ours.id)
        assert (loser.marker, dict(spec_of(loser).metadata)) == (None, {"team": "ai"})

    def test_the_winner_is_the_lockfiles_however_young(self, client: PolarClient, path: Path) -> None:
        ours, theirs = made(client), made(client)
        with opened(path, calls=Record(theirs.id, spec())) as story:
            story.record("calls", Record(ours.id, spec()), answer="created")
            events = self.settle(client, story, {"calls": Record(theirs.id, spec())})
            assert events == [Applied("calls", "settle", ours.id)]
        assert active(client) == {theirs.id}

    def test_what_a_stopped_run_put_into_the_lockfile_is_no_other_runs_word(
        self, client: PolarClient, path: Path
    ) -> None:
        """It was created, folded into the lockfile, and never swept: the other run knows nothing of it."""
        theirs, ours = made(client), made(client)
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), answer="created")
            story.finish(path, NOW)
        recorded = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), recorded) as story:
            assert self.settle(client, story, dict(recorded.meters)) == [Applied("calls", "settle", ours.id)]
        assert active(client) == {theirs.id}

    def test_what_others_made_is_left_to_them(self, client: PolarClient, path: Path) -> None:
        ours, theirs = made(client), made(client)
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), answer="created")
            (event,) = self.settle(client, story)
        assert isinstance(event, Skipped)
        assert theirs.id in event.reason
        assert active(client) == {ours.id, theirs.id}

    def test_nobody_gives_way_to_one_that_is_gone(self, client: PolarClient, path: Path) -> None:
        """The list is older than the other run's own way out."""
        theirs, ours = made(client), made(client)
        live = client.list_meters()
        client.update_meter(theirs.id, {"is_archived": True, "metadata": {}})
        with opened(path) as story:
            story.record("calls", Record(ours.id, spec()), answer="created")
            (event,) = self.settle(client, story, live=live)
            assert isinstance(event, Skipped)
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
            story.record("calls", Record(ours.id, spec()), answer="created")
            assert [type(event) for event in self.settle(client, story)] == [Failed]
            story.finish(path, NOW)
        recorded = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), recorded) as story:
            assert set(story.created) == {ours.id}
            assert not no_duplicates(client.list_meters(), story)
            assert self.settle(client, story, dict(recorded.meters)) == [Applied("calls", "settle", ours.id)]
            assert no_duplicates(client.list_meters(), story)
        assert active(client) == {theirs.id}

    def test_a_meter_recorded_under_another_key_is_no_twin(self, client: PolarClient, path: Path) -> None:
        """Its marker is old: its own key's next apply writes it again."""
        moved, ours = made(client), made(client)
        with opened(path, other=Record(moved.id, spec())) as story:
            story.record("calls", Record(ours.id, spec()), answer="created")
            assert self.settle(client, story) == []
            assert story.meters["calls"].id == ours.id
        assert active(client) == {moved.id, ours.id}


class TestResuming:
    def resume(self, client: PolarClient, story: Journal) -> None:
        for key, (found, answer) in found_creates(client.list_meters(), story).items():
            story.record(key, found, answer=answer)

    def test_what_is_found_is_recorded_as_far_as_it_is_known(self, client: PolarClient, path: Path) -> None:
        with opened(path) as story:
            for key in ("same", "other", "none"):
                story.intend(key, f"{PROJECT}/{key}", spec(), LONG_AGO)
            same, other = made(client, "same"), made(client, "other", name="Declared otherwise")
            self.resume(client, story)
            assert story.meters == {"same": Record(same.id, spec()), "other": Record(other.id, None)}
            # What is not found may still land, and so may one whose marker another run's meter bears.
            assert set(story.unresolved) == {"none"}
            assert {key: len(story.intents(key)) for key in ("same", "other", "none")} == {
                "same": 0,
                "other": 1,
                "none": 1,
            }

    def test_what_was_sent_long_ago_shows_at_once_or_never(self, path: Path) -> None:
        with opened(path, recorded=record(1)) as story:
            for key, age in (("now", 0), ("lately", 69), ("long-ago", 71), ("recorded", 0)):
                story.intend(key, f"{PROJECT}/{key}", spec(), NOW - timedelta(seconds=age))
            assert may_still_show(story, NOW, 70.0) == {"now", "lately"}

    def test_a_meter_recorded_under_another_key_is_not_found(self, client: PolarClient, path: Path) -> None:
        moved = made(client)
        with opened(path, other=Record(moved.id, spec())) as story:
            story.intend("calls", f"{PROJECT}/calls", spec(), LONG_AGO)
            self.resume(client, story)
            assert set(story.meters) == {"other"}


class TestUnansweredCreates:
    """What is known of a create that got no answer: what it may have made, and for how long."""

    def test_a_meter_is_known_by_marker_spec_and_time(self, path: Path) -> None:
        with opened(path) as story:
            story.intend("calls", f"{PROJECT}/calls", spec(), NOW)
            later, earlier = "2026-01-02T00:00:01.000000Z", "2026-01-01T23:59:59.000000Z"
            ours = live(1, created_at=later)
            others = [
                live(2, created_at=earlier),
                live(3, created_at=later, name="Another"),
                live(4, "other", created_at=later),
            ]
            assert story.made([ours, *others]) == Made(landed=frozenset({ours.id}))

    def test_one_answer_answers_one_create(self, path: Path) -> None:
        """The first was lost, the second answered: what the first made may still appear."""
        with opened(path) as story:
            for second in range(2):
                story.intend("calls", f"{PROJECT}/calls", spec(), NOW + timedelta(seconds=second))
            story.record("calls", record(1), answer="created")
            assert [i.at for i in story.intents("calls")] == ["2026-01-02T00:00:00.000000Z"]
            story.finish(path, NOW)
        state = lockfile.read(path, "sandbox", PROJECT)
        assert set(state.meters) == {"calls"}
        assert len(journal.read(journal.path_for(path), state).intents["calls"]) == 1

    def test_after_a_day_it_can_make_nothing_any_more(self, path: Path) -> None:
        with opened(path) as story:
            story.intend("calls", f"{PROJECT}/calls", spec(), NOW)
            story.finish(path, NOW + timedelta(hours=23))
        state = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), state) as story:
            assert set(story.unresolved) == {"calls"}
            story.finish(path, NOW + timedelta(hours=25))
        assert not journal.path_for(path).exists()

    def test_a_journal_of_an_earlier_version_is_looked_for_and_never_settles(self, path: Path) -> None:
        file, state = journal.path_for(path), Lockfile("sandbox", None, PROJECT)
        with Journal(file, state) as story:
            story.intend("calls", f"{PROJECT}/calls", spec(), NOW)
        file.write_text(re.sub(r',"at":"[^"]*"', "", file.read_text()))
        story_ = journal.read(file, state)
        assert set(story_.unresolved) == {"calls"}
        assert story_.made([live(1, created_at="2026-02-01T00:00:00.000000Z")]) == NOTHING_MADE

    def test_a_renamed_key_drops_no_record_of_another_meter(self, path: Path) -> None:
        """Item: with `moved` the journal dropped a record by key, although it held another id."""
        with opened(path, a=record(1), b=record(2)) as story:
            story.record("b", record(2, name="New"), was="a")
            story.forget("a", identifier(9))
            assert {key: r.id for key, r in story.meters.items()} == {"a": identifier(1), "b": identifier(2)}


class TestALockfileReplacedDuringARun:
    """Item: a lockfile replaced while an apply runs is merged when it is written."""

    def finish(self, path: Path, theirs: dict[str, Record]) -> dict[str, Record]:
        begun = {"kept": record(1), "ours": record(2), "both": record(3), "gone": record(4)}
        lockfile.save(path, Lockfile("sandbox", ORGANIZATION, PROJECT, begun))
        with Journal(journal.path_for(path), lockfile.read(path, "sandbox", PROJECT)) as story:
            story.record("ours", record(2, name="New"))
            story.record("both", record(3, name="Ours"))
            story.record("new", record(5), answer="created")
            story.forget("gone", identifier(4))
            story.duplicates_settled()
            lockfile.save(path, Lockfile("sandbox", ORGANIZATION, PROJECT, begun | theirs))
            story.finish(path, NOW)
        assert not journal.path_for(path).exists()
        return dict(lockfile.read(path, "sandbox", PROJECT).meters)

    def test_what_each_did_is_kept(self, path: Path) -> None:
        merged = self.finish(path, {"kept": record(1, name="Theirs"), "pulled": record(6)})
        assert {key: (r.id, r.spec and r.spec.name) for key, r in merged.items()} == {
            "kept": (identifier(1), "Theirs"),
            "ours": (identifier(2), "New"),
            "both": (identifier(3), "Ours"),
            "new": (identifier(5), "API calls"),
            "pulled": (identifier(6), "API calls"),
        }

    def test_of_one_meter_the_runs_record_is_the_later_one(self, path: Path) -> None:
        merged = self.finish(path, {"both": record(3, name="Theirs", frozen=True)})
        assert merged["both"] == record(3, name="Ours", frozen=True)

    def test_of_two_meters_the_lockfiles_is_the_newer_word(self, path: Path) -> None:
        merged = self.finish(path, {"both": record(7), "new": record(8)})
        assert (merged["both"].id, merged["new"].id) == (identifier(7), identifier(8))

    def test_an_id_has_one_key(self, path: Path) -> None:
        assert set(self.finish(path, {"elsewhere": record(5)})) == {"kept", "ours", "both", "elsewhere"}

    def test_one_that_cannot_be_read_leaves_all_in_the_journal(self, path: Path) -> None:
        state = Lockfile("sandbox", ORGANIZATION, PROJECT, {"a": record(1)})
        lockfile.save(path, state)
        with Journal(journal.path_for(path), state) as story:
            story.record("new", record(5))
            path.write_text("<<<<<<< ours\n")
            with pytest.raises(PolarIacError, match="conflict"):
                story.finish(path, NOW)
        assert set(journal.read(journal.path_for(path), state).meters) == {"a", "new"}


class TestALockfileThatMovedOn:
    """A run died, others went on, and their lockfile was pulled: what it says is the newer word."""

    def left(self, path: Path, **meters: Record) -> Path:
        story = opened(path, **meters)
        story.record("calls", record(1), answer="created")
        story.intend("lost", f"{PROJECT}/lost", spec(), NOW)
        story.record("frozen", record(3, frozen=True))
        story.learn_organization(ORGANIZATION)
        return journal.path_for(path)

    def read(self, path: Path, **meters: Record) -> JournalState:
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
            story.forget("other", identifier(9))
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
        assert [type(event) for event in room.apply(gone)] == [Applied]
        again = room.plan(gone)
        assert not again.changes
        assert not again.bookkeeping
        assert set(room.recorded().meters) == {"z"}


def test_a_second_meter_that_was_just_archived_blocks_nobody(tmp_path: Path) -> None:
    """Another run has settled it, and the replica does not show that yet."""
    with faulty_polar() as faulty:
        room = Room(faulty.url, tmp_path, patience=900.0)
        with room.client, PolarClient(faulty.url, "polar_oat_other") as other:
            first, second = made(other), made(other)
            faulty.hold(reads=2)
            other.update_meter(second.id, {"is_archived": True, "metadata": {}})
            events = room.apply(desired({"calls": meter()}))
            assert events == [Applied("calls", "adopt", first.id)]
            assert faulty.served["GET lag"] == 2


def test_duplicates_that_stay_are_named(tmp_path: Path, polar: Served, client: PolarClient) -> None:
    room = Room(polar.url, tmp_path)
    with room.client:
        duplicates = made(client), made(client)
        (event,) = room.apply(desired({"calls": meter()}))
        assert isinstance(event, Skipped)
        assert all(duplicate.id in event.reason for duplicate in duplicates)


def test_plan_and_apply_see_a_lost_create_alike(tmp_path: Path, polar: Served, client: PolarClient) -> None:
    """What the journal knows of it is the base of a merge for both: the digest of a plan is not stale."""
    room = Room(polar.url, tmp_path)
    with room.client:
        with opened(room.lockfile) as story:
            story.intend("calls", f"{PROJECT}/calls", spec(metadata={"plan": 1}), LONG_AGO)
        made(client, metadata={"plan": 1})
        renamed = desired({"calls": meter(name="Renamed")})
        (change,) = room.plan(renamed).changes
        assert [field.path for field in change.fields] == ["name", "metadata.plan"]
        assert room.apply(renamed) == [Applied("calls", "update", change.id or "")]
        assert not room.plan(renamed).changes
