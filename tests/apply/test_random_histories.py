"""A sample of the random histories, and that their oracle sees what must not be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polar_iac.local import LocalPolar
from tests.differential import histories, oracle, table
from tests.differential.histories import FlaggedError
from tests.differential.rounds import Moment, Round, Write
from tests.differential.table import Table
from tests.differential.truth import Json, Meter, Meters, normal_filter, snapshot
from tests.differential.world import new_world
from tests.support.build import meter
from tests.support.fork_server import ForkServer

CLAUSE = meter()["filter"]["clauses"][0]


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(4))
def test_random_histories(seed: int, tmp_path: Path, warmed: ForkServer) -> None:
    outcome = histories.play(seed, tmp_path, warmed, steps=12)
    assert not outcome.flags, FlaggedError(outcome)


def live(tmp_path: Path, *markers: str | None) -> Meters:
    """Meters that are alike but for their markers."""
    polar = LocalPolar()
    try:
        with new_world(tmp_path, polar) as world:
            for marker in markers:
                world.create(meter(metadata={"polar_iac": marker} if marker else {}))
            return snapshot(polar)
    finally:
        polar.close()


def empty_plan(*changes: Json) -> Json:
    return {"changes": list(changes), "bookkeeping": [], "notes": []}


def kinds(before: Meters, after: Meters, plan: Json, *sent: Write) -> set[str]:
    """The kinds of flags of an apply that did this."""
    of = Round(
        declared={},
        plan=plan,
        targets=(),
        allow_archive=False,
        permitted=True,
        calm=True,
        complete=True,
        before=Moment(before, None, ""),
        after=Moment(after, None, ""),
        sent=sent,
        code=0,
        made=frozenset(),
    )
    return {flag.kind for flag in oracle.flags(of)}


def test_the_oracle_flags_writes_that_were_not_shown(tmp_path: Path) -> None:
    before = live(tmp_path, None, "acme/calls")
    stranger, ours = before
    nothing = empty_plan()
    assert kinds(before, before, nothing) == set()
    assert kinds(before, before, nothing, Write("PATCH", ours, {"name": "x"})) == {"unshown-write", "inexact"}
    assert "unshown-write" in kinds(before, before, nothing, Write("POST", "", meter()))
    archived = {**before[stranger].document, "archived_at": "2026-01-01T00:00:00.000000Z"}
    touched = before | {stranger: Meter(json.dumps(archived), frozen=False)}
    assert kinds(before, touched, nothing) == {"touched", "stranger-touched"}


def test_the_oracle_flags_duplicates(tmp_path: Path) -> None:
    two = live(tmp_path, "acme/calls", "acme/calls")
    one = dict([next(iter(two.items()))])
    assert "duplicates" in kinds(one, two, empty_plan())
    assert kinds(two, two, empty_plan()) == {"duplicates-unreported"}
    assert kinds(two, two, {**empty_plan(), "notes": [{"text": " and ".join(two)}]}) == set()


def test_the_table_flags_wrong_decisions(tmp_path: Path) -> None:
    before = live(tmp_path, None, "acme/calls")
    stranger, ours = before
    blocks = {"calls": meter(), "tokens": meter(name="Tokens")}
    declared = Table(blocks, {}, {}, before, allow_archive=False)
    create: Json = {"key": "tokens", "action": "create", "id": None, "fields": [], "marker": None}
    note = {"kind": "same-billing", "source": "polar", "data": {"meters": [{"id": stranger}]}}
    assert not list(table.flags(declared, empty_plan({**create, "evidence": [note]}), ()))
    silent = empty_plan({**create, "evidence": []})
    assert {flag.kind for flag in table.flags(declared, silent, ())} == {"unreported"}
    assert {flag.kind for flag in table.flags(declared, empty_plan(), ())} == {"decision"}
    wrong = Table(
        declared.declared, {}, {"calls": {"id": stranger, "spec": None}}, before, allow_archive=False
    )
    assert wrong.answer("calls").actions == {"blocked"}
    assert declared.answer("calls").id == ours


def test_a_part_of_a_later_version_blocks_its_key_alone(tmp_path: Path) -> None:
    polar = LocalPolar()
    try:
        with new_world(tmp_path, polar) as world:
            world.create(meter(metadata={"polar_iac": "acme/tokens"}))
            world.outgrow(world.create(meter(metadata={"polar_iac": "acme/calls"})))
            declared = Table(
                {"calls": meter(), "tokens": meter()}, {}, {}, snapshot(polar), allow_archive=False
            )
    finally:
        polar.close()
    assert [declared.answer(key).actions for key in declared.declared] == [{"blocked"}, {"nothing"}]


def test_a_meter_stays_with_the_record_that_could_not_move(tmp_path: Path) -> None:
    before = live(tmp_path, "acme/calls", "acme/tokens")
    calls, tokens = ({"id": meter_id, "spec": meter(metadata={})} for meter_id in before)
    moved = {"calls": "exports", "exports": "tokens"}
    both = Table({"tokens": meter()}, moved, {"calls": calls, "tokens": tokens}, before, allow_archive=False)
    assert {key: both.answer(key).actions for key in both.keys} == {
        "calls": {"blocked"},
        "tokens": {"nothing"},
    }


def test_a_create_that_is_recorded_since_leaves_the_lockfile_complete() -> None:
    lockfile = json.dumps({"meters": {"calls": {"id": "1", "spec": None}}})
    begin, create = '{"effect":"begin","key":""}\n', '{"effect":"create","key":"%s"}\n'
    assert Moment({}, lockfile, begin + create % "calls").lockfile_is_complete
    assert Moment({}, lockfile, begin + '{"effect":"rec').lockfile_is_complete
    assert not Moment({}, lockfile, begin + create % "tokens").lockfile_is_complete
    assert not Moment({}, lockfile, begin + '{"effect":"made","key":"calls","id":"1"}\n').lockfile_is_complete


@pytest.mark.parametrize(
    "other",
    [
        {"conjunction": "or", "clauses": [CLAUSE]},
        {"conjunction": "and", "clauses": [CLAUSE, CLAUSE]},
        {"conjunction": "and", "clauses": [{"conjunction": "or", "clauses": [CLAUSE]}]},
        {"conjunction": "and", "clauses": [CLAUSE, {"conjunction": "or", "clauses": []}]},
        {"conjunction": "and", "clauses": [{**CLAUSE, "property": "metadata.name"}]},
    ],
)
def test_the_oracle_treats_forms_of_one_filter_as_equal(other: Json) -> None:
    assert normal_filter(other) == normal_filter({"conjunction": "and", "clauses": [CLAUSE]})
