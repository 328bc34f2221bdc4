"""Merge of lockfiles by key, and what is pushed of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.ci.keep_lockfiles import merged_text, push_result, refusal
from polar_iac.ci.lockfile_merge import MergeConflictError, merge
from polar_iac.errors import DiagnosticError
from polar_iac.meter.record import Record
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile
from tests.support.build import ORGANIZATION, identifier, random_uuid, record

A, B, C = record(1, name="A"), record(2, name="B"), record(3, name="C")
CHANGED = record(1, name="Changed")


def locked(organization: str | None = ORGANIZATION, **meters: Record) -> Lockfile:
    return Lockfile("sandbox", organization, "acme", meters)


BASE = locked(a=A, b=B)


@pytest.mark.parametrize(
    ("theirs", "ours", "merged"),
    [
        (BASE, BASE, BASE),
        (BASE, locked(a=CHANGED, b=B), locked(a=CHANGED, b=B)),
        (locked(a=CHANGED, b=B), BASE, locked(a=CHANGED, b=B)),
        (locked(a=CHANGED, b=B), locked(a=CHANGED, b=B), locked(a=CHANGED, b=B)),
        (locked(a=CHANGED, b=B), locked(a=A, b=B, c=C), locked(a=CHANGED, b=B, c=C)),
        (locked(a=A), locked(a=CHANGED, b=B), locked(a=CHANGED)),
        (locked(a=CHANGED, b=B), locked(a=A), locked(a=CHANGED)),
        (locked(b=B), locked(b=B), locked(b=B)),
        (locked(b=B), locked(a=A), locked()),
        (locked(b=B, c=A), BASE, locked(b=B, c=A)),
    ],
)
def test_theirs_plus_what_we_changed(theirs: Lockfile, ours: Lockfile, merged: Lockfile) -> None:
    assert merge(BASE, theirs, ours) == merged


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (locked(a=record(1, name="X"), b=B), locked(a=CHANGED, b=B), "the same meter in it: `a`"),
        (locked(b=B), locked(a=CHANGED, b=B), "the same meter in it: `a`"),
        (locked(a=CHANGED, b=B), locked(b=B), "the same meter in it: `a`"),
        (locked(a=A, b=B, c=C), locked(a=A, b=B, c=record(4)), "the same meter in it: `c`"),
        (locked(a=CHANGED), locked(b=record(2, name="Y")), "the same meters in it: `a` and `b`"),
        (locked(b=B, x=A), locked(b=B, y=A), f"the meter {A.id} under `x`, and this one under `y`"),
        (replace(BASE, organization_id=random_uuid()), locked(None, a=A, b=B), "another organization_id"),
        (replace(BASE, extra={"new": 1}), replace(BASE, extra={"new": 2}), "changed new in it, too"),
        (replace(BASE, project="other"), BASE, "is of other in sandbox, the other of acme in sandbox"),
        (replace(BASE, environment="production"), BASE, "is of acme in production"),
    ],
)
def test_two_changes_of_one_thing_are_a_conflict_in_plain_words(
    theirs: Lockfile, ours: Lockfile, said: str
) -> None:
    with pytest.raises(MergeConflictError) as conflict:
        merge(BASE, theirs, ours)
    assert said in str(conflict.value)


def test_an_organization_that_either_side_learned_is_kept() -> None:
    unknown = locked(None)
    assert merge(unknown, unknown, locked()).organization_id == ORGANIZATION
    assert merge(unknown, locked(), unknown).organization_id == ORGANIZATION
    assert merge(unknown, locked(), locked()).organization_id == ORGANIZATION


def test_fields_of_later_versions_are_merged_too() -> None:
    later = replace(BASE, extra={"theirs": 1})
    ours = replace(locked(a=replace(A, extra={"new": 1}), b=B), extra={"ours": 2})
    merged = merge(BASE, later, ours)
    assert merged.extra == {"theirs": 1, "ours": 2}
    assert merged.meters["a"].extra == {"new": 1}


RECORDS = st.sampled_from([record(n, name=name) for n in (1, 2) for name in ("A", "B")])
METERS = st.dictionaries(st.sampled_from("abc"), RECORDS, max_size=3)


@given(METERS, METERS, METERS)
def test_a_merge_loses_no_side(base: Any, theirs: Any, ours: Any) -> None:
    """Whatever one side changed is in the merge, or the merge is refused; and the sides are equal."""

    def merged(one: Any, other: Any) -> Lockfile | None:
        try:
            return merge(locked(**base), locked(**one), locked(**other))
        except MergeConflictError:
            return None

    result = merged(theirs, ours)
    assert result == merged(ours, theirs)
    if result is not None:
        for side in (theirs, ours):
            changed = {key for key in {*base, *side} if base.get(key) != side.get(key)}
            assert all(result.meters.get(key) == side.get(key) for key in changed)


# What is pushed


def text(held: Lockfile) -> bytes:
    return lockfile.dumps(held).encode()


def test_nothing_is_pushed_where_theirs_has_it_all() -> None:
    changed = locked(a=CHANGED, b=B)
    assert merged_text("sandbox", text(BASE), text(changed), text(BASE)) is None
    assert (
        merged_text("sandbox", text(BASE), text(changed) + b"\n", text(changed)) is None
    )  # as someone wrote it
    assert merged_text("sandbox", text(BASE), None, text(BASE)) is None  # someone has removed it


def test_what_we_changed_is_pushed_in_the_form_of_a_lockfile() -> None:
    changed = locked(a=CHANGED, b=B)
    assert merged_text("sandbox", text(BASE), text(locked(a=A, b=B, c=C)), text(changed)) == lockfile.dumps(
        locked(a=CHANGED, b=B, c=C)
    )
    for theirs, base in ((None, None), (None, text(BASE))):
        assert merged_text("sandbox", base, theirs, text(changed)) == lockfile.dumps(changed)
    assert merged_text("sandbox", None, text(locked(c=C)), text(BASE)) == lockfile.dumps(
        locked(a=A, b=B, c=C)
    )


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (b"<<<<<<< ours\n", "a git conflict marker"),
        (text(BASE).replace(b'"version": 1', b'"version": 2'), "lockfile version 2 is not known"),
        (text(replace(BASE, project="other")), 'of the project "other"'),
        (text(replace(BASE, environment="production")), 'of the environment "production"'),
        (text(BASE).replace(identifier(2).encode(), identifier(1).encode()), "record the same meter"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_a_lockfile_that_cannot_be_merged_says_why(theirs: bytes, said: str) -> None:
    with pytest.raises(DiagnosticError) as error:
        merged_text("sandbox", text(BASE), theirs, text(locked(a=CHANGED, b=B)))
    assert said in str(error.value)
    assert "the lockfile (the remote's)" in str(error.value)


# What a push says

STALE = "! [rejected] 0123456..89abcde (stale info)"
RACED = "! [remote rejected] 012 -> main (cannot lock ref 'refs/heads/main': is at 1 but expected 2)"
PROTECTED = (
    "remote: error: GH006: Protected branch update failed for refs/heads/main.\n"
    "! [remote rejected] 012 -> main (protected branch hook declined)\nerror: failed to push some refs to 'x'"
)
RULES = (
    "remote: - Changes must be made through a pull request.\n! [remote rejected] main -> main (push declined)"
)
FORBIDDEN = (
    "remote: Permission to acme/billing.git denied to github-actions[bot].\n"
    "fatal: unable to access 'https://github.com/acme/billing/': The requested URL returned error: 403"
)


@pytest.mark.parametrize(
    ("output", "result"),
    [
        (STALE, "moved"),
        (RACED, "moved"),
        ("! [remote rejected] a -> b (incorrect old value provided)", "moved"),
        ("! [remote rejected] a -> b (reference already exists)", "moved"),
        ("! [remote rejected] a -> b (failed to update ref)", "moved"),
        (PROTECTED, "protected"),
        (RULES, "protected"),
        (FORBIDDEN, "forbidden"),
        ("remote: Write access to repository not granted.", "forbidden"),
        ("fatal: unable to access 'https://github.com/': Could not resolve host", "failed"),
        ("", "failed"),
    ],
)
def test_what_a_push_means(output: str, result: str) -> None:
    assert push_result(output) == result


def test_a_refusal_says_what_would_let_the_push_in() -> None:
    protected = refusal("protected", PROTECTED, "commit", "main")
    for words in (
        "GH006: Protected branch",
        "persist: branch",
        "persist: pull-request",
        "GitHub App",
        "twice",
    ):
        assert words in protected
    forbidden = refusal("forbidden", FORBIDDEN, "commit", "main")
    assert "permissions: {contents: write}" in forbidden
    assert "is protected" not in forbidden
    state = refusal("protected", RULES, "branch", "polar-iac-state")
    assert "The branch polar-iac-state must be free to push to" in state
    assert "Changes must be made through a pull request." in state
    long = refusal("protected", "remote: line\n" * 50, "commit", "main")
    assert long.count("\nline") == 12
