"""The lockfile and the journal: what they hold, how they are written, and what is said of broken ones."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.errors import DiagnosticError, PolarIacError
from polar_iac.files import state_directory
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.state import journal, lockfile
from polar_iac.state.journal import Journal
from polar_iac.state.lockfile import Lockfile
from tests.support import strategies
from tests.support.build import NOW, ORGANIZATION, identifier, record, spec

GOOD = Lockfile("sandbox", ORGANIZATION, "acme", {"b": record(2), "a": record(1, frozen=True)})


def loads(text: str) -> Lockfile:
    return lockfile.loads(text, "meters.sandbox.lock.json", "sandbox", "acme")


class TestText:
    def test_the_text_has_one_value_a_line_and_sorted_keys(self) -> None:
        text = lockfile.dumps(GOOD)
        assert text.endswith("}\n")
        assert list(json.loads(text)) == ["environment", "meters", "organization_id", "project", "version"]
        assert list(json.loads(text)["meters"]) == ["a", "b"]
        assert '\n  "meters": {\n    "a": {\n      "frozen": true,\n      "id"' in text
        assert text == lockfile.dumps(loads(text))

    def test_fields_that_this_version_does_not_know_are_kept(self) -> None:
        data = json.loads(lockfile.dumps(GOOD))
        data["later"] = {"x": [1]}
        data["meters"]["a"]["also"] = "y"
        again = json.loads(lockfile.dumps(loads(json.dumps(data))))
        assert again == data

    @given(
        meters=st.dictionaries(
            st.sampled_from(strategies.KEYS),
            st.tuples(strategies.specs(), st.booleans(), st.uuids(version=4)),
        )
    )
    def test_a_lockfile_is_read_as_it_was_written(self, meters: dict[str, Any]) -> None:
        records = {
            key: Record(str(uid), MeterSpec.from_json(spec), frozen)
            for key, (spec, frozen, uid) in meters.items()
        }
        state = Lockfile("sandbox", ORGANIZATION, "acme", records)
        if len({r.id for r in records.values()}) == len(records):
            again = loads(lockfile.dumps(state))
            assert again.meters == records
            assert lockfile.dumps(again) == lockfile.dumps(state)


def broken(**changes: Any) -> str:
    return json.dumps({**json.loads(lockfile.dumps(GOOD)), **changes}, indent=2)


TWICE = json.loads(lockfile.dumps(GOOD))["meters"]
TWICE["b"]["id"] = TWICE["a"]["id"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "not valid JSON"),
        ("[]", "1:1", "JSON object"),
        ('{"version": 1,\n "version": 1}', "2:2", "`version` appears twice"),
        ('{\n<<<<<<< HEAD\n"a": 1\n=======\n"a": 2\n>>>>>>> x\n}', "2:1", "conflict marker"),
        ('{"version": 1, "meters": NaN}', "1:1", "not a JSON number"),
        ('{"version": 1, "meters": {\n  "a": {\n', "3:1", "not valid JSON"),
        ("9" * 5000, "1:1", "not a lockfile: a number is too large, or it is nested too deeply"),
        ("[" * 100_000, "1:1", "not a lockfile: a number is too large, or it is nested too deeply"),
        (broken(version=2), "2:3", "version 2 is not known"),
        (broken(version=True), "2:3", "version true is not known"),
        (broken(environment="production"), "2:3", 'environment "production", not of sandbox'),
        (broken(project="other"), "2:3", 'project "other"'),
        (broken(organization_id="x"), "2:3", "organization_id"),
        (broken(meters=[]), "2:3", "`meters` is not an object"),
        (broken(meters={"a": 5}), "2:3", "entry of `a`"),
        (broken(meters={"a": {"id": "x"}}), "2:3", "`a` has no id"),
        (broken(meters={"a": {"id": identifier(1), "spec": {"name": 5}}}), "2:3", "spec of `a`"),
        (broken(meters={"a": {"id": identifier(1), "spec": None, "frozen": 1}}), "2:3", "`frozen` of `a`"),
        (
            broken(meters={"a": {"id": identifier(1), "spec": None, "frozen": "false"}}),
            "2:3",
            "`frozen` of `a` is neither true nor false",
        ),
        (
            broken(meters={"a": {"id": identifier(1), "spec": None, "ignored": ["name", 1]}}),
            "2:3",
            "`ignored` of `a` is not a list of fields",
        ),
        (broken(meters=TWICE), "2:3", "record the same meter"),
    ],
)
def test_a_broken_lockfile_is_reported_at_its_place(text: str, place: str, message: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        loads(text)
    (diagnostic,) = caught.value.diagnostics
    assert message in diagnostic.message
    assert diagnostic.span.file == "meters.sandbox.lock.json"
    if place != "2:3":
        assert f"{diagnostic.span.line}:{diagnostic.span.column}" == place
    else:
        marked = text.split("\n")[diagnostic.span.line - 1][diagnostic.span.column - 1 :]
        assert marked.startswith('"')
        assert diagnostic.span.line > 1


def test_an_unreadable_lockfile_is_reported_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PolarIacError, match="UTF-8"):
        lockfile.read(path, "sandbox", "acme")
    with pytest.raises(PolarIacError, match="cannot read"):
        lockfile.read(tmp_path, "sandbox", "acme")
    assert lockfile.read(tmp_path / "none", "sandbox", "acme").organization_id is None


@pytest.mark.parametrize("marks", [1, 2])
def test_a_lockfile_may_begin_with_byte_order_marks(tmp_path: Path, marks: int) -> None:
    """Windows editors write one, and some a second one. The next apply writes none."""
    path, mark = tmp_path / "lock", "\ufeff" * marks
    path.write_text(mark + lockfile.dumps(GOOD), encoding="utf-8")
    assert lockfile.read(path, "sandbox", "acme") == loads(lockfile.dumps(GOOD))
    with pytest.raises(DiagnosticError) as caught:
        loads(f'{mark}{{"version": 2}}')
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.span.column, diagnostic.excerpt) == (2, '{"version": 2}')


class TestWriting:
    def test_writing_keeps_the_mode_and_leaves_no_other_file(self, tmp_path: Path) -> None:
        path = tmp_path / "meters.sandbox.lock.json"
        mask = os.umask(0o027)
        try:
            lockfile.save(path, GOOD)
        finally:
            os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        lockfile.save(path, GOOD)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]

    def test_follows_no_link(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.write_text("precious")
        path = tmp_path / "in" / "lock.json"
        path.parent.mkdir()
        path.symlink_to(outside)
        lockfile.save(path, GOOD)
        assert outside.read_text() == "precious"
        assert not path.is_symlink()
        (path.parent / ".polar-iac").symlink_to(tmp_path, target_is_directory=True)
        with pytest.raises(PolarIacError, match="symbolic link"):
            state_directory(path)

    def test_a_directory_that_cannot_be_written_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(PolarIacError, match="cannot write"):
            lockfile.save(tmp_path / "none" / "lock.json", GOOD)
        (tmp_path / ".polar-iac").write_text("a file")
        with pytest.raises(PolarIacError, match="cannot write"):
            state_directory(tmp_path / "lock.json")

    def test_a_failed_write_leaves_no_other_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "meters.sandbox.lock.json"
        lockfile.save(path, GOOD)
        before = path.read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(PolarIacError, match="No space left"):
            lockfile.save(path, Lockfile("sandbox", None, "acme"))
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes() == before


class TestJournal:
    def open(self, tmp_path: Path, state: Lockfile = GOOD) -> tuple[Journal, Path]:
        path = tmp_path / "meters.sandbox.lock.json"
        state_directory(path)
        return Journal(journal.path_for(path), state), path

    def test_a_journal_is_read_with_the_state_that_the_run_had(self, tmp_path: Path) -> None:
        record_, path = self.open(tmp_path)
        with record_:
            record_.learn_organization(identifier(9))
            record_.intend("new", "acme/new", spec(), NOW)
            record_.record("new", Record(identifier(3), spec()), answer="created")
            record_.intend("lost", "acme/lost", spec(name="Lost"), NOW)
            record_.intend("refused", "acme/refused", spec(), NOW)
            record_.not_created("refused")
            record_.record("renamed", record(2), was="b")
            record_.forget("a", identifier(1))
            state = journal.read(journal.path_for(path), GOOD)
            assert state.meters == record_.meters
            assert state.organization_id == identifier(9)
            assert journal.read(journal.path_for(path), record_.lockfile).meters == record_.meters
            assert set(state.meters) == {"new", "renamed"}
            assert state.created == {identifier(3): "new"}
            assert {
                key: [(i.marker, i.spec.name) for i in intents] for key, intents in state.unresolved.items()
            } == {"lost": [("acme/lost", "Lost")]}

    def test_a_last_line_that_is_cut_short_is_ignored(self, tmp_path: Path) -> None:
        record_, path = self.open(tmp_path)
        with record_:
            record_.forget("a", identifier(1))
            record_.forget("b", identifier(2))
        file = journal.path_for(path)
        whole = file.read_bytes()
        second = whole.index(b"\n", whole.index(b"\n") + 1) + 1
        for end in range(second, len(whole)):
            file.write_bytes(whole[:end])
            assert set(journal.read(file, GOOD).meters) == {"b"}

    def test_a_run_that_goes_on_after_a_torn_line_cuts_it_off(self, tmp_path: Path) -> None:
        record_, path = self.open(tmp_path)
        with record_:
            record_.forget("a", identifier(1))
        with journal.path_for(path).open("ab") as file:
            file.write(b'{"effect":"forg')
        again, _ = self.open(tmp_path)
        with again:
            again.intend("new", "acme/new", spec(), NOW)
        state = journal.read(journal.path_for(path), GOOD)
        assert set(state.meters) == {"b"}
        assert set(state.unresolved) == {"new"}

    def test_creates_before_a_sweep_stay_in_the_journal(self, tmp_path: Path) -> None:
        record_, path = self.open(tmp_path)
        with record_:
            record_.record("new", Record(identifier(3), spec()), answer="created")
            record_.finish(path, NOW)
        state = lockfile.read(path, "sandbox", "acme")
        assert set(state.meters) == {"a", "b", "new"}
        again, _ = self.open(tmp_path, state)
        with again:
            assert again.created == {identifier(3): "new"}
            again.duplicates_settled()
            again.finish(path, NOW)
        assert not journal.path_for(path).exists()

    def test_fields_that_this_version_does_not_know_survive_a_record(self, tmp_path: Path) -> None:
        state = Lockfile("sandbox", ORGANIZATION, "acme", {"a": replace(record(1), extra={"also": "y"})})
        record_, path = self.open(tmp_path, state)
        with record_:
            record_.record("a", record(1, name="Renamed"))
            record_.record("moved", record(1, name="Renamed"), was="a")
            record_.finish(path, NOW)
        (written,) = lockfile.read(path, "sandbox", "acme").meters.values()
        assert (written.extra, written.spec and written.spec.name) == ({"also": "y"}, "Renamed")

    def test_a_line_that_is_not_an_entry_is_reported_with_its_place(self, tmp_path: Path) -> None:
        file = tmp_path / "journal"
        for line in (
            "{}",
            "nonsense",
            '{"effect": "record", "key": "a"}',
            '{"effect": "x", "key": "a"}',
            "[]",
            "5",
            '{"effect":"create","key":"a","marker":"\\ud800","spec":' + json.dumps(spec().canonical) + "}",
        ):
            file.write_text('{"effect":"forget","key":"a"}\n' + line + "\n")
            with pytest.raises(PolarIacError, match=r"journal:2:1: error"):
                journal.read(file, GOOD)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("frozen", "false"),
            ("frozen", 0),
            ("frozen", None),
            ("created", "false"),
            ("found", 1),
            ("id", "not-a-uuid"),
            ("id", 1),
            ("key", 1),
            ("was", ["a"]),
            ("ignored", "name"),
            ("spec", {"name": "A"}),
            ("spec", "null"),
        ],
    )
    def test_a_value_of_another_type_is_refused_and_never_converted(
        self, tmp_path: Path, field: str, value: Any
    ) -> None:
        """Example: the text "false" would read as true."""
        entry = {"effect": "record", "key": "a", "id": identifier(1), "spec": None, "frozen": False}
        file = tmp_path / "journal"
        file.write_text(json.dumps(entry) + "\n")
        assert journal.read(file, GOOD).meters["a"].frozen is True  # the lockfile knows that
        file.write_text(json.dumps(entry | {field: value}) + "\n")
        with pytest.raises(PolarIacError, match=r"journal:1:1: error: this line is not a journal entry"):
            journal.read(file, GOOD)

    def test_the_journal_keeps_the_words_of_earlier_versions(self, tmp_path: Path) -> None:
        record_, path = self.open(tmp_path, Lockfile("sandbox", None, "acme"))
        with record_:
            record_.learn_organization(ORGANIZATION)
            record_.intend("a", "acme/a", spec(), NOW)
            record_.not_created("a")
            record_.record("a", Record(identifier(1), None, ignored=frozenset({"name"})), answer="created")
            record_.record("b", Record(identifier(1), None, frozen=True), was="a")
            record_.forget("b", identifier(1))
            record_.duplicates_settled()
            text = journal.path_for(path).read_text()
        begin, *lines = text.replace(identifier(1), "ID").splitlines()
        assert begin.startswith(
            '{"effect":"begin","key":"","environment":"sandbox","project":"acme","lockfile":"'
        )
        assert lines == [
            f'{{"effect":"organization","key":"","id":"{ORGANIZATION}"}}',
            '{"effect":"create","key":"a","marker":"acme/a","spec":'
            + json.dumps(spec().canonical, separators=(",", ":"))
            + ',"at":"2026-01-02T00:00:00.000000Z"}',
            '{"effect":"gave-up","key":"a"}',
            '{"effect":"record","key":"a","id":"ID","spec":null,"frozen":false,"ignored":["name"],"created":true}',
            '{"effect":"record","key":"b","id":"ID","spec":null,"frozen":true,"was":"a"}',
            '{"effect":"forget","key":"b","id":"ID"}',
            '{"effect":"swept","key":""}',
        ]

    def test_finish_folds_the_journal_and_writes_no_lockfile_without_news(self, tmp_path: Path) -> None:
        record_, path = self.open(tmp_path)
        with record_:
            record_.forget("a", identifier(1))
            record_.finish(path, NOW)
        assert set(lockfile.read(path, "sandbox", "acme").meters) == {"b"}
        assert not journal.path_for(path).exists()
        before = path.stat().st_mtime_ns, path.stat().st_ino
        record_, _ = self.open(tmp_path, lockfile.read(path, "sandbox", "acme"))
        with record_:
            record_.finish(path, NOW)
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == before

    def test_follows_no_link(self, tmp_path: Path) -> None:
        path = tmp_path / "meters.sandbox.lock.json"
        state_directory(path)
        (tmp_path / "outside").write_text("precious")
        journal.path_for(path).symlink_to(tmp_path / "outside")
        with pytest.raises(PolarIacError, match="cannot read the journal"):
            Journal(journal.path_for(path), GOOD)
