"""Inputs of the actions: what they mean, and what is refused before anything is asked of Polar."""

from __future__ import annotations

from typing import Any

import pytest

from polar_iac.ci.inputs import (
    after_apply,
    apply_arguments,
    check_apply,
    check_environments,
    digest_of,
    read_fail_on,
    read_inputs,
    verdict,
    verdict_on_tests,
)
from polar_iac.errors import ExitCode, PolarIacError

VARIABLES = {
    "GITHUB_REF": "refs/heads/main",
    "INPUT_ALLOW_ARCHIVE": "false",
    "INPUT_DEADLINE": "",
    "INPUT_DIGEST": "",
    "INPUT_ENVIRONMENTS": "sandbox production",
    "INPUT_FAIL_ON": "blocked",
    "INPUT_FILE": "meters.yaml",
    "INPUT_MAX_CHANGES": "",
    "INPUT_PERSIST": "commit",
    "INPUT_PLAN": "",
    "INPUT_STATE_BRANCH": "",
    "INPUT_WORKING_DIRECTORY": ".",
}
A, B = "a" * 64, "b" * 32
RECORD = "/audit/record.json"


def arguments(environment: str = "sandbox", **inputs: str) -> list[str]:
    variables = VARIABLES | {f"INPUT_{name.upper()}": text for name, text in inputs.items()}
    return apply_arguments(variables, read_inputs(variables), environment, RECORD)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"INPUT_ENVIRONMENTS": "Eu!"}, "environments: Eu! is not a valid name of an environment"),
        ({"INPUT_ENVIRONMENTS": "../x"}, "environments: ../x is not a valid name of an environment"),
        ({"INPUT_ENVIRONMENTS": " \n"}, "say which environments are meant"),
        ({"INPUT_PERSIST": "push"}, "persist: push is none of commit, branch and pull-request"),
        ({"INPUT_PERSIST": "branch", "INPUT_STATE_BRANCH": "main"}, "main is the branch of the manifest"),
        ({"INPUT_MAX_CHANGES": "abc"}, "max-changes: abc is no number of changes"),
        ({"INPUT_MAX_CHANGES": "-1"}, "max-changes: -1 is no number of changes"),
        ({"INPUT_DEADLINE": "soon"}, "deadline: soon is no number of seconds"),
        ({"INPUT_DIGEST": "zzz", "INPUT_ENVIRONMENTS": "sandbox"}, "digest: zzz is not a digest"),
        ({"INPUT_DIGEST": A}, "digest: there is none for sandbox"),
    ],
)
def test_what_cannot_be_meant_is_refused(inputs: dict[str, str], message: str) -> None:
    variables = VARIABLES | inputs
    with pytest.raises(PolarIacError, match=message) as error:
        check_apply(variables, read_inputs(variables))
    assert error.value.exit_code == ExitCode.ERROR


@pytest.mark.parametrize("reference", ["refs/pull/7/merge", "refs/tags/v1"])
def test_only_a_branch_is_applied(reference: str) -> None:
    variables = VARIABLES | {"GITHUB_REF": reference}
    with pytest.raises(PolarIacError, match=f"this run is on {reference}") as error:
        check_apply(variables, read_inputs(variables))
    assert error.value.exit_code == ExitCode.REFUSED


def test_what_is_meant_is_not_refused() -> None:
    for deadline in ("", "90", "1.5", ".5"):
        variables = VARIABLES | {"INPUT_MAX_CHANGES": "0", "INPUT_DEADLINE": deadline}
        check_apply(variables, read_inputs(variables))


@pytest.mark.parametrize(
    ("variables", "branch"),
    [
        ({}, "main"),
        ({"GITHUB_REF": "refs/heads/release/1"}, "release/1"),
        ({"GITHUB_REF": "refs/pull/7/merge", "GITHUB_BASE_REF": "main"}, "main"),
        ({"GITHUB_REF": "refs/heads/gh-readonly-queue/x", "MERGE_GROUP_BASE": "refs/heads/main"}, "main"),
    ],
)
def test_the_branch_is_the_one_that_is_merged_into(variables: dict[str, str], branch: str) -> None:
    assert read_inputs(VARIABLES | variables).branch == branch
    own = read_inputs(VARIABLES | variables | {"INPUT_PERSIST": "pull-request"})
    assert own.state_branch == f"polar-iac-lockfile-{branch.replace('/', '-')}"


def test_the_branch_of_lockfiles_can_be_named() -> None:
    for persist, default in (("branch", "polar-iac-state"), ("pull-request", "polar-iac-lockfile-main")):
        variables = VARIABLES | {"INPUT_PERSIST": persist}
        assert read_inputs(variables).state_branch == default
        assert read_inputs(variables | {"INPUT_STATE_BRANCH": "mine"}).state_branch == "mine"
    assert read_inputs(VARIABLES | {"INPUT_STATE_BRANCH": "mine"}).state_branch is None


def test_an_environment_that_the_manifest_does_not_define_is_refused_before_any_is_applied() -> None:
    inputs = read_inputs(VARIABLES | {"INPUT_ENVIRONMENTS": "sandbox eu"})
    check_environments(inputs, ("production", "sandbox", "local", "eu"))
    with pytest.raises(PolarIacError, match="environments: eu is none of production, sandbox and local"):
        check_environments(inputs, ("production", "sandbox", "local"))


def test_a_digest_belongs_to_its_environment() -> None:
    both = ("sandbox", "production")
    assert digest_of(f"sandbox={A}\nproduction={B} ", "production", both) == B
    assert digest_of(A, "sandbox", ["sandbox"]) == A
    assert digest_of(f"sandbox={A}", "sandbox", ["sandbox"]) == A
    for text in (A, f"sandbox={A}", "production=", "production=  ", f"staging={A} production", f"{A} {B}"):
        with pytest.raises(PolarIacError, match="digest: there is none for production in"):
            digest_of(text, "production", both)
    for wrong in ("a" * 31, "a" * 65, "A" * 64, "g" * 64):
        with pytest.raises(PolarIacError, match="is not a digest"):
            digest_of(f"sandbox={wrong}", "sandbox", both)


def test_inputs_become_options() -> None:
    plain = ["apply", "--file", "meters.yaml", "--env", "sandbox", "--auto-approve", "--report"]
    plain.append("json=/audit/record.json")
    assert arguments() == plain
    limits = arguments(max_changes="3", deadline="9", allow_archive="true")
    assert limits == [*plain, "--allow-archive", "--max-changes", "3", "--deadline", "9"]
    assert arguments(digest=f"sandbox={A} production={B}") == [*plain, "--digest", A]
    # A saved plan says itself what was allowed.
    saved = arguments(plan="$(id)/{env}.json", allow_archive="true")
    assert saved == [*plain, "--", "$(id)/sandbox.json"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(4, "not what was reviewed"), (5, "refused before anything was changed"), (1, "ended with 1")],
)
def test_the_end_of_an_apply_is_explained_and_what_was_left(code: int, words: str) -> None:
    first, left = after_apply(code, "sandbox", ["sandbox", "production", "local"])
    assert first.startswith("sandbox: ")
    assert words in first
    assert ("What was done is recorded" in first) == (code == 1)
    assert left == "Not applied, since sandbox comes first: production local."
    assert len(after_apply(code, "local", ["sandbox", "local"])) == 1


@pytest.mark.parametrize(
    ("fail_on", "refused", "blocked", "code"),
    [
        ("blocked", False, "", None),
        ("blocked", False, "`calls`", 2),
        ("blocked", True, "`calls`", 5),
        ("refused", False, "`calls`", None),
        ("refused", True, "", 5),
        ("never", True, "`calls`", None),
    ],
)
def test_the_verdict(fail_on: Any, refused: bool, blocked: str, code: int | None) -> None:
    found = verdict(fail_on, refused=refused, blocked=blocked)
    assert (found and found[1]) == code
    if code == 2:
        assert found is not None
        assert found[0].startswith("blocked: calls. ")


@pytest.mark.parametrize(
    ("fail_on", "tests", "code"),
    [("blocked", "1 of 2 tests failed", 3), ("refused", "x", 3), ("never", "x", None), ("blocked", "", None)],
)
def test_the_verdict_on_tests(fail_on: Any, tests: str, code: int | None) -> None:
    found = verdict_on_tests(fail_on, tests)
    assert found == (code and (f"{tests}: `polar-iac test` shows why", code))


def test_an_unknown_reason_to_fail_is_refused() -> None:
    assert read_fail_on(VARIABLES) == "blocked"
    with pytest.raises(PolarIacError, match="fail-on: always is none of refused, blocked and never"):
        read_fail_on(VARIABLES | {"INPUT_FAIL_ON": "always"})
