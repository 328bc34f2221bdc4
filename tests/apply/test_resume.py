"""Leftovers of other runs: creates to find, duplicates to settle, lockfiles that moved on."""

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
from tests.support.workspace import Checkout

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
        open_journal: Journal,
        at_start: dict[str, Record] | None = None,
        live: list[LiveMeter] | None = None,
    ) -> list[Applied | Failed | Skipped]:
        meters = client.list_meters() if live is None else live
        own = set(open_journal.created)
        return settle_duplicates(
            meters, own, PROJECT, at_start or {}, {"calls": spec()}, client, open_journal
        )

    def test_the_oldest_wins_and_the_loser_gives_its_marker_up(self, client: PolarClient, path: Path) -> None:
        foreign, ours = made(client), made(client, metadata={"team": "ai"})
        with opened(path) as open_journal:
            open_journal.record("calls", Record(ours.id, spec()), answer="created")
            assert self.settle(client, open_journal) == [Applied("calls", "settle", ours.id)]
            assert open_journal.meters["calls"] == Record(foreign.id, spec())
            assert no_duplicates(client.list_meters(), open_journal)
        assert active(client) == {foreign.id}
        loser = client.get_meter(ours.id)
        assert (loser.marker, dict(spec_of(loser).metadata)) == (None, {"team": "ai"})

    def test_the_winner_is_the_lockfiles_however_young(self, client: PolarClient, path: Path) -> None:
        ours, foreign = made(client), made(client)
        with opened(path, calls=Record(foreign.id, spec())) as open_journal:
            open_journal.record("calls", Record(ours.id, spec()), answer="created")
            events = self.settle(client, open_journal, {"calls": Record(foreign.id, spec())})
            assert events == [Applied("calls", "settle", ours.id)]
        assert active(client) == {foreign.id}

    def test_a_record_of_the_stopped_run_does_not_make_its_meter_the_winner(
        self, client: PolarClient, path: Path
    ) -> None:
        """It was created, folded into the lockfile, and never swept: the other run knows nothing of it."""
        foreign, ours = made(client), made(client)
        with opened(path) as open_journal:
            open_journal.record("calls", Record(ours.id, spec()), answer="created")
            open_journal.finish(path, NOW)
        recorded = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), recorded) as open_journal:
            assert self.settle(client, open_journal, dict(recorded.meters)) == [
                Applied("calls", "settle", ours.id)
            ]
        assert active(client) == {foreign.id}

    def test_a_duplicate_of_others_is_not_archived(self, client: PolarClient, path: Path) -> None:
        ours, foreign = made(client), made(client)
        with opened(path) as open_journal:
            open_journal.record("calls", Record(ours.id, spec()), answer="created")
            (event,) = self.settle(client, open_journal)
        assert isinstance(event, Skipped)
        assert foreign.id in event.reason
        assert active(client) == {ours.id, foreign.id}

    def test_no_duplicate_gives_way_to_a_meter_that_is_gone(self, client: PolarClient, path: Path) -> None:
        """The list is older than the other run's own way out."""
        foreign, ours = made(client), made(client)
        live = client.list_meters()
        client.update_meter(foreign.id, {"is_archived": True, "metadata": {}})
        with opened(path) as open_journal:
            open_journal.record("calls", Record(ours.id, spec()), answer="created")
            (event,) = self.settle(client, open_journal, live=live)
            assert isinstance(event, Skipped)
            assert set(open_journal.created) == {ours.id}
        assert active(client) == {ours.id}

    def test_a_failed_archiving_of_a_duplicate_is_repeated_by_the_next_run(
        self, client: PolarClient, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        foreign, ours = made(client), made(client)

        def refuse(*_: Any) -> LiveMeter:
            raise TransientError("Polar failed with status 503", status=503)

        with opened(path) as open_journal, monkeypatch.context() as patched:
            patched.setattr(client, "update_meter", refuse)
            open_journal.record("calls", Record(ours.id, spec()), answer="created")
            assert [type(event) for event in self.settle(client, open_journal)] == [Failed]
            open_journal.finish(path, NOW)
        recorded = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), recorded) as open_journal:
            assert set(open_journal.created) == {ours.id}
            assert not no_duplicates(client.list_meters(), open_journal)
            assert self.settle(client, open_journal, dict(recorded.meters)) == [
                Applied("calls", "settle", ours.id)
            ]
            assert no_duplicates(client.list_meters(), open_journal)
        assert active(client) == {foreign.id}

    def test_a_meter_recorded_under_another_key_is_not_a_duplicate(
        self, client: PolarClient, path: Path
    ) -> None:
        """Its marker is old: its own key's next apply writes it again."""
        moved, ours = made(client), made(client)
        with opened(path, other=Record(moved.id, spec())) as open_journal:
            open_journal.record("calls", Record(ours.id, spec()), answer="created")
            assert self.settle(client, open_journal) == []
            assert open_journal.meters["calls"].id == ours.id
        assert active(client) == {moved.id, ours.id}


class TestResuming:
    def resume(self, client: PolarClient, open_journal: Journal) -> None:
        for key, (created, answer) in found_creates(client.list_meters(), open_journal).items():
            open_journal.record(key, created, answer=answer)

    def test_what_is_found_is_recorded_as_far_as_it_is_known(self, client: PolarClient, path: Path) -> None:
        with opened(path) as open_journal:
            for key in ("same", "other", "none"):
                open_journal.intend(key, f"{PROJECT}/{key}", spec(), LONG_AGO)
            same, other = made(client, "same"), made(client, "other", name="Declared otherwise")
            self.resume(client, open_journal)
            assert open_journal.meters == {"same": Record(same.id, spec()), "other": Record(other.id, None)}
            # What is not found may still land, and so may one whose marker another run's meter bears.
            assert set(open_journal.unresolved) == {"none"}
            assert {key: len(open_journal.intents(key)) for key in ("same", "other", "none")} == {
                "same": 0,
                "other": 1,
                "none": 1,
            }

    def test_a_create_sent_long_ago_can_no_longer_show_up(self, path: Path) -> None:
        with opened(path, recorded=record(1)) as open_journal:
            for key, age in (("now", 0), ("lately", 69), ("long-ago", 71), ("recorded", 0)):
                open_journal.intend(key, f"{PROJECT}/{key}", spec(), NOW - timedelta(seconds=age))
            assert may_still_show(open_journal, NOW, 70.0) == {"now", "lately"}

    def test_a_meter_recorded_under_another_key_is_not_found(self, client: PolarClient, path: Path) -> None:
        moved = made(client)
        with opened(path, other=Record(moved.id, spec())) as open_journal:
            open_journal.intend("calls", f"{PROJECT}/calls", spec(), LONG_AGO)
            self.resume(client, open_journal)
            assert set(open_journal.meters) == {"other"}


class TestUnansweredCreates:
    """A create without an answer: the meters that it may have made, and for how long it may make one."""

    def test_a_meter_is_known_by_marker_spec_and_time(self, path: Path) -> None:
        with opened(path) as open_journal:
            open_journal.intend("calls", f"{PROJECT}/calls", spec(), NOW)
            later, earlier = "2026-01-02T00:00:01.000000Z", "2026-01-01T23:59:59.000000Z"
            ours = live(1, created_at=later)
            others = [
                live(2, created_at=earlier),
                live(3, created_at=later, name="Another"),
                live(4, "other", created_at=later),
            ]
            assert open_journal.made([ours, *others]) == Made(landed=frozenset({ours.id}))

    def test_one_meter_answers_one_create(self, path: Path) -> None:
        """The first was lost, the second answered: what the first made may still appear."""
        with opened(path) as open_journal:
            for second in range(2):
                open_journal.intend("calls", f"{PROJECT}/calls", spec(), NOW + timedelta(seconds=second))
            open_journal.record("calls", record(1), answer="created")
            assert [i.at for i in open_journal.intents("calls")] == ["2026-01-02T00:00:00.000000Z"]
            open_journal.finish(path, NOW)
        state = lockfile.read(path, "sandbox", PROJECT)
        assert set(state.meters) == {"calls"}
        assert len(journal.read(journal.path_for(path), state).intents["calls"]) == 1

    def test_an_unanswered_create_is_dropped_after_a_day(self, path: Path) -> None:
        with opened(path) as open_journal:
            open_journal.intend("calls", f"{PROJECT}/calls", spec(), NOW)
            open_journal.finish(path, NOW + timedelta(hours=23))
        state = lockfile.read(path, "sandbox", PROJECT)
        with Journal(journal.path_for(path), state) as open_journal:
            assert set(open_journal.unresolved) == {"calls"}
            open_journal.finish(path, NOW + timedelta(hours=25))
        assert not journal.path_for(path).exists()

    def test_a_journal_of_an_earlier_version_is_looked_for_and_never_settles(self, path: Path) -> None:
        file, state = journal.path_for(path), Lockfile("sandbox", None, PROJECT)
        with Journal(file, state) as open_journal:
            open_journal.intend("calls", f"{PROJECT}/calls", spec(), NOW)
        file.write_text(re.sub(r',"at":"[^"]*"', "", file.read_text()))
        unfinished = journal.read(file, state)
        assert set(unfinished.unresolved) == {"calls"}
        assert unfinished.made([live(1, created_at="2026-02-01T00:00:00.000000Z")]) == NOTHING_MADE

    def test_a_renamed_key_drops_no_record_of_another_meter(self, path: Path) -> None:
        """A move drops no record by its key alone: the record may hold another id."""
        with opened(path, a=record(1), b=record(2)) as open_journal:
            open_journal.record("b", record(2, name="New"), was="a")
            open_journal.forget("a", identifier(9))
            assert {key: r.id for key, r in open_journal.meters.items()} == {
                "a": identifier(1),
                "b": identifier(2),
            }


class TestALockfileReplacedDuringARun:
    """A lockfile replaced while an apply runs is merged when it is written."""

    def finish(self, path: Path, concurrent: dict[str, Record]) -> dict[str, Record]:
        begun = {"kept": record(1), "ours": record(2), "both": record(3), "gone": record(4)}
        lockfile.save(path, Lockfile("sandbox", ORGANIZATION, PROJECT, begun))
        with Journal(journal.path_for(path), lockfile.read(path, "sandbox", PROJECT)) as open_journal:
            open_journal.record("ours", record(2, name="New"))
            open_journal.record("both", record(3, name="Ours"))
            open_journal.record("new", record(5), answer="created")
            open_journal.forget("gone", identifier(4))
            open_journal.duplicates_settled()
            lockfile.save(path, Lockfile("sandbox", ORGANIZATION, PROJECT, begun | concurrent))
            open_journal.finish(path, NOW)
        assert not journal.path_for(path).exists()
        return dict(lockfile.read(path, "sandbox", PROJECT).meters)

    def test_the_records_of_both_runs_are_kept(self, path: Path) -> None:
        merged = self.finish(path, {"kept": record(1, name="Theirs"), "pulled": record(6)})
        assert {key: (r.id, r.spec and r.spec.name) for key, r in merged.items()} == {
            "kept": (identifier(1), "Theirs"),
            "ours": (identifier(2), "New"),
            "both": (identifier(3), "Ours"),
            "new": (identifier(5), "API calls"),
            "pulled": (identifier(6), "API calls"),
        }

    def test_for_one_meter_the_record_of_the_run_wins(self, path: Path) -> None:
        merged = self.finish(path, {"both": record(3, name="Theirs", frozen=True)})
        assert merged["both"] == record(3, name="Ours", frozen=True)

    def test_for_two_meters_the_record_of_the_lockfile_wins(self, path: Path) -> None:
        merged = self.finish(path, {"both": record(7), "new": record(8)})
        assert (merged["both"].id, merged["new"].id) == (identifier(7), identifier(8))

    def test_an_id_keeps_only_one_key(self, path: Path) -> None:
        assert set(self.finish(path, {"elsewhere": record(5)})) == {"kept", "ours", "both", "elsewhere"}

    def test_an_unreadable_lockfile_leaves_all_records_in_the_journal(self, path: Path) -> None:
        state = Lockfile("sandbox", ORGANIZATION, PROJECT, {"a": record(1)})
        lockfile.save(path, state)
        with Journal(journal.path_for(path), state) as open_journal:
            open_journal.record("new", record(5))
            path.write_text("<<<<<<< ours\n")
            with pytest.raises(PolarIacError, match="conflict"):
                open_journal.finish(path, NOW)
        assert set(journal.read(journal.path_for(path), state).meters) == {"a", "new"}


class TestALockfileThatMovedOn:
    """A run died, others went on, and their lockfile was pulled: what it says is the newer word."""

    def interrupted(self, path: Path, **meters: Record) -> Path:
        open_journal = opened(path, **meters)
        open_journal.record("calls", record(1), answer="created")
        open_journal.intend("lost", f"{PROJECT}/lost", spec(), NOW)
        open_journal.record("frozen", record(3, frozen=True))
        open_journal.learn_organization(ORGANIZATION)
        return journal.path_for(path)

    def read(self, path: Path, **meters: Record) -> JournalState:
        return journal.read(path, Lockfile("sandbox", None, PROJECT, meters))

    def test_a_record_that_only_the_journal_has_is_kept(self, path: Path) -> None:
        state = self.read(self.interrupted(path), other=record(9))
        assert set(state.meters) == {"calls", "frozen", "other"}
        assert set(state.unresolved) == {"lost"}
        assert set(state.created) == {identifier(1)}
        assert state.organization_id == ORGANIZATION

    def test_a_key_or_a_meter_that_the_lockfile_has_is_the_lockfiles(self, path: Path) -> None:
        newer = {"renamed": record(1), "lost": record(7), "frozen": record(3, name="Newer")}
        state = self.read(self.interrupted(path), **newer)
        assert state.meters == {**newer, "frozen": record(3, name="Newer", frozen=True)}
        assert not state.unresolved

    def test_an_unchanged_lockfile_keeps_the_whole_journal(self, path: Path) -> None:
        before = {"calls": record(1, name="Before"), "old": record(2)}
        state = self.read(self.interrupted(path, **before), **before)
        assert set(state.meters) == {"calls", "old", "frozen"}
        assert state.meters["calls"] == record(1)

    def test_a_run_that_goes_on_makes_the_journal_its_own(self, path: Path) -> None:
        file = self.interrupted(path)
        newer = Lockfile("sandbox", None, PROJECT, {"other": record(9)})
        with Journal(file, newer) as open_journal:
            open_journal.forget("other", identifier(9))
            assert journal.read(file, newer).meters == open_journal.meters
            assert set(open_journal.meters) == {"calls", "frozen"}
            assert set(open_journal.unresolved) == {"lost"}

    @pytest.mark.parametrize(("environment", "project"), [("production", PROJECT), ("sandbox", "other")])
    def test_a_journal_of_another_environment_or_project_is_refused(
        self, path: Path, environment: str, project: str
    ) -> None:
        file = self.interrupted(path)
        with pytest.raises(PolarIacError, match="this journal is of the"):
            journal.read(file, Lockfile(environment, None, project))


def test_a_renamed_key_keeps_the_fields_of_later_versions(tmp_path: Path, polar: Served) -> None:
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        checkout.apply(desired({"old": meter()}))
        state = checkout.recorded()
        old = state.meters["old"]
        later = Record(old.id, old.spec, extra={"later": {"n": 1}})
        lockfile.save(checkout.lockfile, Lockfile("sandbox", state.organization_id, PROJECT, {"old": later}))
        checkout.apply(desired({"new": meter()}, moved=[{"from": "old", "to": "new"}]))
        assert checkout.recorded().meters["new"].extra == {"later": {"n": 1}}


def test_a_moved_key_that_goes_altogether_is_forgotten_once(tmp_path: Path, polar: Served) -> None:
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        checkout.apply(desired({"a": meter(), "z": meter()}))
        gone = desired({"z": meter()}, moved=[{"from": "a", "to": "b"}])
        assert [type(event) for event in checkout.apply(gone)] == [Applied]
        again = checkout.plan(gone)
        assert not again.changes
        assert not again.bookkeeping
        assert set(checkout.recorded().meters) == {"z"}


def test_a_second_meter_that_was_just_archived_blocks_nobody(tmp_path: Path) -> None:
    """Another run has settled it, and the replica does not show that yet."""
    with faulty_polar() as faulty:
        checkout = Checkout(faulty.url, tmp_path, lookup_timeout=900.0)
        with checkout.client, PolarClient(faulty.url, "polar_oat_other") as other:
            first, second = made(other), made(other)
            faulty.hold(reads=2)
            other.update_meter(second.id, {"is_archived": True, "metadata": {}})
            events = checkout.apply(desired({"calls": meter()}))
            assert events == [Applied("calls", "adopt", first.id)]
            assert faulty.served["GET lag"] == 2


def test_duplicates_that_are_not_settled_are_named(
    tmp_path: Path, polar: Served, client: PolarClient
) -> None:
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        duplicates = made(client), made(client)
        (event,) = checkout.apply(desired({"calls": meter()}))
        assert isinstance(event, Skipped)
        assert all(duplicate.id in event.reason for duplicate in duplicates)


def test_plan_and_apply_see_a_lost_create_alike(tmp_path: Path, polar: Served, client: PolarClient) -> None:
    """Both merge with the journal's entry as the base, so that the digest of a plan is not stale."""
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        with opened(checkout.lockfile) as open_journal:
            open_journal.intend("calls", f"{PROJECT}/calls", spec(metadata={"plan": 1}), LONG_AGO)
        made(client, metadata={"plan": 1})
        renamed = desired({"calls": meter(name="Renamed")})
        (change,) = checkout.plan(renamed).changes
        assert [field.path for field in change.fields] == ["name", "metadata.plan"]
        assert checkout.apply(renamed) == [Applied("calls", "update", change.id or "")]
        assert not checkout.plan(renamed).changes
