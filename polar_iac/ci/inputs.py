"""Inputs of the actions, from the variables `INPUT_…`: checked before anything is asked of Polar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from polar_iac import SLUG
from polar_iac.errors import ExitCode, PolarIacError, RefusedError
from polar_iac.report.wording import listed

Persist = Literal["commit", "branch", "pull-request"]
FailOn = Literal["refused", "blocked", "never"]
STATE_BRANCH = "polar-iac-state"


@dataclass(frozen=True)
class Inputs:
    """Inputs that all actions have.

    `branch` is the one whose manifest is meant: that is merged into, or that the run is on. `state_branch` is
    the one that has the lockfiles, or None where they are beside the manifest.
    """

    file: str
    working_directory: str
    environments: tuple[str, ...]
    persist: Persist
    branch: str
    state_branch: str | None


def read_inputs(variables: Mapping[str, str]) -> Inputs:
    """Read the common inputs. Raises PolarIacError for one that cannot be meant."""
    environments = tuple(dict.fromkeys(variables["INPUT_ENVIRONMENTS"].split()))
    if not environments:
        raise PolarIacError("say which environments are meant, for example environments: sandbox")
    for environment in environments:
        if not re.fullmatch(SLUG, environment):
            raise PolarIacError(f"environments: {environment} is not a valid name of an environment")
    reference = (
        variables.get("GITHUB_BASE_REF") or variables.get("MERGE_GROUP_BASE") or variables["GITHUB_REF"]
    )
    branch = reference.removeprefix("refs/heads/")
    persist = variables["INPUT_PERSIST"]
    state = variables["INPUT_STATE_BRANCH"]
    match persist:
        case "commit":
            state_branch = None
        case "branch":
            state_branch = state or STATE_BRANCH
        case "pull-request":
            # One for each branch: an open pull request belongs to the branch that it is to be merged into.
            state_branch = state or f"polar-iac-lockfile-{branch.replace('/', '-')}"
        case _:
            raise PolarIacError(f"persist: {persist} is none of {listed(get_args(Persist))}")
    return Inputs(
        variables["INPUT_FILE"],
        variables["INPUT_WORKING_DIRECTORY"],
        environments,
        persist,
        branch,
        state_branch,
    )


def read_fail_on(variables: Mapping[str, str]) -> FailOn:
    """Return what fails the check of a plan. Raises PolarIacError for anything else."""
    match variables["INPUT_FAIL_ON"]:
        case ("refused" | "blocked" | "never") as fail_on:
            return fail_on
        case other:
            raise PolarIacError(f"fail-on: {other} is none of {listed(get_args(FailOn))}")


def check_apply(variables: Mapping[str, str], inputs: Inputs) -> None:
    """Check the inputs of `apply` alone. Raises PolarIacError, RefusedError where it must not run."""
    reference = variables["GITHUB_REF"]
    if not reference.startswith("refs/heads/"):
        raise RefusedError(f"apply runs on a branch, after the merge; this run is on {reference}")
    if inputs.state_branch == inputs.branch:
        raise PolarIacError(
            f"state-branch: {inputs.state_branch} is the branch of the manifest: choose another name"
        )
    if not re.fullmatch("[0-9]*", variables["INPUT_MAX_CHANGES"]):
        raise PolarIacError(f"max-changes: {variables['INPUT_MAX_CHANGES']} is no number of changes")
    if not re.fullmatch(r"[0-9]*\.?[0-9]*", variables["INPUT_DEADLINE"]):
        raise PolarIacError(f"deadline: {variables['INPUT_DEADLINE']} is no number of seconds")
    if variables["INPUT_DIGEST"]:
        for environment in inputs.environments:
            digest_of(variables["INPUT_DIGEST"], environment, inputs.environments)


def check_environments(inputs: Inputs, known: Sequence[str]) -> None:
    """Raise PolarIacError for an environment that the manifest does not define: else it would come too late.

    Example: of `sandbox prodution` sandbox would be applied before the second name is read.
    """
    for environment in inputs.environments:
        if environment not in known:
            raise PolarIacError(f"environments: {environment} is none of {listed(known)}")


def digest_of(text: str, environment: str, environments: Sequence[str]) -> str:
    """Return the digest of an environment, from `DIGEST` or `sandbox=DIGEST production=DIGEST`.

    A bare one is that of the only environment. Raises PolarIacError if there is none, or it is no digest.
    """
    entries = text.split()
    for entry in entries:
        name, equals, digest = entry.rpartition("=")
        is_meant = name == environment if equals else len(entries) == len(environments) == 1
        if is_meant and digest:
            if not re.fullmatch("[0-9a-f]{32,64}", digest):
                raise PolarIacError(
                    f"digest: {digest} is not a digest: 32 to 64 hexadecimal digits, as the plan shows them"
                )
            return digest
    raise PolarIacError(
        f'digest: there is none for {environment} in "{text}": write {environment}=DIGEST, or leave the '
        "input away to apply without"
    )


def apply_arguments(variables: Mapping[str, str], inputs: Inputs, environment: str, record: str) -> list[str]:
    """Return the arguments of `polar-iac` that apply one environment. `record` is the audit record's file.

    Raises what `digest_of` raises.
    """
    plan = variables["INPUT_PLAN"]
    arguments = ["apply", "--file", inputs.file, "--env", environment, "--auto-approve"]
    arguments += ["--report", f"json={record}"]
    if variables["INPUT_DIGEST"]:
        arguments += ["--digest", digest_of(variables["INPUT_DIGEST"], environment, inputs.environments)]
    # A saved plan says itself what was allowed.
    if variables["INPUT_ALLOW_ARCHIVE"] == "true" and not plan:
        arguments.append("--allow-archive")
    for option, variable in (("--max-changes", "INPUT_MAX_CHANGES"), ("--deadline", "INPUT_DEADLINE")):
        if variables[variable]:
            arguments += [option, variables[variable]]
    return [*arguments, *(["--", plan.replace("{env}", environment)] if plan else [])]


def after_apply(code: int, environment: str, environments: Sequence[str]) -> list[str]:
    """Say what it means that the apply of an environment ended with a code other than 0."""
    match code:
        case 4:
            meaning = (
                f"{environment}: what would be done now is not what was reviewed, so nothing was done. Run "
                "the whole workflow again: it plans afresh, for a new review."
            )
        case 5:
            meaning = (
                f"{environment}: refused before anything was changed; the log says what would permit it."
            )
        case _:
            meaning = (
                f"{environment}: apply ended with {code}; the log says what was done and what was not. What "
                "was done is recorded; applying again goes on from there."
            )
    rest = environments[environments.index(environment) + 1 :]
    left = [f"Not applied, since {environment} comes first: {' '.join(rest)}."] if rest else []
    return [meaning, *left]


def verdict_on_tests(fail_on: FailOn, tests: str) -> tuple[str, int] | None:
    """Return the message and exit code of a plan's check where tests failed, or None. `tests` says which."""
    if fail_on == "never" or not tests:
        return None
    return f"{tests}: `polar-iac test` shows why", ExitCode.CHECK_FAILED


def verdict(fail_on: FailOn, *, refused: bool, blocked: str) -> tuple[str, int] | None:
    """Return the message and exit code of a plan's check that fails, or None. `blocked` is Markdown."""
    if fail_on == "never":
        return None
    if refused:
        return (
            "apply would refuse this plan as a whole, and change nothing: the plan says what would permit it",
            5,
        )
    if fail_on == "blocked" and blocked:
        keys = blocked.replace("`", "")
        return (
            f"blocked: {keys}. apply would leave this undone and fail: the plan says why. (fail-on: refused "
            "lets it pass.)",
            2,
        )
    return None
