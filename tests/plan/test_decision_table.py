"""The decision table, row by row, in the words of the design; then what the rows leave to the planner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.manifest import read as manifest
from polar_iac.manifest import write
from polar_iac.meter.live import LiveMeter, Made
from polar_iac.meter.record import Record, record_of
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Note, Plan, Refusal
from polar_iac.report.text import plan_text, refusal_text
from tests.support import strategies
from tests.support.build import ORGANIZATION, desired, identifier, live, meter, plan, record

ARCHIVED = "2026-03-01T00:00:00.000000Z"
EARLIER = "2026-02-01T00:00:00.000000Z"
OTHER_FILTER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}


def actions(planned: Plan) -> dict[str, str]:
    return {change.key: change.action for change in planned.changes}


def changes_by_key(planned: Plan) -> dict[str, Change]:
    return {change.key: change for change in planned.changes}


def notes(change: Change) -> list[Note]:
    """The notes of a change but for the example of what its filter counts, which test_examples.py has."""
    return [note for note in change.notes if note.kind != "example"]


def bookkeeping(planned: Plan) -> set[tuple[str, str, str]]:
    return {(entry.key, entry.action, entry.id) for entry in planned.bookkeeping}


def only(planned: Plan) -> Change:
    (change,) = planned.changes
    return change


def marked(change: Change) -> tuple[str | None, str | None] | None:
    return (change.marker.before, change.marker.after) if change.marker else None


def mentioned(change: Change) -> set[str]:
    """The ids of the meters that a change names, which its prose and its data must both do."""
    ids = {reference.id for reference in change.meters}
    assert all(meter_id in (change.reason or "") for meter_id in ids)
    return ids


class TestWhichMeterIsMeant:
    """`yes`/`no`: whether the lockfile has K. Then: live by that id. Then: other bearers of K's marker."""

    def test_yes_found_with_its_marker_none(self) -> None:
        planned = plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1)])
        assert not planned.changes
        assert not planned.bookkeeping
        assert not planned.notes
        assert planned.unchanged == 1

    def test_yes_found_with_its_marker_only_archived_others(self) -> None:
        others = [live(2, archived_at=ARCHIVED), live(3, archived_at=EARLIER)]
        planned = plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1), *others])
        assert not planned.changes
        assert not planned.bookkeeping

    def test_yes_found_with_its_marker_another_that_we_created_is_settled(self) -> None:
        planned = plan(
            desired({"calls": meter(name="Calls")}),
            {"calls": record(1)},
            [live(1), live(2)],
            made=Made(created=frozenset({identifier(2)})),
        )
        settle, update = planned.changes
        assert (settle.action, settle.id, settle.duplicate_of) == ("settle", identifier(2), identifier(1))
        assert marked(settle) == ("acme/calls", None)
        assert settle.before is not None
        assert settle.after is not None
        assert (settle.before.archived, settle.after.archived) == (False, True)
        assert (update.action, update.id) == ("update", identifier(1))
        assert planned.summary["settle"] == 1
        assert planned.wanted == 2

    def test_yes_found_with_its_marker_another_that_landed_late_is_settled(self) -> None:
        """The recorded one stays although it looks like what the lost create would have made, too."""
        planned = plan(
            desired({"calls": meter()}),
            {"calls": record(2)},
            [live(1), live(2)],
            made=Made(landed=frozenset({identifier(1), identifier(2)})),
        )
        change = only(planned)
        assert (change.action, change.id, change.duplicate_of) == ("settle", identifier(1), identifier(2))
        assert not planned.bookkeeping

    def test_yes_found_as_created_by_a_stopped_run_gives_way_to_an_older_one(self) -> None:
        """Its id was never held against the others: no other run knows it."""
        planned = plan(
            desired({"calls": meter()}),
            {"calls": record(2)},
            [live(1), live(2)],
            made=Made(created=frozenset({identifier(2)})),
        )
        change = only(planned)
        assert (change.action, change.id, change.duplicate_of) == ("settle", identifier(2), identifier(1))
        assert bookkeeping(planned) == {("calls", "adopt", identifier(1))}

    @pytest.mark.parametrize("made", [(), (2,), (1, 2)], ids=str)
    def test_yes_found_with_its_marker_others_not_all_ours_are_duplicates_all_named(self, made: Any) -> None:
        planned = plan(
            desired({"calls": meter()}),
            {"calls": record(1)},
            [live(1), live(2), live(3)],
            made=Made(landed=frozenset(map(identifier, made))),
        )
        change = only(planned)
        assert (change.action, change.cause) == ("blocked", "duplicates")
        assert mentioned(change) == {identifier(n) for n in (1, 2, 3)}
        assert planned.refusal is None

    def test_yes_found_archived_but_another_active_one_is_never_settled(self) -> None:
        planned = plan(
            desired({"calls": meter()}),
            {"calls": record(1)},
            [live(1, archived_at=ARCHIVED), live(2)],
            made=Made(created=frozenset({identifier(2)})),
        )
        assert only(planned).cause == "duplicates"

    @pytest.mark.parametrize("others", [[], [live(3)]], ids=["alone", "with a bearer"])
    @pytest.mark.parametrize("owner", [{"key": "other"}, {"project": "another"}], ids=["key", "project"])
    def test_yes_found_with_another_marker_is_a_mismatch_both_named(self, owner: Any, others: Any) -> None:
        planned = plan(
            desired({"calls": meter(name="Calls")}),
            {"calls": record(1)},
            [live(1, **owner), *others],
            allow_archive=True,
        )
        change = only(planned)
        marker = f"{owner.get('project', 'acme')}/{owner.get('key', 'calls')}"
        assert (change.action, change.cause) == ("blocked", "mismatch")
        assert all(name in (change.reason or "") for name in ("`calls`", marker, identifier(1)))
        assert identifier(1) in mentioned(change)
        assert not planned.bookkeeping

    def test_yes_found_swapped_ids_block_both_keys(self) -> None:
        """No filter is exchanged, and nothing passes for a change outside."""
        meters = {"a": meter(name="Alpha"), "b": meter(name="Beta", filter=OTHER_FILTER)}
        there = [live(1, "a", name="Alpha"), live(2, "b", name="Beta", filter=OTHER_FILTER)]
        swapped = {"a": record(2, name="Alpha"), "b": record(1, name="Beta", filter=OTHER_FILTER)}
        planned = plan(desired(meters), swapped, there)
        assert [(c.key, c.cause) for c in planned.changes] == [("a", "mismatch"), ("b", "mismatch")]
        assert all(not c.fields for c in planned.changes)

    def test_yes_found_without_a_marker_and_with_a_spec_none_is_marked_again(self) -> None:
        planned = plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1, key=None)])
        change = only(planned)
        assert (change.action, change.reason, change.id) == ("mark", "restored", identifier(1))
        assert marked(change) == (None, "acme/calls")
        assert (change.before, change.fields) == (change.after, ())
        assert not planned.bookkeeping

    def test_yes_found_without_a_marker_and_full_is_managed_unmarked_with_a_note(self) -> None:
        full = {f"k{n}": n for n in range(50)}
        block = meter(metadata={"k0": 0})
        recorded = {"calls": record(1, metadata={"k0": 0})}
        planned = plan(desired({"calls": block}), recorded, [live(1, None, metadata=full)])
        assert not planned.changes
        (note,) = planned.notes
        assert (note.key, note.kind, note.data["id"]) == ("calls", "unmarked", identifier(1))
        update = plan(desired({"calls": block | {"name": "Calls"}}), recorded, [live(1, None, metadata=full)])
        assert (only(update).action, only(update).marker) == ("update", None)
        assert [note.kind for note in update.notes] == ["unmarked"]

    def test_yes_found_without_a_marker_one_or_more_is_a_mismatch_and_never_settled(self) -> None:
        planned = plan(
            desired({"calls": meter()}),
            {"calls": record(1)},
            [live(1, key=None), live(2)],
            made=Made(created=frozenset({identifier(2)})),
        )
        change = only(planned)
        assert change.cause == "mismatch"
        assert mentioned(change) == {identifier(1), identifier(2)}

    def test_yes_found_without_a_marker_or_a_spec_is_a_mismatch(self) -> None:
        recorded = {"calls": Record(identifier(1), None)}
        planned = plan(desired({"calls": meter()}), recorded, [live(1, key=None)])
        assert only(planned).cause == "mismatch"
        assert "nothing shows that it is ours" in (only(planned).reason or "")

    @pytest.mark.parametrize("marked", [[], [live(7)]])
    def test_yes_not_found_any_refuses_the_whole_apply(self, marked: list[Any]) -> None:
        planned = plan(desired({"calls": meter(), "new": meter()}), {"calls": record(1)}, marked)
        assert planned.refusal is not None
        assert identifier(1) in refusal_text(planned)
        assert all(word in refusal_text(planned) for word in ("organization", "environment", "token"))

    def test_yes_not_found_blocks_alone_if_another_recorded_id_is_live(self) -> None:
        manifest = desired({"calls": meter(), "other": meter()})
        planned = plan(manifest, {"calls": record(1), "other": record(2)}, [live(2, "other")])
        assert (only(planned).key, only(planned).cause) == ("calls", "unknown-id")
        assert planned.refusal is None

    @pytest.mark.parametrize("bearers", [[], [live(3)]])
    def test_yes_not_found_is_forgotten_once_gone_from_the_manifest(self, bearers: Any) -> None:
        planned = plan(
            desired({"other": meter()}),
            {"calls": record(1), "other": record(2)},
            [live(2, "other"), *bearers],
        )
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}
        assert [note.kind for note in planned.notes] == ["unknown-here"] * len(bearers)

    def test_no_none_means_no_meter(self) -> None:
        assert actions(plan(desired({"calls": meter()}))) == {"calls": "create"}

    @pytest.mark.parametrize("archived_at", [None, ARCHIVED])
    def test_no_one_recorded_under_another_key_blocks_both_and_creates_nothing(
        self, archived_at: str | None
    ) -> None:
        """An id that was moved to another key in the lockfile: its meter is not archived, nor doubled."""
        manifest = desired({"calls": meter(), "other": meter()})
        planned = plan(manifest, {"other": record(1)}, [live(1, "calls", archived_at=archived_at)])
        assert [(c.key, c.cause) for c in planned.changes] == [("calls", "mismatch"), ("other", "mismatch")]
        assert all(identifier(1) in mentioned(change) for change in planned.changes)
        gone = plan(desired({"calls": meter()}), {"other": record(1)}, [live(1)], allow_archive=True)
        assert [(c.key, c.cause) for c in gone.changes] == [("calls", "mismatch"), ("other", "mismatch")]

    def test_no_one_active_is_adopted_and_archived_ones_beside_it_do_not_count(self) -> None:
        planned = plan(desired({"calls": meter()}), {}, [live(1, archived_at=ARCHIVED), live(2)])
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "adopt", identifier(2))}

    def test_no_only_archived_the_one_archived_last_is_adopted(self) -> None:
        meters = [live(1, archived_at=ARCHIVED), live(2, archived_at=EARLIER)]
        planned = plan(desired({"calls": meter()}), {}, meters)
        assert (only(planned).action, only(planned).id) == ("unarchive", identifier(1))
        assert bookkeeping(planned) == {("calls", "adopt", identifier(1))}

    def test_no_two_or_more_active_are_settled_where_we_made_the_losers(self) -> None:
        made = Made(created=frozenset({identifier(2)}), landed=frozenset({identifier(3)}))
        planned = plan(desired({"calls": meter()}), {}, [live(3), live(2), live(1)], made=made)
        assert [(c.action, c.id, c.duplicate_of) for c in planned.changes] == [
            ("settle", identifier(2), identifier(1)),
            ("settle", identifier(3), identifier(1)),
        ]
        assert bookkeeping(planned) == {("calls", "adopt", identifier(1))}

    def test_no_two_or_more_active_are_duplicates_all_named(self) -> None:
        change = only(plan(desired({"calls": meter()}), {}, [live(1), live(2)]))
        assert (change.action, change.cause) == ("blocked", "duplicates")
        assert mentioned(change) == {identifier(1), identifier(2)}

    def test_duplicates_of_which_one_is_recorded_elsewhere_are_never_settled(self) -> None:
        manifest = desired({"calls": meter(), "other": meter()})
        made = Made(created=frozenset({identifier(2)}))
        planned = plan(manifest, {"other": record(2)}, [live(1), live(2)], made=made)
        assert [(c.key, c.cause) for c in planned.changes] == [("calls", "duplicates"), ("other", "mismatch")]


def importing(key: str, number: int, environment: str = "sandbox") -> dict[str, Any]:
    """The block `import` of a manifest, with one entry."""
    return {"import": [{"to": key, "id": {environment: identifier(number)}}]}


class TestImport:
    """K is not in the lockfile, and `import` names an id for it here."""

    def test_found_without_an_owner_is_that_meter_and_marked(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        planned = plan(manifest, {}, [live(1, None, metadata={"theirs": 1})])
        change = only(planned)
        assert (change.action, change.reason, change.id) == ("mark", "adopted", identifier(1))
        assert marked(change) == (None, "acme/calls")
        (note,) = change.notes
        assert note.text == f"takes over {identifier(1)}, which has no owner"
        assert change.after is not None
        assert change.after.metadata == {"theirs": 1}
        assert not planned.bookkeeping
        assert planned.unowned == 0

    def test_found_without_an_owner_what_differs_is_an_update_of_the_same_plan(self) -> None:
        manifest = desired({"calls": meter(name="Calls")}, **importing("calls", 1))
        change = only(plan(manifest, {}, [live(1, None)]))
        assert (change.action, marked(change)) == ("update", (None, "acme/calls"))
        assert [field.path for field in change.fields] == ["name"]
        assert "takes over" in change.notes[0].text

    def test_found_with_its_marker_is_adopted(self) -> None:
        """A run was killed between the marker and the record."""
        planned = plan(desired({"calls": meter()}, **importing("calls", 1)), {}, [live(1)])
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "adopt", identifier(1))}

    def test_found_with_a_marker_that_a_move_turns_into_its_own_is_adopted(self) -> None:
        manifest = desired({"calls": meter()}, moved=TestMoved.MOVED, **importing("calls", 1))
        change = only(plan(manifest, {}, [live(1, "old")]))
        assert (change.action, change.reason) == ("mark", "moved")

    def test_found_archived_is_unarchived_or_marked_as_the_manifest_says(self) -> None:
        there = live(1, None, archived_at=ARCHIVED)
        active = desired({"calls": meter()}, **importing("calls", 1))
        assert only(plan(active, {}, [there])).action == "unarchive"
        archived = desired({"calls": meter(archived=True)}, **importing("calls", 1))
        assert (only(plan(archived, {}, [there])).action) == "mark"

    def test_found_and_full_is_managed_unmarked_with_a_note(self) -> None:
        """Its metadata are all declared, or none of them: both are fine, and the record alone is enough."""
        full = {f"k{n}": n for n in range(50)}
        for metadata in ({}, full):
            manifest = desired({"calls": meter(metadata=metadata)}, **importing("calls", 1))
            there = [live(1, None, metadata=full)]
            planned = plan(manifest, {}, there)
            assert not planned.changes
            assert bookkeeping(planned) == {("calls", "adopt", identifier(1))}
            assert [note.kind for note in planned.notes] == ["import", "unmarked"]
            again = plan(manifest, {"calls": record(1, metadata=metadata)}, there)
            assert (again.changes, again.bookkeeping) == ((), ())
            assert [note.kind for note in again.notes] == ["unmarked"]

    def test_found_and_full_what_differs_is_an_update_without_a_marker(self) -> None:
        full = {f"k{n}": n for n in range(50)}
        manifest = desired({"calls": meter(name="Calls")}, **importing("calls", 1))
        planned = plan(manifest, {}, [live(1, None, metadata=full)])
        assert (only(planned).action, only(planned).marker) == ("update", None)
        assert [note.kind for note in only(planned).notes] == ["import"]
        assert [note.kind for note in planned.notes] == ["unmarked"]

    @pytest.mark.parametrize("known", ["recorded", "imported", "imported, now marked"])
    def test_not_found_beside_a_known_id_is_blocked_alone(self, known: str) -> None:
        entries = [*importing("calls", 1)["import"], *importing("other", 2)["import"]]
        manifest = desired({"calls": meter(), "other": meter()}, **{"import": entries})
        recorded = {"other": record(2)} if known == "recorded" else {}
        planned = plan(manifest, recorded, [live(2, None if known == "imported" else "other")])
        (blocked,) = [change for change in planned.changes if change.action == "blocked"]
        assert (blocked.key, blocked.cause) == ("calls", "import")
        assert identifier(1) in (blocked.reason or "")
        assert planned.refusal is None

    @pytest.mark.parametrize("recorded", [{}, {"old": record(3)}], ids=["nothing recorded", "recorded"])
    def test_not_found_and_no_other_id_either_refuses_the_whole_apply(self, recorded: Any) -> None:
        """The token is of another organization: `new` would be created there."""
        manifest = desired({"calls": meter(), "new": meter(), "old": meter()}, **importing("calls", 1))
        planned = plan(manifest, recorded, [live(9, None, name="Another", filter=OTHER_FILTER)])
        causes = {change.key: change.cause for change in planned.changes if change.cause}
        assert causes == {"calls": "import"} | dict.fromkeys(recorded, "unknown-id")
        assert planned.refusal == Refusal("unknown-id", tuple(sorted(causes)))
        text = refusal_text(planned)
        assert "that `import` names here, for calls." in text
        assert all(word in text for word in ("organization", "environment", "token"))
        assert (identifier(3) in text) == bool(recorded)

    def test_offline_nothing_that_import_names_is_unknown(self) -> None:
        manifest = desired({"calls": meter(), "old": meter()}, **importing("old", 1))
        recorded = {"old": replace(record(3), spec=None)}
        assert plan(manifest, recorded, None).refusal is None

    def test_recorded_under_another_key_is_blocked_and_named(self) -> None:
        manifest = desired({"calls": meter(), "other": meter()}, **importing("calls", 1))
        planned = plan(manifest, {"other": record(1)}, [live(1, "other")])
        change = only(planned)
        assert (change.key, change.cause) == ("calls", "import")
        assert mentioned(change) == {identifier(1)}
        assert "`moved: [{from: other, to: calls}]`" in (change.reason or "")

    @pytest.mark.parametrize("owner", [{"key": "other"}, {"project": "another"}], ids=["key", "project"])
    def test_marked_for_another_key_or_project_is_blocked_and_named(self, owner: Any) -> None:
        there = live(1, **owner)
        change = only(plan(desired({"calls": meter()}, **importing("calls", 1)), {}, [there]))
        assert (change.key, change.cause) == ("calls", "import")
        assert mentioned(change) == {identifier(1)}
        assert str(there.marker) in (change.reason or "")

    def test_another_bearer_is_blocked_and_both_are_named(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        change = only(plan(manifest, {}, [live(1, None), live(2)]))
        assert change.cause == "import"
        assert mentioned(change) == {identifier(1), identifier(2)}

    def test_an_archived_bearer_does_not_count(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        change = only(plan(manifest, {}, [live(1, None), live(2, archived_at=ARCHIVED)]))
        assert (change.action, change.id) == ("mark", identifier(1))

    def test_two_other_bearers_are_duplicates_first(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        change = only(plan(manifest, {}, [live(1, None), live(2), live(3)]))
        assert change.cause == "duplicates"

    def test_of_duplicates_that_can_be_settled_the_imported_one_stays(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 2))
        made = Made(created=frozenset({identifier(1)}))
        change = only(plan(manifest, {}, [live(1), live(2)], made=made))
        assert (change.action, change.id, change.duplicate_of) == ("settle", identifier(1), identifier(2))

    def test_to_be_archived_while_active_is_blocked(self) -> None:
        manifest = desired({"calls": meter(archived=True)}, **importing("calls", 1))
        change = only(plan(manifest, {}, [live(1, None)]))
        assert (change.action, change.cause) == ("blocked", "import")
        assert mentioned(change) == {identifier(1)}
        assert "Import it as it is first" in (change.reason or "")

    def test_to_be_archived_with_its_marker_is_archived(self) -> None:
        manifest = desired({"calls": meter(archived=True)}, **importing("calls", 1))
        assert only(plan(manifest, {}, [live(1)])).action == "archive"

    def test_with_parts_that_are_unknown_is_blocked(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        there = replace(live(1, None), spec=None, label="Of tomorrow")
        assert only(plan(manifest, {}, [there])).cause == "unknown-parts"

    @pytest.mark.parametrize("key", ["calls", None], ids=["marked", "unmarked"])
    def test_a_done_entry_is_harmless(self, key: str | None) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        planned = plan(manifest, {"calls": record(1)}, [live(1, key)])
        assert [change.reason for change in planned.changes] == ([] if key else ["restored"])
        assert not planned.notes

    def test_an_entry_that_the_lockfile_contradicts_is_blocked(self) -> None:
        manifest = desired({"calls": meter(name="Calls")}, **importing("calls", 2))
        change = only(plan(manifest, {"calls": record(1)}, [live(1), live(2, None)]))
        assert (change.action, change.cause, change.id) == ("blocked", "import", identifier(1))
        assert identifier(1) in (change.reason or "")
        assert identifier(2) in (change.reason or "")

    def test_a_record_to_which_nothing_was_applied_is_trusted_where_import_names_it(self) -> None:
        """Polar refused the first update: the meter has a record, and neither a spec nor a marker."""
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        change = only(plan(manifest, {"calls": Record(identifier(1), None, frozen=True)}, [live(1, None)]))
        assert (change.action, change.reason) == ("mark", "adopted")
        mismatch = plan(manifest, {"calls": Record(identifier(1), None)}, [live(1, None), live(2)])
        assert only(mismatch).cause == "mismatch"

    def test_an_entry_of_another_environment_does_nothing(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1, "production"))
        planned = plan(manifest, {}, [live(1, None, name="Others")])
        assert only(planned).action == "create"
        assert planned.unowned == 1

    def test_offline_it_is_no_create(self) -> None:
        planned = plan(desired({"calls": meter()}, **importing("calls", 1)), {}, None)
        assert not planned.changes
        assert [(note.key, note.kind) for note in planned.notes] == [("calls", "import")]

    def test_what_blocks_an_import_is_shown_at_its_entry(self) -> None:
        manifest = desired({"calls": meter()}, **importing("calls", 1))
        source = only(plan(manifest, {}, [])).source
        assert source is not None
        line = manifest.document.text.split("\n")[source.line - 1]
        assert line[source.column - 1 :] == f'"{identifier(1)}"'

    @pytest.mark.parametrize("allow_archive", [False, True])
    def test_of_a_key_that_is_gone_is_a_rename_without_moved_and_blocked(self, allow_archive: bool) -> None:
        manifest = desired({"new": meter()}, **importing("new", 1))
        planned = plan(manifest, {"calls": record(1)}, [live(1)], allow_archive=allow_archive)
        assert {(c.key, c.action, c.cause) for c in planned.changes} == {
            ("calls", "blocked", "unlisted"),
            ("new", "blocked", "import"),
        }
        assert "moved: [{from: calls, to: new}]" in str(changes_by_key(planned)["calls"].reason)

    @pytest.mark.parametrize(
        "owner", [{"key": None}, {"archived_at": ARCHIVED}], ids=["unmarked", "archived"]
    )
    def test_of_a_key_that_is_gone_keeps_its_record(self, owner: Any) -> None:
        """If it were forgotten, the next plan would take the meter over (invariant 2)."""
        manifest = desired({"new": meter()}, **importing("new", 1))
        planned = plan(manifest, {"calls": record(1)}, [live(1, **owner)])
        assert (only(planned).key, only(planned).cause) == ("new", "import")
        assert planned.bookkeeping == ()


class TestRemoved:
    """`removed` names K, which the manifest does not declare."""

    REMOVED: ClassVar[dict[str, Any]] = {"removed": [{"from": "calls"}]}

    @pytest.mark.parametrize("archived_at", [None, ARCHIVED], ids=["active", "archived"])
    def test_recorded_with_its_marker_is_released(self, archived_at: str | None) -> None:
        there = live(1, metadata={"theirs": 1}, archived_at=archived_at)
        planned = plan(desired({}, **self.REMOVED), {"calls": record(1)}, [there], allow_archive=True)
        change = only(planned)
        assert (change.action, change.id, marked(change)) == ("release", identifier(1), ("acme/calls", None))
        assert change.before == change.after == there.spec
        assert (planned.summary["release"], planned.wanted) == (1, 1)
        assert planned.refusal is None
        assert not planned.bookkeeping
        assert change.source is not None

    def test_an_archived_bearer_beside_it_does_not_count(self) -> None:
        there = [live(1), live(2, archived_at=ARCHIVED)]
        planned = plan(desired({}, **self.REMOVED), {"calls": record(1)}, there)
        assert (only(planned).action, only(planned).id) == ("release", identifier(1))

    @pytest.mark.parametrize("bearers", [[], [live(3)]], ids=["alone", "with a bearer"])
    @pytest.mark.parametrize(
        "owner", [{"key": None}, {"key": "other"}, {"project": "another"}], ids=["none", "key", "project"]
    )
    def test_without_its_marker_the_record_is_forgotten_only(self, owner: Any, bearers: Any) -> None:
        there = [live(1, **owner), *bearers]
        planned = plan(desired({}, **self.REMOVED), {"calls": record(1)}, there)
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}
        assert "not-ours" in {note.kind for note in planned.notes}

    def test_a_meter_that_import_names_for_another_key_is_blocked(self) -> None:
        manifest = desired({"new": meter()}, **self.REMOVED, **importing("new", 1))
        planned = plan(manifest, {"calls": record(1)}, [live(1)])
        assert {(c.key, c.action, c.cause) for c in planned.changes} == {
            ("calls", "blocked", "import"),
            ("new", "blocked", "import"),
        }
        assert "moved: [{from: calls, to: new}]" in str(changes_by_key(planned)["calls"].reason)
        unmarked = plan(manifest, {"calls": record(1)}, [live(1, None)])
        assert (only(unmarked).key, unmarked.bookkeeping) == ("new", ())

    def test_an_unknown_id_beside_a_known_one_is_forgotten(self) -> None:
        manifest = desired({"other": meter()}, **self.REMOVED)
        planned = plan(manifest, {"calls": record(1), "other": record(2)}, [live(2, "other")])
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}

    def test_an_unknown_id_alone_refuses_the_whole_apply(self) -> None:
        planned = plan(desired({}, **self.REMOVED), {"calls": record(1)}, [live(2, None)])
        assert planned.refusal is not None
        assert planned.refusal.cause == "unknown-id"

    @pytest.mark.parametrize("first", [live(1), live(1, archived_at=ARCHIVED)], ids=["active", "archived"])
    def test_another_bearer_is_blocked_and_never_settled(self, first: Any) -> None:
        made = Made(created=frozenset({identifier(2)}))
        planned = plan(desired({}, **self.REMOVED), {"calls": record(1)}, [first, live(2)], made=made)
        assert only(planned).cause == "duplicates"
        assert mentioned(only(planned)) == {identifier(1), identifier(2)}

    def test_two_bearers_beside_an_unmarked_record_are_blocked(self) -> None:
        planned = plan(desired({}, **self.REMOVED), {"calls": record(1)}, [live(1, None), live(2), live(3)])
        assert only(planned).cause == "duplicates"

    @pytest.mark.parametrize("there", [[], [live(1)]], ids=["gone", "marked"])
    def test_not_recorded_is_nothing_with_a_note(self, there: Any) -> None:
        planned = plan(desired({}, **self.REMOVED), {}, there)
        assert not planned.changes
        assert not planned.bookkeeping
        (note,) = planned.notes
        assert (note.key, note.kind, note.severity) == ("calls", "removed", "info")
        assert [entry["id"] for entry in note.data["meters"]] == [m.id for m in there]

    def test_with_parts_that_are_unknown_is_blocked(self) -> None:
        """All of its metadata would be replaced, and it is not known."""
        there = replace(live(1), spec=None, label="Of tomorrow")
        assert only(plan(desired({}, **self.REMOVED), {"calls": record(1)}, [there])).cause == "unknown-parts"

    @pytest.mark.parametrize("recorded", [record(1), Record(identifier(1), None)], ids=["spec", "id alone"])
    def test_offline_it_is_released(self, recorded: Record) -> None:
        planned = plan(desired({}, **self.REMOVED), {"calls": recorded}, None)
        assert (only(planned).action, only(planned).id) == ("release", identifier(1))


class TestCreateBesideUnownedMeters:
    """A meter of nobody's that is like a new one is most likely meant."""

    def test_the_same_name_and_meaning_is_blocked_until_it_is_imported_or_renamed(self) -> None:
        there = [live(9, None, filter=TestFiltersOfOneMeaning.DASHBOARD)]
        planned = plan(desired({"calls": meter()}), {}, there)
        change = only(planned)
        assert (change.action, change.cause, change.id) == ("blocked", "unowned", None)
        assert mentioned(change) == {identifier(9)}
        assert f"`{{to: calls, id: {{sandbox: {identifier(9)}}}}}`" in (change.reason or "")
        assert planned.unowned == 1
        assert actions(plan(desired({"calls": meter()}, **importing("calls", 9)), {}, there)) == {
            "calls": "mark"
        }
        assert actions(plan(desired({"calls": meter(name="Renamed")}), {}, there)) == {"calls": "create"}

    def test_each_of_several_that_are_the_same_is_named(self) -> None:
        change = only(plan(desired({"calls": meter()}), {}, [live(8, None), live(9, None)]))
        assert mentioned(change) == {identifier(8), identifier(9)}

    @pytest.mark.parametrize(
        "fields", [{"filter": OTHER_FILTER}, {"name": "Others"}], ids=["only the name", "only the meaning"]
    )
    def test_only_one_of_both_carries_the_entry_that_would_import_it(self, fields: Any) -> None:
        (note,) = notes(only(plan(desired({"calls": meter()}), {}, [live(9, None, **fields)])))
        assert f"`{{to: calls, id: {{sandbox: {identifier(9)}}}}}`" in note.text

    def test_one_of_another_project_can_neither_block_nor_be_imported(self) -> None:
        change = only(plan(desired({"calls": meter()}), {}, [live(9, project="other")]))
        assert change.action == "create"
        assert not any("import" in note.text for note in change.notes)

    def test_one_that_another_key_imports_is_that_keys(self) -> None:
        manifest = desired({"calls": meter(), "other": meter()}, **importing("other", 9))
        planned = plan(manifest, {}, [live(9, None)])
        assert actions(planned) == {"calls": "create", "other": "mark"}
        assert not notes(planned.changes[0])
        assert planned.unowned == 0

    def test_only_a_plan_with_creates_counts_the_meters_without_an_owner(self) -> None:
        others = [
            *(live(n, None, name="Others", filter=OTHER_FILTER) for n in (7, 8)),
            live(9, project="other"),
            live(10, None, archived_at=ARCHIVED),
        ]
        created = plan(desired({"calls": meter()}), {}, others)
        assert created.unowned == 2
        text = plan_text(created, "meters.yaml")
        assert text.splitlines()[-1].startswith(
            "2 active meters here have no owner: `polar-iac import -e sandbox`"
        )
        assert plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1), *others]).unowned == 0


class TestWhatHappens:
    """By what the manifest says of K, and the live meter X."""

    def test_active_none_create(self) -> None:
        planned = plan(desired({"calls": meter()}))
        change = only(planned)
        assert (change.action, change.id, change.before) == ("create", None, None)
        assert marked(change) == (None, "acme/calls")
        assert change.after is not None
        assert change.after.name == "API calls"
        assert not notes(change)

    @pytest.mark.parametrize("other", [live(9, project="other-team"), live(9, key=None, name="Another name")])
    def test_active_none_create_says_if_an_unmarked_or_foreign_meter_is_the_same(self, other: Any) -> None:
        change = only(plan(desired({"calls": meter()}), {}, [other]))
        assert change.action == "create"
        (fact,) = notes(change)
        assert (fact.kind, fact.severity) == ("same-billing", "warning")
        assert identifier(9) in fact.text
        assert [entry["id"] for entry in fact.data["meters"]] == [identifier(9)]

    def test_active_none_create_says_if_only_the_name_is_the_same(self) -> None:
        other = live(9, key=None, filter=OTHER_FILTER)
        (fact,) = notes(only(plan(desired({"calls": meter()}), {}, [other])))
        assert (fact.kind, fact.severity) == ("same-name", "info")

    def test_active_none_create_says_nothing_of_another_filter_and_name(self) -> None:
        other = live(9, key=None, filter=OTHER_FILTER, name="Others")
        assert not notes(only(plan(desired({"calls": meter()}), {}, [other])))

    def test_active_active_equal_unchanged_whatever_was_recorded_and_the_record_is_refreshed(self) -> None:
        planned = plan(desired({"calls": meter()}), {"calls": record(1, name="Former")}, [live(1)])
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "refresh", identifier(1))}

    def test_active_active_different_update_only_the_fields_that_differ(self) -> None:
        planned = plan(desired({"calls": meter(name="Calls")}), {"calls": record(1)}, [live(1)])
        change = only(planned)
        assert change.action == "update"
        assert [field.path for field in change.fields] == ["name"]

    def test_active_active_different_and_unmarked_is_one_change_with_its_marker(self) -> None:
        planned = plan(desired({"calls": meter(name="Calls")}), {"calls": record(1)}, [live(1, None)])
        change = only(planned)
        assert (change.action, marked(change)) == ("update", (None, "acme/calls"))

    def test_active_archived_unarchive_with_the_update_in_the_same_patch(self) -> None:
        planned = plan(
            desired({"calls": meter(name="Calls")}), {"calls": record(1)}, [live(1, archived_at=ARCHIVED)]
        )
        change = only(planned)
        assert change.action == "unarchive"
        assert [field.path for field in change.fields] == ["name"]

    @pytest.mark.parametrize(
        "field", [{"filter": OTHER_FILTER}, {"aggregation": {"func": "sum", "property": "x"}}]
    )
    def test_active_frozen_and_billing_differs_blocked_the_whole_key(self, field: Any) -> None:
        planned = plan(
            desired({"calls": meter(name="Calls", **field)}), {"calls": record(1, frozen=True)}, [live(1)]
        )
        change = only(planned)
        assert (change.action, change.cause, change.freeze) == ("blocked", "frozen", "frozen")
        assert {f.path for f in change.fields} == {"name", *field}

    def test_active_frozen_and_only_the_name_differs_update(self) -> None:
        planned = plan(desired({"calls": meter(name="Calls")}), {"calls": record(1, frozen=True)}, [live(1)])
        assert only(planned).action == "update"

    @pytest.mark.parametrize("recorded", [{"calls": record(1)}, {}], ids=["by lockfile", "by marker"])
    def test_active_with_parts_that_are_unknown_blocked_and_nobody_else_is(self, recorded: Any) -> None:
        manifest = desired({"calls": meter(), "new": meter(name="New one")})
        planned = plan(manifest, recorded, [replace(live(1), spec=None, label="Of tomorrow")])
        assert [(c.key, c.action, c.cause) for c in planned.changes] == [
            ("calls", "blocked", "unknown-parts"),
            ("new", "create", None),
        ]
        assert mentioned(planned.changes[0]) == {identifier(1)}
        assert "Polar has parts here that this version does not know" in (planned.changes[0].reason or "")
        assert planned.refusal is None

    def test_a_foreign_meter_with_unknown_parts_concerns_nobody(self) -> None:
        foreign = [replace(live(n, owner), spec=None) for n, owner in ((1, None), (2, "unrelated"))]
        planned = plan(desired({"calls": meter()}), {"calls": record(3)}, [live(3), *foreign])
        assert not planned.changes

    def test_archived_none_nothing(self) -> None:
        planned = plan(desired({"calls": meter(archived=True)}))
        assert not planned.changes
        assert not planned.bookkeeping

    def test_archived_active_archive_and_fields_are_not_compared(self) -> None:
        planned = plan(
            desired({"calls": meter(archived=True, name="Calls")}), {"calls": record(1)}, [live(1)]
        )
        change = only(planned)
        assert (change.action, change.fields) == ("archive", ())
        assert change.after is not None
        assert (change.after.archived, change.after.name) == (True, "API calls")

    def test_archived_archived_unchanged(self) -> None:
        recorded = {"calls": record(1, archived=True)}
        planned = plan(desired({"calls": meter(archived=True)}), recorded, [live(1, archived_at=ARCHIVED)])
        assert not planned.changes
        assert not planned.bookkeeping

    def test_absent_active_recorded_blocked_still_live(self) -> None:
        planned = plan(desired({}), {"calls": record(1)}, [live(1)])
        change = only(planned)
        assert (change.action, change.cause) == ("blocked", "unlisted")
        assert "archived: true" in (change.reason or "")
        assert planned.refusal is not None
        assert "--allow-archive" in refusal_text(planned)

    def test_absent_active_recorded_allow_archive_turns_it_into_archive(self) -> None:
        planned = plan(desired({}), {"calls": record(1)}, [live(1)], allow_archive=True)
        assert only(planned).action == "archive"
        assert planned.refusal is None

    @pytest.mark.parametrize("owner", [{"key": None}, {"project": "other"}], ids=["no marker", "project"])
    def test_absent_active_recorded_and_not_ours_is_forgotten_with_a_note(self, owner: Any) -> None:
        planned = plan(desired({}), {"calls": record(1)}, [live(1, **owner)], allow_archive=True)
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}
        (note,) = planned.notes
        assert (note.key, note.kind) == ("calls", "not-ours")
        assert identifier(1) in note.text

    @pytest.mark.parametrize("allow_archive", [False, True])
    def test_absent_active_and_not_recorded_is_another_branchs_and_only_noted(
        self, allow_archive: bool
    ) -> None:
        there = [live(1, "zeta-a"), live(2, "zeta-a")]
        planned = plan(desired({}), {}, there, allow_archive=allow_archive)
        assert not planned.changes
        assert not planned.bookkeeping
        assert planned.refusal is None
        (note,) = planned.notes
        assert note.text == (
            "`zeta-a` of this project is live at Polar; neither this manifest nor this lockfile knows it: "
            "applied from another branch or manifest, or the lockfile was lost"
        )
        assert [entry["id"] for entry in note.data["meters"]] == [identifier(1), identifier(2)]

    def test_absent_archived_forget(self) -> None:
        planned = plan(desired({}), {"calls": record(1)}, [live(1, archived_at=ARCHIVED)])
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}

    def test_absent_archived_by_marker_alone_is_nothing_to_forget(self) -> None:
        planned = plan(desired({}), {}, [live(1, archived_at=ARCHIVED)])
        assert not planned.changes
        assert not planned.bookkeeping
        assert not planned.notes


class TestDeclaredElsewhere:
    """Rows of a meter whose `environments` leave this one out."""

    def elsewhere(self, **top: Any) -> Any:
        return desired({"calls": meter(environments=["production", "local"]), "other": meter()}, **top)

    def test_elsewhere_none_nothing(self) -> None:
        planned = plan(self.elsewhere(), {"other": record(2)}, [live(2, "other")])
        assert (planned.changes, planned.bookkeeping, planned.notes) == ((), (), ())
        assert planned.unchanged == 1

    @pytest.mark.parametrize("recorded", [{"calls": record(1)}, {}], ids=["recorded", "by marker"])
    def test_elsewhere_active_blocked_alone(self, recorded: Any) -> None:
        planned = plan(self.elsewhere(), recorded, [live(1)])
        assert actions(planned) == {"calls": "blocked", "other": "create"}
        assert planned.refusal is None
        change = planned.changes[0]
        assert (change.cause, change.id) == ("elsewhere", identifier(1))
        assert change.reason == (
            f"`calls` is declared for production and local only, but {identifier(1)} is still active in "
            "sandbox. Archive it once with --allow-archive -e sandbox, or add sandbox to its `environments`."
        )
        assert change.source is not None
        assert change.source.line == self.elsewhere().meters["calls"].span.line

    @pytest.mark.parametrize("recorded", [{"calls": record(1)}, {}], ids=["recorded", "by marker"])
    def test_elsewhere_active_allow_archive_turns_it_into_archive(self, recorded: Any) -> None:
        planned = plan(self.elsewhere(), recorded, [live(1)], allow_archive=True)
        assert actions(planned) == {"calls": "archive", "other": "create"}

    def test_elsewhere_archived_forget(self) -> None:
        there = [live(1, archived_at=ARCHIVED), live(2, "other")]
        planned = plan(self.elsewhere(), {"calls": record(1), "other": record(2)}, there)
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}

    def test_elsewhere_unknown_id_forget(self) -> None:
        planned = plan(self.elsewhere(), {"calls": record(1), "other": record(2)}, [live(2, "other")])
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}

    @pytest.mark.parametrize(
        ("there", "recorded"),
        [
            (live(1, project="another"), record(1)),
            (live(1, None), Record(identifier(1), None, frozen=True)),  # Polar refused its only update
        ],
        ids=["another project's", "imported in vain"],
    )
    def test_elsewhere_active_recorded_and_not_ours_is_forgotten_with_a_note(
        self, there: LiveMeter, recorded: Record
    ) -> None:
        records = {"calls": recorded, "other": record(2)}
        planned = plan(self.elsewhere(), records, [there, live(2, "other")], allow_archive=True)
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "forget", identifier(1))}
        assert "`calls` is declared for other environments only" in planned.notes[0].text

    def test_elsewhere_two_active_are_duplicates_all_named(self) -> None:
        planned = plan(self.elsewhere(), {"other": record(3)}, [live(1), live(2), live(3, "other")])
        assert (only(planned).cause, mentioned(only(planned))) == ("duplicates", set(map(identifier, (1, 2))))

    def test_elsewhere_under_a_former_key_is_blocked_under_that_key(self) -> None:
        """The meter is not renamed here, where it does not exist, and not taken for a removed one either."""
        moved = [{"from": "requests", "to": "hits"}, {"from": "hits", "to": "calls"}]
        planned = plan(
            self.elsewhere(moved=moved),
            {"requests": record(1), "other": record(2)},
            [live(1, "requests"), live(2, "other")],
        )
        assert (only(planned).key, only(planned).cause, planned.refusal) == ("requests", "elsewhere", None)
        assert "`requests`, now `calls`, is declared for" in (only(planned).reason or "")

    def test_elsewhere_offline_and_never_applied_is_blocked(self) -> None:
        planned = plan(self.elsewhere(), {"calls": Record(identifier(1), None)}, None)
        assert planned.changes[0].cause == "elsewhere"

    def test_here_it_is_as_if_nothing_were_said(self) -> None:
        planned = plan(self.elsewhere(), environment="production")
        same = plan(desired({"calls": meter(), "other": meter()}), environment="production")
        assert planned.digest == same.digest
        assert actions(planned) == {"calls": "create", "other": "create"}

    def test_a_new_key_that_counts_the_same_is_no_rename_of_it(self) -> None:
        planned = plan(self.elsewhere(), {"calls": record(1)}, [live(1)])
        assert not [note for change in planned.changes for note in change.notes if note.kind == "renamed"]


class TestTheFirstRowDecides:
    """Mismatch, duplicates, unknown id, to be archived, frozen, unarchive."""

    def test_mismatch_before_duplicates(self) -> None:
        planned = plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1, "b"), live(2), live(3)])
        assert only(planned).cause == "mismatch"

    def test_duplicates_before_frozen(self) -> None:
        recorded = {"calls": record(1, frozen=True)}
        planned = plan(desired({"calls": meter(filter=OTHER_FILTER)}), recorded, [live(1), live(2)])
        assert only(planned).cause == "duplicates"

    def test_duplicates_before_archived_and_before_removal(self) -> None:
        archived = desired({"calls": meter(archived=True)})
        assert only(plan(archived, {}, [live(1), live(2)])).cause == "duplicates"
        planned = plan(desired({}), {"calls": record(1)}, [live(1), live(2)], allow_archive=True)
        assert only(planned).cause == "duplicates"

    def test_unknown_id_before_archived(self) -> None:
        manifest = desired({"calls": meter(archived=True), "other": meter()})
        planned = plan(manifest, {"calls": record(1), "other": record(2)}, [live(2, "other")])
        assert only(planned).cause == "unknown-id"

    def test_frozen_before_unarchiving(self) -> None:
        recorded = {"calls": record(1, frozen=True)}
        planned = plan(
            desired({"calls": meter(filter=OTHER_FILTER)}), recorded, [live(1, archived_at=ARCHIVED)]
        )
        assert only(planned).cause == "frozen"
        assert "and it stays archived" in (only(planned).reason or "")
        back = plan(desired({"calls": meter(name="Calls")}), recorded, [live(1, archived_at=ARCHIVED)])
        assert only(back).action == "unarchive"
        archived = plan(desired({"calls": meter(archived=True, filter=OTHER_FILTER)}), recorded, [live(1)])
        assert only(archived).action == "archive"


class TestForeignMeters:
    def test_unrecorded_with_another_projects_marker_or_none_is_never_touched(self) -> None:
        planned = plan(desired({}), {}, [live(1, project="other"), live(2, key=None)], allow_archive=True)
        assert not planned.changes
        assert not planned.bookkeeping
        assert not planned.notes


class TestFiltersOfOneMeaning:
    """Filters that mean the same are equal."""

    CLAUSE: ClassVar[dict[str, Any]] = {"property": "name", "operator": "eq", "value": "call"}
    DASHBOARD: ClassVar[dict[str, Any]] = {
        "conjunction": "and",
        "clauses": [{"conjunction": "or", "clauses": [CLAUSE]}],
    }

    @pytest.mark.parametrize("frozen", [False, True])
    def test_the_dashboards_form_is_not_a_change(self, frozen: bool) -> None:
        recorded = {"calls": record(1, frozen=frozen)}
        planned = plan(desired({"calls": meter()}), recorded, [live(1, filter=self.DASHBOARD)])
        assert not planned.changes
        assert not planned.bookkeeping

    def test_the_dashboards_form_is_not_sent_beside_another_change(self) -> None:
        planned = plan(
            desired({"calls": meter(name="Calls")}),
            {"calls": record(1)},
            [live(1, filter=self.DASHBOARD)],
        )
        assert [field.path for field in only(planned).fields] == ["name"]

    def test_a_new_meter_is_sent_as_it_is_written(self) -> None:
        block = meter(filter=self.DASHBOARD)
        change = only(plan(desired({"calls": block})))
        assert change.after is not None
        assert change.after.create_body("acme/calls")["filter"] == self.DASHBOARD
        assert change.digest == only(plan(desired({"calls": meter()}))).digest

    def test_a_meter_that_bills_the_same_in_another_form_is_named(self) -> None:
        there = live(9, None, filter=self.DASHBOARD, name="Another name")
        change = only(plan(desired({"calls": meter()}), {}, [there]))
        assert [fact.kind for fact in notes(change)] == ["same-billing"]


class TestFiltersThatCountTheSame:
    """Filters of different forms that are proven to count the same events: Polar's is kept."""

    WRITTEN: ClassVar[dict[str, Any]] = {
        "conjunction": "or",
        "clauses": [
            {"property": "model", "operator": "like", "value": "gpt"},
            {"property": "model", "operator": "like", "value": "gpt-4"},
        ],
    }
    THERE: ClassVar[dict[str, Any]] = {"conjunction": "and", "clauses": WRITTEN["clauses"][:1]}

    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize("refreshed", [False, True])
    def test_nothing_is_sent_and_a_note_says_so(self, frozen: bool, refreshed: bool) -> None:
        recorded = {"calls": record(1, frozen=frozen, filter=self.THERE)}
        there = [live(1, filter=self.THERE)] if refreshed else None
        planned = plan(desired({"calls": meter(filter=self.WRITTEN)}), recorded, there)
        assert not planned.changes
        assert not planned.bookkeeping
        assert planned.unchanged == 1
        (note,) = planned.notes
        assert (note.kind, note.key) == ("same-events", "calls")

    def test_beside_another_change_the_filter_is_not_sent(self) -> None:
        manifest = desired({"calls": meter(name="Calls", filter=self.WRITTEN)})
        change = only(plan(manifest, {"calls": record(1)}, [live(1, filter=self.THERE)]))
        assert [field.path for field in change.fields] == ["name"]
        assert [note.kind for note in change.notes] == ["same-events"]
        assert change.after is not None
        assert change.after.canonical["filter"] == self.THERE

    def test_a_record_holds_the_filter_that_polar_has(self) -> None:
        """Else a later change of the filter would pass for one that was made outside."""
        manifest = desired({"calls": meter(filter=self.WRITTEN)})
        planned = plan(manifest, {"calls": record(1, filter=self.WRITTEN)}, [live(1, filter=self.THERE)])
        assert bookkeeping(planned) == {("calls", "refresh", identifier(1))}
        later = desired({"calls": meter(filter={"conjunction": "and", "clauses": []})})
        change = only(plan(later, {"calls": record(1, filter=self.THERE)}, [live(1, filter=self.THERE)]))
        assert [field.origin for field in change.fields] == ["manifest"]

    def test_an_archived_declaration_compares_no_filter(self) -> None:
        manifest = desired({"calls": meter(archived=True, filter=self.WRITTEN)})
        planned = plan(manifest, {"calls": record(1)}, [live(1, filter=self.THERE)])
        assert only(planned).action == "archive"
        assert "same-events" not in [note.kind for note in only(planned).notes]


class TestMoved:
    MOVED = ({"from": "old", "to": "calls"},)

    def test_a_move_renames_in_the_lockfile_and_rewrites_the_marker(self) -> None:
        planned = plan(desired({"calls": meter()}, moved=self.MOVED), {"old": record(1)}, [live(1, "old")])
        change = only(planned)
        assert (change.action, change.reason, marked(change)) == ("mark", "moved", ("acme/old", "acme/calls"))
        assert bookkeeping(planned) == {("calls", "moved", identifier(1))}
        assert planned.bookkeeping[0].was == "old"

    def test_a_move_is_found_by_the_marker_alone(self) -> None:
        planned = plan(desired({"calls": meter()}, moved=self.MOVED), {}, [live(1, "old")])
        assert (only(planned).action, only(planned).reason) == ("mark", "moved")
        assert bookkeeping(planned) == {("calls", "adopt", identifier(1))}

    def test_a_move_is_carried_out_with_another_change_of_the_key(self) -> None:
        manifest = desired({"calls": meter(name="Calls")}, moved=self.MOVED)
        change = only(plan(manifest, {"old": record(1)}, [live(1, "old")]))
        assert (change.action, marked(change)) == ("update", ("acme/old", "acme/calls"))

    def test_a_move_rewrites_the_marker_after_the_lockfile_moved(self) -> None:
        """The run that renamed it was stopped between the two."""
        planned = plan(desired({"calls": meter()}, moved=self.MOVED), {"calls": record(1)}, [live(1, "old")])
        assert (only(planned).action, only(planned).reason) == ("mark", "moved")
        gone = plan(desired({}, moved=self.MOVED), {"calls": record(1)}, [live(1, "old")], allow_archive=True)
        assert (only(gone).action, only(gone).key) == ("archive", "calls")

    def test_without_a_move_the_same_is_a_mismatch(self) -> None:
        planned = plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1, "old")])
        assert only(planned).cause == "mismatch"

    def test_chains_of_moves_are_followed(self) -> None:
        chain = [{"from": "older", "to": "old"}, *self.MOVED]
        for key in ("older", "old"):
            planned = plan(desired({"calls": meter()}, moved=chain), {key: record(1)}, [live(1, key)])
            assert only(planned).action == "mark"
            assert bookkeeping(planned) == {("calls", "moved", identifier(1))}

    def test_an_old_move_has_no_effect(self) -> None:
        planned = plan(desired({"calls": meter()}, moved=self.MOVED), {"calls": record(1)}, [live(1)])
        assert not planned.changes
        assert not planned.bookkeeping

    def test_two_meters_under_one_key_after_a_move_are_duplicates(self) -> None:
        manifest = desired({"calls": meter()}, moved=self.MOVED)
        planned = plan(manifest, {}, [live(1, "old"), live(2, "calls")])
        assert only(planned).cause == "duplicates"

    def test_a_move_is_carried_out_offline(self) -> None:
        planned = plan(desired({"calls": meter()}, moved=self.MOVED), {"old": record(1)}, None)
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "moved", identifier(1))}


class TestFields:
    def test_each_field_shows_who_changed_it(self) -> None:
        manifest = desired({"calls": meter(name="New", metadata={"a": 2, "b": 1, "c": 3})})
        recorded = {"calls": record(1, name="Old", metadata={"a": 1, "b": 1, "c": 1})}
        planned = plan(manifest, recorded, [live(1, name="Old", metadata={"a": 1, "b": 2, "c": 2})])
        assert {f.path: f.origin for f in only(planned).fields} == {
            "name": "manifest",
            "metadata.a": "manifest",
            "metadata.b": "outside",
            "metadata.c": "both",
        }

    def test_each_field_shows_its_impact(self) -> None:
        manifest = desired(
            {
                "calls": meter(
                    name="New",
                    unit="custom",
                    custom_label="call",
                    custom_multiplier=10,
                    filter=OTHER_FILTER,
                    aggregation={"func": "sum", "property": "x"},
                    metadata={"a": 1},
                )
            }
        )
        fields = only(plan(manifest, {"calls": record(1)}, [live(1)])).fields
        assert [(f.path, f.impact) for f in fields] == [
            ("filter", "billing"),
            ("aggregation", "billing"),
            ("name", "invoice"),
            ("unit", "invoice"),
            ("custom_label", "invoice"),
            ("custom_multiplier", "invoice"),
            ("metadata.a", "internal"),
        ]

    def test_metadata_merges_per_key(self) -> None:
        """Ours is set, ours that went is removed even when changed meanwhile, another's stays."""
        manifest = desired({"calls": meter(metadata={"set": 1})})
        recorded = {"calls": record(1, metadata={"set": 1, "gone": 1})}
        planned = plan(manifest, recorded, [live(1, metadata={"set": 1, "gone": 2, "theirs": 3})])
        change = only(planned)
        assert [(f.path, f.before, f.after) for f in change.fields] == [("metadata.gone", 2, None)]
        assert change.after is not None
        assert change.after.metadata == {"set": 1, "theirs": 3}

    def test_an_adopted_meter_has_no_base_so_nothing_is_removed(self) -> None:
        planned = plan(desired({"calls": meter(metadata={"a": 1})}), {}, [live(1, metadata={"b": 2})])
        assert [f.path for f in only(planned).fields] == ["metadata.a"]

    @pytest.mark.parametrize(
        ("ours", "foreign"), [(1, 1.0), (1, True), (1.0, True), ("1", 1), (0, False), (0.0, 0)]
    )
    def test_types_of_metadata_values_count(self, ours: Any, foreign: Any) -> None:
        manifest = desired({"calls": meter(metadata={"a": ours})})
        recorded = {"calls": record(1, metadata={"a": ours})}
        change = only(plan(manifest, recorded, [live(1, metadata={"a": foreign})]))
        assert [f.path for f in change.fields] == ["metadata.a"]

    @pytest.mark.parametrize(
        ("entry", "change"),
        [
            ("name", {"name": "Theirs"}),
            ("unit", {"unit": "custom", "custom_label": "x", "custom_multiplier": 5}),
            ("metadata", {"metadata": {"a": 9}}),
            ("metadata.a", {"metadata": {"a": 9}}),
        ],
    )
    def test_ignored_changes_stay_as_they_are(self, entry: str, change: Any) -> None:
        block = meter(metadata={"a": 1}, lifecycle={"ignore_changes": [entry]})
        recorded = {"calls": record(1, metadata={"a": 1})}
        planned = plan(desired({"calls": block}), recorded, [live(1, **({"metadata": {"a": 1}} | change))])
        assert not planned.changes

    def test_a_removed_key_that_is_ignored_stays(self) -> None:
        block = meter(lifecycle={"ignore_changes": ["metadata.a"]})
        recorded = {"calls": record(1, metadata={"a": 1})}
        assert not plan(desired({"calls": block}), recorded, [live(1, metadata={"a": 1})]).changes

    def test_more_metadata_than_polar_takes_is_blocked(self) -> None:
        manifest = desired({"calls": meter(metadata={"ours": 1})})
        foreign = {f"k{n}": n for n in range(49)}
        planned = plan(manifest, {"calls": record(1)}, [live(1, metadata=foreign)])
        assert only(planned).cause == "metadata-limit"
        del foreign["k0"]
        assert only(plan(manifest, {"calls": record(1)}, [live(1, metadata=foreign)])).action == "update"

    def test_each_field_knows_its_line(self) -> None:
        manifest = desired({"calls": meter(name="Calls")})
        (field,) = only(plan(manifest, {"calls": record(1)}, [live(1)])).fields
        assert field.source is not None
        text = manifest.document.text.split("\n")[field.source.line - 1]
        assert text[field.source.column - 1 :].startswith('"Calls"')


class TestLimits:
    """Refused by Polar of a new meter, or of a new value, it is no fault of a meter that is so already."""

    ODD: ClassVar[dict[str, dict[str, Any]]] = {
        "a short name": {"name": "ab"},
        "no name": {"name": ""},
        "custom without a label": {"unit": "custom"},
        "a label without custom": {"unit": "token", "custom_label": "call"},
        "a label and no unit": {"custom_label": "call", "custom_multiplier": 10},
    }

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    def test_a_create_is_blocked_and_nobody_else_is(self, odd: Any) -> None:
        planned = plan(desired({"calls": meter(**odd), "other": meter(name="Others")}))
        assert [(c.key, c.action, c.cause) for c in planned.changes] == [
            ("calls", "blocked", "limits"),
            ("other", "create", None),
        ]

    def test_a_create_with_as_many_metadata_keys_as_polar_takes_is_blocked(self) -> None:
        keys = {f"k{n}": n for n in range(50)}
        assert only(plan(desired({"calls": meter(metadata=keys)}))).cause == "metadata-limit"
        del keys["k0"]
        assert only(plan(desired({"calls": meter(metadata=keys)}))).action == "create"

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    def test_what_exists_is_imported_and_managed_as_it_is(self, odd: Any) -> None:
        manifest = desired({"calls": meter(**odd)}, **importing("calls", 1))
        assert only(plan(manifest, {}, [live(1, None, **odd)])).reason == "adopted"
        changed = desired({"calls": meter(**odd, metadata={"ours": 1})})
        update = only(plan(changed, {"calls": record(1, **odd)}, [live(1, **odd)]))
        assert (update.action, [field.path for field in update.fields]) == ("update", ["metadata.ours"])

    @pytest.mark.parametrize("archived_at", [None, ARCHIVED], ids=["active", "archived"])
    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    def test_an_update_to_it_is_blocked(self, odd: Any, archived_at: str | None) -> None:
        there = live(1, archived_at=archived_at)
        change = only(plan(desired({"calls": meter(**odd)}), {"calls": record(1)}, [there]))
        assert (change.action, change.cause) == ("blocked", "limits")
        assert {field.path for field in change.fields} == set(odd)

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    def test_an_update_away_from_it_is_an_update(self, odd: Any) -> None:
        planned = plan(desired({"calls": meter()}), {"calls": record(1, **odd)}, [live(1, **odd)])
        assert only(planned).action == "update"


class TestTargets:
    def test_what_is_left_out_is_left_alone_altogether(self) -> None:
        manifest = desired({"calls": meter(), "other": meter()})
        planned = plan(manifest, {"gone": record(3)}, [live(3, "gone")], targets=["calls"])
        assert actions(planned) == {"calls": "create"}
        assert planned.refusal is None


class TestOffline:
    def test_an_offline_plan_compares_with_the_lockfile(self) -> None:
        manifest = desired({"calls": meter(name="Calls"), "new": meter()})
        planned = plan(manifest, {"calls": record(1)}, None)
        assert actions(planned) == {"calls": "update", "new": "create"}
        assert not planned.refreshed

    def test_an_offline_plan_blocks_a_frozen_meter(self) -> None:
        planned = plan(
            desired({"calls": meter(filter=OTHER_FILTER)}), {"calls": record(1, frozen=True)}, None
        )
        assert only(planned).cause == "frozen"


class TestDigests:
    def test_a_digest_covers_what_a_change_does_and_nothing_else(self) -> None:
        base = plan(desired({"calls": meter(name="Calls")}), {"calls": record(1)}, [live(1)])
        other_lines = desired({"aaa": meter(), "calls": meter(name="Calls")})
        again = plan(other_lines, {"calls": record(1), "aaa": record(2)}, [live(1), live(2, "aaa")])
        assert only(base).digest == only(again).digest
        assert base.digest == again.digest
        for other in (
            plan(desired({"calls": meter(name="Other")}), {"calls": record(1)}, [live(1)]),
            plan(desired({"calls": meter(name="Calls")}), {"calls": record(1)}, [live(1, name="Was")]),
            plan(desired({"calls": meter(name="Calls")}), {"calls": record(2)}, [live(2)]),
            plan(
                desired({"calls": meter(name="Calls")}), {"calls": record(1)}, [live(1)], environment="local"
            ),
            plan(
                desired({"calls": meter(name="Calls")}),
                {"calls": record(1)},
                [live(1)],
                organization_id=identifier(8),
            ),
        ):
            assert only(other).digest != only(base).digest

    def test_the_digest_of_an_empty_plan_covers_environment_and_project(self) -> None:
        digests = {
            plan(desired({}, project=project), {}, [], environment=environment).digest
            for project, environment in (
                ("acme", "sandbox"),
                ("acme", "production"),
                ("other", "sandbox"),
            )
        }
        assert len(digests) == 3

    def test_a_digest_covers_the_marker(self) -> None:
        marked, bare = (
            plan(desired({"calls": meter(name="Calls")}), {"calls": record(1)}, [live(1, key)])
            for key in ("calls", None)
        )
        assert only(marked).digest != only(bare).digest

    def test_digests_follow_the_documented_formulas(self) -> None:
        import hashlib
        import json

        planned = plan(desired({"calls": meter(), "b": meter()}))
        digests = []
        for change in planned.changes:
            document = {
                "environment": "sandbox",
                "organization_id": ORGANIZATION,
                "key": change.key,
                "action": "create",
                "id": None,
                "before": None,
                "marker": {"before": None, "after": f"acme/{change.key}"},
                "after": {
                    "name": "API calls",
                    "unit": "scalar",
                    "custom_label": None,
                    "custom_multiplier": None,
                    "filter": meter()["filter"],
                    "aggregation": {"func": "count"},
                    "metadata": {},
                    "archived": False,
                },
            }
            text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            digests.append(hashlib.sha256(text.encode()).hexdigest())
        assert [change.digest for change in planned.changes] == digests
        plan_document = {
            "environment": "sandbox",
            "organization_id": ORGANIZATION,
            "project": "acme",
            "changes": sorted(digests),
        }
        whole = json.dumps(plan_document, sort_keys=True, separators=(",", ":"))
        assert planned.digest == hashlib.sha256(whole.encode()).hexdigest()


class TestRenamesAreNotRemovals:
    NEW = desired({"pictures": meter(name="Pictures")})

    def test_a_new_key_that_counts_the_same_is_named_before_any_archiving(self) -> None:
        planned = plan(self.NEW, {"images": record(1)}, [live(1, "images")])
        gone = next(change for change in planned.changes if change.key == "images")
        assert gone.cause == "unlisted"
        assert gone.notes[0].kind == "renamed"
        assert "`moved: [{from: images, to: pictures}]`" in gone.notes[0].text
        refused = refusal_text(planned)
        assert refused.index("from: images, to: pictures") < refused.index("archived: true")

    def test_a_possible_rename_is_named_where_archiving_is_allowed(self) -> None:
        planned = plan(self.NEW, {"images": record(1)}, [live(1, "images")], allow_archive=True)
        assert {c.key: [e.kind for e in c.notes] for c in planned.changes}["images"][0] == "renamed"

    def test_a_meter_that_counts_differently_is_not_a_rename(self) -> None:
        planned = plan(self.NEW, {"images": record(1)}, [live(1, "images", filter=OTHER_FILTER)])
        assert self.hints(planned) == {}

    @staticmethod
    def hints(planned: Plan) -> dict[str, str]:
        notes = {change.key: note for change in planned.changes for note in change.notes}
        return {key: note.text for key, note in notes.items() if note.kind == "renamed"}

    SAME_NAME: ClassVar = desired({"pictures": meter(name="Images", filter=OTHER_FILTER, metadata={"x": 1})})

    def test_a_new_key_with_the_same_name_may_be_a_rename_with_a_change(self) -> None:
        old = live(1, "images", name="Images")
        planned = plan(self.SAME_NAME, {"images": record(1)}, [old])
        assert self.hints(planned) == {
            "images": "`pictures` is new and has the same name: if this is the same meter under a new key, "
            "write `moved: [{from: images, to: pictures}]`, and it is changed instead of archived, unless it "
            "is frozen"
        }
        assert "from: images, to: pictures" in refusal_text(planned)
        # What it says does what it says.
        moved = desired(
            {"pictures": meter(name="Images", filter=OTHER_FILTER, metadata={"x": 1})},
            moved=[{"from": "images", "to": "pictures"}],
        )
        assert [c.action for c in plan(moved, {"images": record(1)}, [old]).changes] == ["update"]

    def test_a_frozen_meter_is_replaced_by_a_new_key_and_not_renamed(self) -> None:
        planned = plan(self.SAME_NAME, {"images": record(1, frozen=True)}, [live(1, "images", name="Images")])
        assert self.hints(planned) == {}

    def test_a_name_that_two_new_meters_have_tells_nothing(self) -> None:
        two = {key: meter(name="Images", filter=OTHER_FILTER) for key in ("pictures", "photos")}
        planned = plan(desired(two), {"images": record(1)}, [live(1, "images", name="Images")])
        assert self.hints(planned) == {}

    @pytest.mark.parametrize(
        ("shared", "rest", "hinted"),
        [
            (2, {}, True),
            (1, {}, False),  # half of the clauses: as like as any two meters of one kind of event
            (2, {"metadata": {"x": 1}}, False),
            (2, {"aggregation": {"func": "sum", "property": "tokens"}}, False),
        ],
    )
    def test_a_new_key_in_which_nearly_everything_is_equal_may_be_a_rename(
        self, shared: int, rest: dict[str, Any], hinted: bool
    ) -> None:
        same = [{"property": f"p{number}", "operator": "eq", "value": "x"} for number in range(shared)]

        def counting(region: str) -> dict[str, Any]:
            clause = {"property": "region", "operator": "eq", "value": region}
            return {"conjunction": "and", "clauses": [*same, clause]}

        manifest = desired({"pictures": meter(name="Pictures", filter=counting("us"), **rest)})
        planned = plan(manifest, {"images": record(1)}, [live(1, "images", filter=counting("eu"))])
        assert [text.partition(":")[0] for text in self.hints(planned).values()] == (
            ["`pictures` is new and differs in little"] if hinted else []
        )
        assert "from: images" not in refusal_text(planned), "lines to paste need more"

    def test_each_removed_key_has_the_new_key_that_is_most_like_it(self) -> None:
        manifest = desired({"x": meter(name="Other"), "y": meter(name="Same", filter=OTHER_FILTER)})
        recorded = {"a": record(1), "b": record(2)}
        other = {"conjunction": "or", "clauses": [{"property": "z", "operator": "eq", "value": 1}] * 2}
        planned = plan(
            manifest, recorded, [live(1, "a", name="Same"), live(2, "b", name="Same", filter=other)]
        )
        assert {key: text[:5] for key, text in self.hints(planned).items()} == {"a": "`x` i", "b": "`y` i"}

    def test_the_lines_that_it_prints_permit_it(self) -> None:
        """Pasted under `meters:`, the blocks of a refusal turn every removal into an archive."""
        metadata = {"n": 1.0, "s": "010", "t": True, "null": "~"}
        odd: dict[str, Any] = {"name": "Images: \u0007 “2”", "metadata": metadata}
        recorded = {"images": record(1, **odd), "calls": record(2)}
        meters = [live(1, "images", **odd, filter=OTHER_FILTER), live(2)]
        refused = refusal_text(plan(desired({}), recorded, meters))
        pasted = refused[refused.index("meters:\n") :].rpartition("\nOr let go of them with removed")[0]
        manifest_ = manifest.load(f"version: 1\nproject: acme\n{pasted}".encode(), "meters.yaml")
        assert actions(plan(manifest_, recorded, meters)) == {"images": "archive", "calls": "archive"}

    def test_a_removal_that_is_also_moved_says_what_else_to_remove(self) -> None:
        manifest_ = desired({"new": meter()}, moved=[{"from": "old", "to": "new"}])
        planned = plan(manifest_, {"old": record(1), "new": record(2)}, [live(1, "old"), live(2, "new")])
        assert "remove the move from `old`" in (only(planned).reason or "")


class TestWhatWasNotSent:
    """Fields that were not sent, because they are ignored or the meter is archived."""

    def applied(self, was: Record | None, meter_id: int = 1, **fields: Any) -> Record:
        declared = desired({"calls": meter(**fields)}).meters["calls"]
        return record_of(identifier(meter_id), declared.spec, declared.ignore_changes, was)

    def test_a_field_that_is_not_ignored_anymore_is_the_manifests_change(self) -> None:
        ignoring: dict[str, Any] = {"lifecycle": {"ignore_changes": ["name", "unit"]}}
        was = self.applied(record(1), name="Seats", unit="token", **ignoring)
        assert was.ignored == {"name", "unit"}
        planned = plan(desired({"calls": meter(name="Seats", unit="token")}), {"calls": was}, [live(1)])
        assert {f.path: f.origin for f in only(planned).fields} == {"name": "manifest", "unit": "manifest"}

    def test_what_is_as_it_was_sent_is_known_although_it_is_ignored(self) -> None:
        was = self.applied(record(1), lifecycle={"ignore_changes": ["name"]})
        assert was == record(1)
        planned = plan(desired({"calls": meter()}), {"calls": was}, [live(1, name="By hand")])
        assert [f.origin for f in only(planned).fields] == ["outside"]

    def test_a_key_that_was_only_ever_ignored_is_others(self) -> None:
        ignoring: dict[str, Any] = {"lifecycle": {"ignore_changes": ["metadata.owner"]}}
        was = self.applied(None, metadata={"owner": "ana"}, **ignoring)
        planned = plan(desired({"calls": meter()}), {"calls": was}, [live(1, metadata={"owner": "kim"})])
        assert not planned.changes
        assert bookkeeping(planned) == {("calls", "refresh", identifier(1))}

    def test_of_metadata_that_is_ignored_whole_each_key_counts_for_itself(self) -> None:
        """The manifest may still remove a key that it sent before the key was ignored."""
        ignoring: dict[str, Any] = {"lifecycle": {"ignore_changes": ["metadata", "metadata.team"]}}
        was = self.applied(record(1, metadata={"team": 1}), metadata={"team": 1, "tier": 1}, **ignoring)
        assert was.ignored == {"metadata.tier"}
        planned = plan(
            desired({"calls": meter()}), {"calls": was}, [live(1, metadata={"team": 1, "tier": 9})]
        )
        assert [(f.path, f.after) for f in only(planned).fields] == [("metadata.team", None)]

    def test_recording_twice_gives_the_same_record(self) -> None:
        for fields in (
            {"metadata": {"a": 1, "b": 2}, "lifecycle": {"ignore_changes": ["metadata", "metadata.a"]}},
            {"name": "Seats", "lifecycle": {"ignore_changes": ["name", "metadata.a"]}},
            {"metadata": {"a": 1}, "lifecycle": {"ignore_changes": ["metadata"]}},
            {"archived": True, "name": "Seats"},
        ):
            for base in (None, record(1), record(1, metadata={"a": 2}), record(1, archived=True)):
                once = self.applied(base, **fields)
                assert self.applied(once, **fields) == once

    def test_what_a_manifest_drops_while_a_meter_is_archived_goes_when_it_comes_back(self) -> None:
        was = self.applied(record(1, metadata={"owner": "ana"}), archived=True)
        assert was.spec is not None
        assert (was.spec.archived, dict(was.spec.metadata)) == (True, {"owner": "ana"})
        archived = live(1, metadata={"owner": "ana", "theirs": 1}, archived_at=ARCHIVED)
        planned = plan(desired({"calls": meter()}), {"calls": was}, [archived])
        assert [(f.path, f.after, f.origin) for f in only(planned).fields] == [
            ("metadata.owner", None, "manifest")
        ]

    def test_nothing_is_removed_from_a_meter_that_was_adopted_archived(self) -> None:
        was = self.applied(None, archived=True, metadata={"owner": "ana"})
        archived = live(1, metadata={"owner": "kim"}, archived_at=ARCHIVED)
        planned = plan(desired({"calls": meter()}), {"calls": was}, [archived])
        assert (only(planned).action, only(planned).fields) == ("unarchive", ())


class TestArchivedOutside:
    def test_archiving_at_polar_is_shown_as_outside(self) -> None:
        planned = plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1, archived_at=ARCHIVED)])
        fact = only(planned).notes[0]
        assert (only(planned).action, fact.kind) == ("unarchive", "outside")
        assert "`archived: true`" in fact.text

    def test_unarchiving_at_polar_is_shown_as_outside(self) -> None:
        recorded = {"calls": record(1, archived=True)}
        planned = plan(desired({"calls": meter(archived=True)}), recorded, [live(1)])
        assert (only(planned).action, only(planned).notes[0].kind) == ("archive", "outside")

    def test_archiving_by_the_manifest_is_not_shown_as_outside(self) -> None:
        back = plan(
            desired({"calls": meter()}), {"calls": record(1, archived=True)}, [live(1, archived_at=ARCHIVED)]
        )
        gone = plan(desired({"calls": meter(archived=True)}), {"calls": record(1)}, [live(1)])
        for planned in (back, gone):
            assert not any(fact.kind == "outside" for fact in only(planned).notes)


class TestNoSpaceForTheMarker:
    FULL: ClassVar[dict[str, Any]] = {f"k{n}": n for n in range(50)}

    def test_archiving_needs_no_space_for_the_marker(self) -> None:
        planned = plan(
            desired({"calls": meter(archived=True)}),
            {"calls": record(1)},
            [live(1, None, metadata=self.FULL)],
        )
        assert (only(planned).action, only(planned).marker) == ("archive", None)
        assert not planned.bookkeeping

    def test_metadata_of_ours_that_does_not_fit_is_blocked(self) -> None:
        block = meter(metadata={"ours": 1})
        planned = plan(desired({"calls": block}), {"calls": record(1)}, [live(1, None, metadata=self.FULL)])
        assert (only(planned).action, only(planned).cause) == ("blocked", "metadata-limit")


class TestMovesToNowhere:
    def test_a_move_to_a_key_that_is_gone_itself_is_merely_old(self) -> None:
        manifest_ = desired({}, moved=[{"from": "a", "to": "b"}])
        planned = plan(manifest_, {"a": record(1)}, [live(1, "a", archived_at=ARCHIVED)])
        assert bookkeeping(planned) == {("a", "forget", identifier(1))}


class TestGoneAndUnknown:
    def test_offline_a_meter_of_which_only_the_id_is_known_may_still_bill(self) -> None:
        planned = plan(desired({}), {"calls": Record(identifier(1), None)}, None)
        assert (only(planned).action, only(planned).cause) == ("blocked", "unlisted")


@given(block=strategies.live_specs(), archived=st.booleans())
def test_any_live_meter_that_is_declared_as_it_is_changes_by_its_marker_alone(
    block: dict[str, Any], archived: bool
) -> None:
    spec = MeterSpec.from_json(block | {"archived": archived})
    text = (
        "version: 1\nproject: acme\n"
        f"import: [{{to: calls, id: {{sandbox: {identifier(1)}}}}}]\n"
        f"meters:\n{write.block('calls', spec)}"
    )
    there = replace(live(1, None, archived_at=ARCHIVED if archived else None), spec=spec)
    planned = plan(manifest.load(text.encode(), "meters.yaml"), {}, [there])
    is_full = len(spec.metadata) == 50
    assert [change.action for change in planned.changes] == ([] if is_full else ["mark"])
    assert all(not change.fields for change in planned.changes)
    assert bookkeeping(planned) == ({("calls", "adopt", identifier(1))} if is_full else set())


@given(block=strategies.specs(), archived=st.booleans())
def test_a_block_that_is_printed_declares_that_meter(block: dict[str, Any], archived: bool) -> None:
    declared = MeterSpec.from_json(block | {"archived": archived})
    text = f"version: 1\nproject: acme\nmeters:\n{write.block('calls', declared)}"
    assert manifest.load(text.encode(), "meters.yaml").meters["calls"].spec == declared


@pytest.mark.parametrize(
    "text",
    [
        ".2e05124",
        "010",
        "1_000",
        "2026-01-01",
        "~",
        "yes",
        "Off",
        "null",
        "0x10",
        "a: b",
        "- a",
        ":0",
        "x #",
        "a\x85b",
        "a\u2028b",
        " a\n b ",
    ],
)
def test_texts_that_look_like_something_else_stay_texts(text: str) -> None:
    declared = MeterSpec.from_json(meter(metadata={"a": text}))
    block = write.block("calls", declared)
    loaded = manifest.load(f"version: 1\nproject: acme\nmeters:\n{block}".encode(), "meters.yaml")
    assert loaded.meters["calls"].spec == declared
