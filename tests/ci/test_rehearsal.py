"""A rehearsal of the pull request, the merge and what may go wrong between, with the actions' own steps."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polar_iac.local import LocalPolar
from tests.support.build import manifest_text, meter
from tests.support.comments import read_comment
from tests.support.local_polar import client
from tests.support.organization import Organization
from tests.support.rehearsal import (
    BOT,
    REPOSITORY,
    ROOT,
    Hub,
    Ran,
    Runner,
    Workflow,
    github_hub,
    load,
    warmed,
)
from tests.support.served_polar import Served, scripted, served_polar

LOCKFILE = "meters.sandbox.lock.json"

pytestmark = pytest.mark.unmeasured  # scripts; what the command does others show


@pytest.fixture(scope="module")
def warm() -> Iterator[Path]:
    with warmed() as address:
        yield address


@pytest.fixture
def hub(tmp_path: Path, warm: Path) -> Iterator[Hub]:
    """A repository whose main has a manifest with one meter."""
    with github_hub(tmp_path, warm) as hub:
        yield hub


@pytest.fixture
def token(polar: Served) -> dict[str, str]:
    """The `env` of a step that talks to the sandbox."""
    return polar.environ()


def meters(**names: str) -> dict[str, str | None]:
    """A commit that makes the manifest declare these meters, by key and name."""
    blocks = {key: meter(name=name, metadata={"key": key}) for key, name in names.items()}
    return {"meters.yaml": manifest_text(blocks)}


def recorded(hub: Hub, branch: str = "main", lockfile: str = LOCKFILE) -> set[str]:
    """The keys that a lockfile on the remote holds."""
    return set(json.loads(hub.read(lockfile, branch))["meters"])


def headline(text: str) -> str:
    return text.split("\n", 1)[0]


def comments(hub: Hub) -> list[str]:
    return [comment["body"] for comment in hub.state["comments"]]


# From the pull request to the merge


def test_from_the_pull_request_to_the_merge(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    hub.push(meters(calls="Calls", images="Images"), branch="topic")
    plan = hub.pull_request("topic").uses("plan", token, environments="sandbox").expect()
    assert plan.outputs["changes"] == plan.outputs["needed"] == "true"
    assert re.fullmatch("[0-9a-f]{64}", plan.outputs["digest"])
    assert "2 to create" in plan.outputs["summary"]
    (comment,) = comments(hub)
    assert "2 to create" in comment
    assert headline(comment) == headline(plan.summary)

    # The second push edits the comment.
    hub.push(meters(calls="Calls", images="Images", audio="Audio"), branch="topic")
    plan = hub.pull_request("topic").uses("plan", token, environments="sandbox").expect()
    (comment,) = comments(hub)
    assert "3 to create" in comment
    assert not polar.tape.count("POST") + polar.tape.count("PATCH")

    # The merge applies, and the lockfile lands although someone else has pushed meanwhile.
    hub.move("main", to="topic")
    hub.push_meanwhile({"README.md": "Billing, and more.\n"})
    merged = hub.merged()
    applied = merged.uses("apply", token, environments="sandbox", digest=plan.outputs["digest"]).expect()
    assert headline(applied.summary) == "### Polar meters: applied to sandbox: 3 created"
    assert "Nothing has been changed yet" not in applied.summary
    assert polar.tape.count("POST") == 3
    assert recorded(hub) == {"calls", "images", "audio"}
    assert hub.read("README.md") == "Billing, and more."
    assert hub.log()[:2] == ["Record the meters applied to sandbox", "Meanwhile"]
    assert hub.git("log", "-1", "--format=%an", "main") == BOT
    assert sorted(hub.files()) == ["README.md", LOCKFILE, "meters.yaml"]

    # A second apply does nothing, and pushes nothing.
    tip = hub.tip()
    polar.tape.clear()
    hub.merged().uses("apply", token, environments="sandbox").expect()
    assert {exchange.method for exchange in polar.tape.exchanges} == {"GET"}
    assert hub.tip() == tip


def test_the_workflow_of_this_repository_plans_and_applies(hub: Hub) -> None:
    """meters.yml: sandbox, then a review of production, then production with exactly what was reviewed."""
    with served_polar() as sandbox, served_polar() as production:

        def runner(event: str = "push") -> Any:
            if event == "pull_request":
                runner = hub.pull_request("topic")
            else:
                runner = hub.queued(hub.tip("topic")) if event == "merge_group" else hub.merged()
            runner.environ["POLAR_BASE_URL_SANDBOX"] = sandbox.url
            runner.environ["POLAR_BASE_URL_PRODUCTION"] = production.url
            return runner

        on = {"POLAR_IAC_ENABLED": "true"}
        read = {
            "POLAR_READ_TOKEN_SANDBOX": "polar_oat_r1",
            "POLAR_READ_TOKEN_PRODUCTION": "polar_oat_r2",
        }
        hub.push(meters(calls="Calls"), branch="topic")
        pull_request = Workflow("meters.yml", lambda: runner("pull_request"), on, read)
        assert pull_request.job("plan") is not None
        assert pull_request.job("sandbox", POLAR_WRITE_TOKEN="polar_oat_w1") is None
        assert "production and sandbox" in comments(hub)[0]

        queue = Workflow("meters.yml", lambda: runner("merge_group"), on, read)
        planned = queue.job("plan")
        assert planned is not None
        planned.expect()
        assert queue.job("sandbox", POLAR_WRITE_TOKEN="polar_oat_w1") is None

        hub.move("main", to="topic")
        push = Workflow("meters.yml", runner, on, read)
        assert push.job("plan") is None
        for name, secrets in (
            ("sandbox", {"POLAR_WRITE_TOKEN": "polar_oat_w1"}),
            ("review", {}),
            ("production", {"POLAR_WRITE_TOKEN": "polar_oat_w2"}),
        ):
            ran = push.job(name, **secrets)
            assert ran is not None
            ran.expect()
        assert set(hub.files()) >= {LOCKFILE, "meters.production.lock.json"}
        for served, number in ((sandbox, 1), (production, 2)):
            tokens = {e.headers["authorization"] for e in served.tape.exchanges if e.method == "POST"}
            assert tokens == {f"Bearer polar_oat_w{number}"}

        # The next run finds nothing to do, so nobody is asked to approve production.
        again = Workflow("meters.yml", runner, on, read)
        sandbox.tape.clear()
        for name, secrets in (("sandbox", {"POLAR_WRITE_TOKEN": "polar_oat_w1"}), ("review", {})):
            ran = again.job(name, **secrets)
            assert ran is not None
            ran.expect()
        assert again.job("production", POLAR_WRITE_TOKEN="polar_oat_w2") is None
        assert not sandbox.tape.count("POST")

        # Not set up: nothing but a notice, except for a fork, which is given no variables.
        off = Workflow("meters.yml", runner, {}, {})
        assert off.job("off") is not None
        assert off.job("sandbox", POLAR_WRITE_TOKEN="") is None
        fork = Workflow("meters.yml", lambda: hub.pull_request("topic", repository="bob/billing"), {}, {})
        assert fork.job("off") is None
        planned = fork.job("plan")
        assert planned is not None
        planned.expect()


@pytest.mark.parametrize(
    ("persist", "branch"),
    [("commit", "main"), ("branch", "polar-iac-state"), ("pull-request", "polar-iac-lockfile-main")],
)
def test_imported_meters_are_taken_over_by_the_merge(
    hub: Hub,
    polar: Served,
    organization: Organization,
    token: dict[str, str],
    persist: str,
    branch: str,
) -> None:
    """Main declares one of the two meters that were made in the dashboard."""
    organization.make(meter(metadata={"team": "ai"}))
    organization.make(meter(name="Images", aggregation={"func": "sum", "property": "size"}))
    before = organization.metadata()
    inputs = {"environments": "sandbox", "persist": persist}
    polar.tape.clear()

    imported = hub.merged().imported("sandbox", token | {"POLAR_ACCESS_TOKEN": "polar_oat_ro_ana"})
    hub.push({"meters.yaml": imported}, branch="topic")
    plan = hub.pull_request("topic").uses("plan", token, **inputs).expect()
    assert "2 to adopt" in headline(comments(hub)[0])
    assert polar.tape.writes() == []

    hub.move("main", to="topic")
    hub.merged().uses("apply", token, **inputs, digest=plan.outputs["digest"]).expect()
    assert polar.tape.count("POST") == 0
    assert [set(body) for body in polar.tape.sent("PATCH")] == [{"metadata"}] * 2
    assert organization.metadata() == before
    assert recorded(hub, branch) == {"calls", "images"}
    everywhere = {"main", "polar-iac-state", "polar-iac-lockfile-main"} & set(hub.branches())
    assert [name for name in everywhere if LOCKFILE in hub.files(name)] == [branch]
    again = hub.merged().uses("plan", token, **inputs).expect()
    assert (again.outputs["changes"], again.outputs["needed"]) == ("false", "false")


# The comment


def test_a_plan_without_changes_is_silent_until_there_is_a_comment(hub: Hub, token: dict[str, str]) -> None:
    hub.push({"README.md": "Other words.\n"}, branch="topic")
    hub.merged().uses("apply", token, environments="sandbox").expect()
    hub.push({LOCKFILE: hub.read(LOCKFILE) + "\n"}, branch="topic")
    plan = hub.pull_request("topic").uses("plan", token, environments="sandbox").expect()
    assert plan.outputs["changes"] == "false"
    assert comments(hub) == []

    hub.push(meters(calls="Renamed"), branch="topic")
    hub.pull_request("topic").uses("plan", token, environments="sandbox").expect()
    assert "1 to update" in comments(hub)[0]

    hub.push({"meters.yaml": hub.read("meters.yaml")}, branch="topic")
    hub.pull_request("topic").uses("plan", token, environments="sandbox").expect()
    (comment,) = comments(hub)
    assert "no changes" in comment


def test_the_check_is_red_where_the_merge_would_be_refused(hub: Hub, token: dict[str, str]) -> None:
    hub.merged().uses("apply", token, environments="sandbox").expect()
    lockfile = hub.read(LOCKFILE)
    hub.push({**meters(images="Images"), LOCKFILE: lockfile}, branch="topic")
    refused = hub.pull_request("topic").uses("plan", token, environments="sandbox").expect(ok=False)
    (comment,) = comments(hub)
    assert "archived: true" in comment
    assert "the plan failed" not in comment
    assert "::error title=polar-iac::apply would refuse this plan as a whole" in refused.log
    assert re.fullmatch("[0-9a-f]{64}", refused.outputs["digest"])
    hub.pull_request("topic").uses("plan", token, environments="sandbox", allow_archive="true").expect()


def counted(*, by: str, **names: str) -> dict[str, str | None]:
    """A commit that makes the frozen meter `calls` count something, beside others."""
    blocks = {"calls": meter(name="Calls", aggregation={"func": "sum", "property": by})}
    blocks |= {key: meter(name=name, metadata={"key": key}) for key, name in names.items()}
    return {"meters.yaml": manifest_text(blocks)}


@pytest.fixture
def frozen(hub: Hub, token: dict[str, str]) -> Hub:
    """A repository whose main already declares what Polar refuses for the meter `calls`."""
    hub.push(counted(by="tokens"))
    hub.merged().uses("apply", token, environments="sandbox").expect()
    lockfile = json.loads(hub.read(LOCKFILE))
    lockfile["meters"]["calls"]["frozen"] = True
    hub.push({**counted(by="seconds"), LOCKFILE: json.dumps(lockfile)})
    return hub


def test_a_blocked_meter_fails_the_check_of_who_changes_its_block(frozen: Hub, token: dict[str, str]) -> None:
    sha = frozen.push(counted(by="pages"), branch="topic")
    for runner in (frozen.pull_request("topic"), frozen.queued(sha), frozen.merged()):
        ran = runner.uses("plan", token, environments="sandbox").expect(ok=False)
        assert "::error title=polar-iac::blocked: calls." in ran.log
    (comment,) = comments(frozen)
    assert "blocked" in headline(comment)
    assert "not by this pull request" not in comment


def test_somebody_elses_blocked_meter_is_a_gray_line(frozen: Hub, token: dict[str, str]) -> None:
    sha = frozen.push(counted(by="seconds", images="Images"), branch="topic")
    for runner in (frozen.pull_request("topic"), frozen.queued(sha)):
        runner.uses("plan", token, environments="sandbox").expect()
    (comment,) = comments(frozen)
    assert comment.splitlines()[-3:-1] == [
        "> Blocked, and not by this pull request, so its check does not fail for it: `calls`.",
        "",
    ]
    # Main goes on in another commit: what counts is where the two went apart.
    for number in range(3):
        frozen.push({"README.md": f"Billing, {number}.\n"})
    frozen.pull_request("topic").uses("plan", token, environments="sandbox").expect()


def test_without_secrets_it_plans_offline_and_says_so(hub: Hub, polar: Served) -> None:
    hub.merged().uses("apply", polar.environ(), environments="sandbox").expect()
    lockfile = hub.read(LOCKFILE)
    hub.push({**meters(calls="Calls", images="Images"), LOCKFILE: lockfile}, branch="topic")
    polar.tape.clear()
    plan = (
        hub.pull_request("topic", repository="mallory/billing").uses("plan", environments="sandbox").expect()
    )
    assert "1 to create" in plan.summary
    assert "no token of Polar" in plan.summary
    assert polar.tape.exchanges == []
    assert hub.state["asked"] == []


def test_an_error_in_the_manifest_fails_the_plan_at_its_line(hub: Hub, token: dict[str, str]) -> None:
    hub.push({"meters.yaml": "version: 1\nproject: acme\nmeters: {a: {nam: A}}\n"}, branch="topic")
    plan = hub.pull_request("topic").uses("plan", token, environments="sandbox").expect(ok=False)
    assert "::error file=meters.yaml,line=3" in plan.log
    assert comments(hub) == []


@pytest.mark.parametrize("end", ["the manifest is renamed", "nothing can be installed", "no checkout"])
def test_a_comment_does_not_outlive_its_plan_however_early_the_action_ends(
    hub: Hub, token: dict[str, str], end: str
) -> None:
    hub.push(meters(calls="Calls"), branch="topic")
    hub.pull_request("topic").uses("plan", token, environments="sandbox").expect()
    (planned,) = comments(hub)
    if end == "the manifest is renamed":
        hub.push({"meters.yaml": None, "billing.yaml": hub.read("meters.yaml", "topic")}, branch="topic")
    runner = hub.pull_request("topic")
    if end == "nothing can be installed":
        shutil.rmtree(runner.temp / "polar-iac")
        for name in ("python3", "python"):
            old = hub.path / "tools" / name
            old.write_text(f"#!/bin/sh\ncase $* in *'(3, 11)'*) exit 1; esac\nexec {sys.executable} \"$@\"\n")
            old.chmod(0o755)
    elif end == "no checkout":
        shutil.rmtree(runner.workspace)
        runner.workspace.mkdir()
    runner.uses("plan", token, environments="sandbox").expect(ok=False)
    (failed,) = comments(hub)
    assert headline(failed) == f"### Polar meters: the plan failed at `{hub.tip('topic')[:12]}`"
    read_comment(failed)
    assert failed.splitlines()[-1] == planned.splitlines()[-1]


# The true cause


def test_no_gh_is_needed(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    """GitHub's command line is on GitHub's own runners, and not in most containers."""
    path = hub.path_without("gh")
    inputs = {"environments": "sandbox", "persist": "pull-request"}

    def uses(action: str, runner: Runner) -> Ran:
        runner.environ["PATH"] = path
        return runner.uses(action, token, **inputs).expect()

    uses("plan", hub.pull_request("main"))
    assert len(comments(hub)) == 1
    uses("apply", hub.merged())
    (pull,) = hub.state["pulls"]
    assert pull["base"] == "main"
    lockfile = hub.read(LOCKFILE, "polar-iac-lockfile-main")
    (record,) = json.loads(lockfile)["meters"].values()
    change(polar, record["id"], name="Changed in the dashboard")
    uses("drift", hub.merged())
    assert len(hub.state["issues"]) == 1


def test_a_github_that_does_not_answer_is_no_missing_permission(hub: Hub, token: dict[str, str]) -> None:
    hub.write_state(forbidden="down")
    ran = hub.pull_request("main").uses("plan", token, environments="sandbox").expect(ok=False)
    assert "GitHub did not answer as it should: HTTP 502: Bad Gateway" in ran.log
    assert "permissions" not in ran.log


def test_a_checkout_of_another_user_is_read(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    """In a container's job the workspace belongs to the runner's user, and the steps run as root."""
    hub.push({"eu/meters.yaml": manifest_text({"calls": meter()}, project="eu")})
    runner = hub.merged()
    settings = runner.path / "gitconfig"
    settings.write_text(f'[safe]\n\tdirectory = "{hub.remote}"\n')  # the remote is GitHub's
    runner.environ |= {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "GIT_CONFIG_GLOBAL": str(settings)}
    for directory in (".", "eu"):
        runner.uses("apply", token, environments="sandbox", working_directory=directory).expect()
    assert polar.tape.count("POST") == 2
    assert {LOCKFILE, f"eu/{LOCKFILE}"} <= set(hub.files())


def test_an_environment_that_cannot_be_planned_hides_no_other(hub: Hub, token: dict[str, str]) -> None:
    wrong = {"POLAR_ACCESS_TOKEN_PRODUCTION": "no token"}
    ran = hub.pull_request("main").uses("plan", token | wrong, environments="production sandbox")
    ran.expect(ok=False)
    (comment,) = comments(hub)
    assert "no plan for production" in headline(comment)
    assert "1 to create" in comment
    assert "POLAR_ACCESS_TOKEN_PRODUCTION" in ran.log
    assert re.fullmatch("sandbox=[0-9a-f]{64}", ran.outputs["digest"])


def test_drift_is_told_although_another_environment_cannot_be_planned(
    hub: Hub, polar: Served, token: dict[str, str]
) -> None:
    hub.merged().uses("apply", token, environments="sandbox").expect()
    (meter_id,) = [record["id"] for record in json.loads(hub.read(LOCKFILE))["meters"].values()]
    wrong = {"POLAR_ACCESS_TOKEN_PRODUCTION": "no token"}

    def drift_issues() -> list[str]:
        hub.merged().uses("drift", token | wrong, environments="sandbox production").expect(ok=False)
        return [issue["state"] for issue in hub.state["issues"]]

    assert drift_issues() == []
    change(polar, meter_id, name="Changed in the dashboard")
    assert drift_issues() == ["open"]
    change(polar, meter_id, name="API calls")
    assert drift_issues() == ["open"]  # production may have drifted


def test_a_repository_shadows_no_module_of_ours(hub: Hub, token: dict[str, str]) -> None:
    shadow = "raise SystemExit('taken in')\n"
    hub.push({f"{name}.py": shadow for name in ("json", "pathlib", "sys", "venv", "pip")})
    planned = hub.merged().uses("plan", token, environments="sandbox").expect()
    assert planned.outputs["needed"] == "true"


# What is planned on a branch


def test_a_plan_on_a_branch_knows_what_was_recorded_since(hub: Hub, token: dict[str, str]) -> None:
    """The review of production, or a re-run of it, is a job on the commit of the merge."""
    merge = hub.tip()
    hub.merged(sha=merge).uses("apply", token, environments="sandbox").expect()
    assert hub.tip() != merge
    again = hub.merged(sha=merge).uses("plan", token, environments="sandbox").expect()
    assert again.outputs["needed"] == "false"

    # Of an old commit it tells what that one says; it only takes no newer manifest in.
    hub.push(meters(calls="Newer"))
    old = hub.merged(sha=merge).uses("plan", token, environments="sandbox").expect()
    assert old.outputs["changes"] == "false"


def test_the_merge_queue_plans_for_its_base(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    hub.merged().uses("apply", token, environments="sandbox", persist="pull-request").expect()
    sha = hub.push(meters(calls="Calls"), branch="topic")
    polar.tape.clear()
    queued = hub.queued(sha).uses("plan", token, environments="sandbox", persist="pull-request").expect()
    assert "1 to update" in queued.outputs["summary"]
    assert hub.asked(base="main", head="acme:polar-iac-lockfile-main")
    assert comments(hub) == []


# The lockfile


def test_a_protected_branch_is_explained_and_the_next_run_heals(
    hub: Hub, polar: Served, token: dict[str, str]
) -> None:
    hub.protect("main")
    applied = hub.merged().uses("apply", token, environments="sandbox").expect(ok=False)
    assert polar.tape.count("POST") == 1
    summary = applied.summary
    for words in (
        "GH006: Protected branch",
        "persist: branch",
        "persist: pull-request",
        "GitHub App",
        "twice",
    ):
        assert words in summary
    assert "%0A- persist: branch" in applied.log  # one annotation, with its lines
    assert LOCKFILE not in hub.files()

    # As it told: another place for the lockfiles.
    kept = hub.merged().uses("apply", token, environments="sandbox", persist="branch").expect()
    assert "is kept on polar-iac-state" in kept.log
    assert recorded(hub, "polar-iac-state") == {"calls"}
    # Or the protection made to let it in.
    hub.protect()
    hub.merged().uses("apply", token, environments="sandbox").expect()
    assert recorded(hub) == {"calls"}
    assert polar.tape.count("POST") == 1


def test_the_lockfile_is_pushed_when_apply_fails(hub: Hub, token: dict[str, str]) -> None:
    hub.merged().uses("apply", token, environments="sandbox").expect()
    hub.push(meters(images="Images"))  # calls is gone, and still active
    refused = hub.merged().uses("apply", token, environments="sandbox production").expect(ok=False)
    for text in (refused.log, refused.summary):
        assert "archived: true" in text
        assert "Not applied, since sandbox comes first: production." in text
    assert headline(refused.summary) == "### 🛑 Polar meters: refused, and nothing was done"
    assert recorded(hub) == {"calls"}

    hub.push(meters(calls="Calls", images="Images"))
    with served_polar() as other:
        wrong = {"POLAR_BASE_URL_PRODUCTION": other.url, "POLAR_ACCESS_TOKEN_PRODUCTION": "no token"}
        hub.merged().uses("apply", token | wrong, environments="sandbox production").expect(ok=False)
    assert recorded(hub) == {"calls", "images"}
    assert "meters.production.lock.json" not in hub.files()


def audits(hub: Hub) -> tuple[str, dict[str, Any]]:
    """The artifact that was uploaded last: its name, and its audit records by file."""
    name, files = list(hub.artifacts.items())[-1]
    return name, {file: json.loads(text) for file, text in files.items()}


def test_each_apply_leaves_an_audit_record(hub: Hub, token: dict[str, str]) -> None:
    """Also one that fails or is refused; and none of an environment that it did not come to."""
    with served_polar() as other:
        read_only = {
            "POLAR_BASE_URL_PRODUCTION": other.url,
            "POLAR_ACCESS_TOKEN_PRODUCTION": "polar_oat_ro_x",
        }
        merged = hub.merged()
        ran = merged.uses("apply", token | read_only, environments="sandbox production").expect(ok=False)
    name, records = audits(hub)
    assert name.startswith("polar-iac-audit-sandbox-production-")
    assert {path.name for path in Path(ran.outputs["audit"]).iterdir()} == records.keys()
    (done,), (failed,) = (records[f"{e}.json"]["effects"] for e in ("sandbox", "production"))
    assert (done["key"], done["action"], done["outcome"]) == ("calls", "create", "applied")
    assert (failed["key"], failed["action"], failed["outcome"]) == ("calls", "create", "failed")
    production = records["production.json"]
    assert (production["exit_code"], production["commit"]) == (1, merged.github["sha"])
    assert (production["run"]["actor"], production["run"]["repository"]) == ("ana", REPOSITORY)

    hub.push(meters(images="Images"))  # calls is gone, and still active
    hub.merged().uses("apply", token, environments="sandbox production").expect(ok=False)
    assert len(hub.artifacts) == 2
    _, records = audits(hub)
    assert records.keys() == {"sandbox.json"}
    assert (records["sandbox.json"]["exit_code"], records["sandbox.json"]["effects"]) == (5, [])
    assert "still active" in records["sandbox.json"]["error"]


def test_a_cancelled_run_keeps_what_it_did(hub: Hub) -> None:
    """GitHub interrupts the step; the requests on the way are waited for, and the lockfile is pushed."""
    hub.warm = None
    hub.push(meters(**{f"meter-{number:02}": f"Meter {number}" for number in range(40)}))
    runner = hub.merged()

    class Cancelling(LocalPolar):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            if environ["REQUEST_METHOD"] == "POST" and runner.process:
                runner.process.send_signal(signal.SIGINT)
            return super().__call__(environ, start_response)

    with served_polar(Cancelling()) as polar:
        cancelled = runner.uses("apply", polar.environ(), environments="sandbox").expect(ok=False)
        created = {body["metadata"]["polar_iac"] for body in polar.tape.sent("POST")}
        assert 0 < len(created) < 40, cancelled.log
        assert {f"acme/{key}" for key in recorded(hub)} == created
        record = audits(hub)[1]["sandbox.json"]
        assert record["stopped"] == "SIGTERM"
        done = {e["key"] for e in record["effects"] if e["outcome"] == "applied"}
        assert done == recorded(hub)


def test_lockfiles_can_be_on_a_branch_of_their_own(hub: Hub, token: dict[str, str]) -> None:
    hub.protect("main")
    tip = hub.tip()
    hub.merged().uses("apply", token, environments="sandbox", persist="branch").expect()
    assert hub.files("polar-iac-state") == [LOCKFILE]
    assert hub.tip() == tip

    # A plan reads it: what the manifest no longer says is known to be ours, even offline.
    hub.push(meters(calls="Calls", images="Images"), branch="topic")
    fork = hub.pull_request("topic", repository="mallory/billing")
    assert "1 to create" in fork.uses("plan", environments="sandbox", persist="branch").expect().summary
    assert (
        "2 to create"
        in hub.pull_request("topic", repository="m/b").uses("plan", environments="sandbox").summary
    )

    # Below a directory too, and beside the others' lockfiles.
    hub.push({"eu/meters.yaml": manifest_text({"eu-calls": meter()}, project="eu")})
    inputs = {"environments": "sandbox", "persist": "branch", "working_directory": "eu"}
    hub.merged().uses("apply", token, **inputs).expect()
    assert hub.files("polar-iac-state") == [f"eu/{LOCKFILE}", LOCKFILE]
    assert hub.log("polar-iac-state") == ["Record the meters applied to sandbox"] * 2

    # A branch that holds anything else is not taken for one.
    odd = hub.merged().uses("apply", token, environments="sandbox", persist="branch", state_branch="topic")
    assert "topic holds more than lockfiles" in odd.expect(ok=False).log


def test_two_runners_race_for_the_state_branch(hub: Hub, token: dict[str, str]) -> None:
    """The second pushes at the very moment in which the first is about to: the lease settles it."""
    with served_polar() as production:
        hub.merged().uses("apply", token, environments="sandbox", persist="branch").expect()
        hub.push(meters(calls="Calls", images="Images"))
        env = token | {"POLAR_BASE_URL_PRODUCTION": production.url}
        first, second = hub.merged(), hub.merged()

        def overtake() -> None:
            for environment in ("sandbox", "production"):
                second.uses("apply", env, environments=environment, persist="branch").expect()

        hub.before_push(overtake)
        ran = first.uses("apply", env, environments="sandbox", persist="branch").expect()
    assert "has moved on" in ran.log
    assert recorded(hub, "polar-iac-state") == {"calls", "images"}
    assert recorded(hub, "polar-iac-state", "meters.production.lock.json") == {"calls", "images"}


def test_lockfiles_can_be_changed_by_pull_request(hub: Hub, token: dict[str, str]) -> None:
    hub.protect("main")
    with served_polar() as production:
        env = token | {"POLAR_BASE_URL_PRODUCTION": production.url}
        inputs = {"persist": "pull-request"}
        hub.merged().uses("apply", env, environments="sandbox", **inputs).expect()
        hub.merged().uses("apply", env, environments="production", **inputs).expect()
        (pull,) = hub.state["pulls"]
        assert (pull["head"], pull["base"]) == ("polar-iac-lockfile-main", "main")
        assert set(hub.files("polar-iac-lockfile-main")) - set(hub.files()) == {
            LOCKFILE,
            "meters.production.lock.json",
        }
        # While it is open, it is what counts.
        tip = hub.tip("polar-iac-lockfile-main")
        assert hub.merged().uses("plan", env, environments="sandbox", **inputs).outputs["needed"] == "false"
        hub.merged().uses("apply", env, environments="sandbox production", **inputs).expect()
        assert hub.tip("polar-iac-lockfile-main") == tip

        # Once it is merged, its branch counts no more, whether or not someone deletes it.
        hub.move("main", to="polar-iac-lockfile-main")
        hub.write_state(pulls=[pull | {"state": "closed"}])
        hub.push(meters(calls="Calls"))
        hub.merged().uses("apply", env, environments="sandbox", **inputs).expect()
        assert len(hub.state["pulls"]) == 2
        assert '"Calls"' in hub.read(LOCKFILE, "polar-iac-lockfile-main")
        assert hub.git("merge-base", "main", "polar-iac-lockfile-main") == hub.tip()

        hub.write_state(forbidden="reading")
        unread = hub.merged().uses("apply", env, environments="sandbox", **inputs).expect(ok=False)
        assert "needs the permission pull-requests: read" in unread.log


def test_the_token_takes_the_place_of_what_checkout_left(hub: Hub) -> None:
    """Two headers are an error 400 at GitHub; and the token must be on no command line."""
    runner = hub.merged()

    def answer(_method: str, path: str, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        return 404, {}, path.encode()

    with scripted(answer) as (url, tape):
        key = f"http.{url}/.extraheader"
        hub.git("config", key, "AUTHORIZATION: basic stale", cwd=runner.workspace)
        hub.git("remote", "set-url", "origin", f"{url}/acme/billing", cwd=runner.workspace)
        runner.environ["GITHUB_SERVER_URL"] = url
        ran = runner.uses("apply", environments="sandbox", github_token="ghs_one").expect(ok=False)
        (asked,) = tape.exchanges
    encoded = base64.b64encode(b"x-access-token:ghs_one").decode()
    assert asked.headers["authorization"] == f"basic {encoded}"
    assert ran.log.count(encoded) == ran.log.count(f"::add-mask::{encoded}") == 1


# What may be applied


def test_an_apply_of_an_old_commit_is_refused(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    old = hub.tip()
    hub.push(meters(calls="Calls"))
    refused = hub.merged(sha=old).uses("apply", token, environments="sandbox").expect(ok=False)
    assert "is not the tip of main any more" in refused.log
    assert polar.tape.exchanges == []


def test_lockfiles_pushed_since_make_no_commit_old(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    with served_polar() as production:
        env = token | {"POLAR_BASE_URL_PRODUCTION": production.url}
        merge = hub.tip()
        runner = hub.merged(sha=merge)
        for environment in ("sandbox", "production"):  # in one job
            runner.uses("apply", env, environments=environment).expect()
        hub.merged(sha=merge).uses("apply", env, environments="sandbox production").expect()  # in another
        assert hub.git("status", "--porcelain", cwd=runner.workspace) == ""
    assert len(hub.log()) == 3
    assert polar.tape.count("POST") == 1


def test_only_what_was_reviewed_is_applied(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    with served_polar() as production:
        env = token | {"POLAR_BASE_URL_PRODUCTION": production.url}
        environments = "sandbox production"
        reviewed = hub.merged().uses("plan", env, environments=environments).expect().outputs
        digest = reviewed["digest"]
        assert digest.split()[0].startswith("sandbox=")
        hub.push(meters(calls="Calls", images="Images"))
        stale = hub.merged().uses("apply", env, environments=environments, digest=digest).expect(ok=False)
        for text in (stale.log, stale.summary):
            assert "not what was reviewed" in text
            assert "Not applied, since sandbox comes first: production." in text
        assert headline(stale.summary) == "### 🛑 Polar meters: the plan is stale, and nothing was done"
        assert not polar.tape.count("POST") + production.tape.count("POST")

        runner = hub.merged()
        plans = runner.uses("plan", env, environments=environments).outputs["plans"]
        runner.uses("apply", env, environments=environments, plan=plans).expect()
        assert (polar.tape.count("POST"), production.tape.count("POST")) == (2, 2)

        # A saved plan says itself what was allowed: an input of the step makes it neither stale nor more.
        hub.push(meters(calls="Calls"))
        runner = hub.merged()
        plans = runner.uses("plan", env, environments=environments).outputs["plans"]
        more = runner.uses("apply", env, environments=environments, plan=plans, allow_archive="true")
        assert "refused, and nothing was done" in more.expect(ok=False).summary
        assert not polar.tape.count("PATCH")

        runner = hub.merged()
        digest = runner.uses("plan", env, environments=environments, allow_archive="true").outputs["digest"]
        runner.uses("apply", env, environments=environments, digest=digest, allow_archive="true").expect()
        assert polar.tape.sent("PATCH") == production.tape.sent("PATCH") == [{"is_archived": True}]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"environments": "staging"}, "staging is none of production, sandbox and local"),
        ({"environments": "sandbox", "file": "$(touch pwned)"}, "there is no $(touch pwned)"),
        ({"environments": "sandbox", "digest": "zzz"}, "digest: zzz is not a digest"),
    ],
)
def test_invalid_inputs_are_refused(
    hub: Hub, token: dict[str, str], inputs: dict[str, str], message: str
) -> None:
    runner = hub.merged()
    log = runner.uses("apply", token, **inputs).expect(ok=False).log
    assert message in log
    assert "What was done is recorded" not in log
    assert sorted(path.name for path in runner.workspace.iterdir()) == [".git", "README.md", "meters.yaml"]


# Drift


def test_drift_opens_updates_and_closes_one_issue(hub: Hub, polar: Served, token: dict[str, str]) -> None:
    def drift_issues() -> list[str]:
        ran = hub.merged(event_name="schedule").uses("drift", token, environments="sandbox").expect()
        assert ran.outputs["drift"] in ("true", "false")
        return [issue["state"] for issue in hub.state["issues"]]

    hub.merged().uses("apply", token, environments="sandbox").expect()
    assert drift_issues() == []
    hub.push(meters(calls="Calls"))
    assert drift_issues() == []  # it waits to be applied, and nobody touched Polar
    hub.merged().uses("apply", token, environments="sandbox").expect()

    (meter_id,) = [record["id"] for record in json.loads(hub.read(LOCKFILE))["meters"].values()]
    change(polar, meter_id, name="Changed in the dashboard")
    assert drift_issues() == ["open"]
    (issue,) = hub.state["issues"]
    assert "Changed in the dashboard" in issue["body"]
    assert "or an apply could not record what it did" in issue["body"]
    change(polar, meter_id, name="Changed again")
    assert drift_issues() == ["open"]
    assert "Changed again" in hub.state["issues"][0]["body"]

    change(polar, meter_id, name="Calls")
    assert drift_issues() == ["closed"]
    assert comments(hub) == ["Polar's meters are as they were applied again."]
    change(polar, meter_id, is_archived=True)  # no field differs, and still it bills nothing
    assert drift_issues() == ["closed", "open"]


def test_the_issue_tells_of_an_event_that_no_meter_counts(
    hub: Hub, polar: Served, token: dict[str, str]
) -> None:
    def looked() -> str:
        env = token | {"POLAR_FACTS_TOKEN_SANDBOX": "polar_oat_facts_1"}
        ran = hub.merged(event_name="schedule").uses("drift", env, environments="sandbox").expect()
        return ran.outputs["findings"]

    hub.merged().uses("apply", token, environments="sandbox").expect()
    event = {"name": "page.view", "external_customer_id": "ada"}
    answer = client(polar.polar).post("/events/ingest", json={"events": [event]})
    assert answer.status_code == 200
    assert looked() == "1"
    (issue,) = hub.state["issues"]
    assert "**`page.view`** 1 event since " in issue["body"]
    ignored = {"calls": meter()}
    hub.push({"meters.yaml": manifest_text(ignored, checks={"uncounted": {"ignore": ["page.view"]}})})
    assert looked() == "0"
    assert [issue["state"] for issue in hub.state["issues"]] == ["closed"]
    assert comments(hub) == ["Nothing is wrong with Polar's meters any more."]


def change(polar: Served, meter_id: str, **fields: Any) -> None:
    """Change a meter, as someone does in Polar's dashboard."""
    import httpx

    headers = {"Authorization": "Bearer polar_oat_test"}
    httpx.patch(f"{polar.url}/v1/meters/{meter_id}", json=fields, headers=headers).raise_for_status()


# Installing


@pytest.mark.slow
def test_the_action_installs_its_own_checkout(hub: Hub, token: dict[str, str]) -> None:
    """The one test with the real install step; it takes half a minute."""
    runner = hub.merged()
    runner.installed = False
    subprocess.run(["rm", "-r", runner.temp / "polar-iac"], check=True)
    runner.environ["PYTHONWARNINGS"] = "default"  # pip's own are none of ours
    runner.environ["PIP_NO_COMPILE"] = "1"  # half of its work, for a command that runs twice
    ran = runner.uses("apply", token, environments="sandbox").expect()
    assert "polar-iac, version" in ran.log
    assert recorded(hub) == {"calls"}
    # Plan in the same job takes what is there.
    assert "installed already" in runner.uses("plan", token, environments="sandbox").expect().log


def test_the_pre_commit_hook_validates_each_manifest(tmp_path: Path) -> None:
    (hook,) = load(ROOT / ".pre-commit-hooks.yaml")
    assert [
        bool(re.search(hook["files"], name)) for name in ("meters.yaml", "a/meters.yml", "parameters.yaml")
    ] == [
        True,
        True,
        False,
    ]
    (tmp_path / "meters.yaml").write_text(manifest_text({"calls": meter()}))
    (tmp_path / "bad.yaml").write_text("version: 2\n")
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*files: str) -> tuple[int, str]:
        command = [*shlex.split(hook["entry"]), *files]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert run("meters.yaml", "meters.yaml") == (0, "")
    code, errors = run("bad.yaml", "meters.yaml")
    assert code == 1
    assert "bad.yaml:1:" in errors
