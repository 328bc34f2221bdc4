"""Comment and issue: what they say and when, without a run; and that any Python can write the comment."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import polar_iac
from polar_iac.ci.comment import REMEDY, comment, comment_body, may_comment
from polar_iac.ci.github_api import GitHubApi, GitHubError
from polar_iac.ci.issue import found_outputs, update_issue
from polar_iac.ci.marker import marker_of
from polar_iac.ci.pull_request import without_secrets
from tests.support.comments import read_comment
from tests.support.github_server import GitHubServer
from tests.support.served_polar import Tape, scripted

BOT = "github-actions[bot]"
REPORT = "### Polar meters: 1 to create\n\ntext\n\n<!-- polar-iac:acme:sandbox -->\n"
VARIABLES = {
    "GITHUB_REPOSITORY": "acme/billing",
    "GITHUB_RUN_ID": "4711",
    "GH_TOKEN": "ghs_secret",
    "HEAD_REPOSITORY": "acme/billing",
    "HEAD_SHA": "0123456789abcdef",
    "INPUT_COMMENT": "true",
    "INPUT_ENVIRONMENTS": "sandbox",
    "INPUT_FILE": "meters.yaml",
    "INPUT_WORKING_DIRECTORY": ".",
    "PULL_REQUEST": "7",
    "ACTOR": "ana",
}
MARKER = marker_of(VARIABLES)


@pytest.fixture
def github() -> Iterator[tuple[GitHubServer, GitHubApi, Tape]]:
    server = GitHubServer("acme/billing", BOT)
    with scripted(server) as (url, tape):
        yield server, GitHubApi(VARIABLES | {"GITHUB_API_URL": url}), tape


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ({}, ""),
        ({"PULL_REQUEST": ""}, ""),
        ({"HEAD_REPOSITORY": "mallory/billing"}, "This pull request comes from a fork"),
        ({"ACTOR": "dependabot[bot]"}, "This pull request is Dependabot's"),
    ],
)
def test_a_run_without_secrets_says_why_and_comments_nothing(who: dict[str, str], reason: str) -> None:
    assert without_secrets(VARIABLES | who) == reason
    assert may_comment(VARIABLES | who) == (not reason and "PULL_REQUEST" not in who)
    assert not may_comment(VARIABLES | {"INPUT_COMMENT": "false"} | who)


def test_the_text_is_the_plan_or_that_there_is_none() -> None:
    assert comment_body(VARIABLES, REPORT) == f"### Polar meters: 1 to create\n\ntext\n\n{MARKER}\n"
    failed = comment_body(VARIABLES, "")
    assert failed.startswith(
        "### Polar meters: the plan failed at `0123456789ab`\n\n[The run](https://github.com/"
    )
    partial = comment_body(VARIABLES | {"UNPLANNED": "sandbox production"}, REPORT)
    assert partial.startswith("### Polar meters: no plan for sandbox and production at `0123456789ab`\n")
    assert "### Polar meters: 1 to create" in partial
    gray = comment_body(VARIABLES | {"BLOCKED_BEFORE": "`calls`"}, REPORT)
    assert gray.splitlines()[-3].endswith("its check does not fail for it: `calls`.")
    for body in (failed, partial):
        read_comment(body)
    for body in (failed, partial, gray):
        assert body.splitlines()[-1] == MARKER


def test_a_comment_is_made_where_something_differs_and_edited_ever_after(
    github: tuple[GitHubServer, GitHubApi, Tape], tmp_path: Path
) -> None:
    server, api, tape = github
    file = tmp_path / "report.md"
    file.write_text(REPORT, encoding="utf-8")
    planned = VARIABLES | {"REPORT": str(file)}
    assert comment(planned | {"DIFFERS": "false"}, api) == ""
    assert comment(VARIABLES, api) == ""  # it failed, and nothing was said before
    assert server.state["comments"] == []
    assert comment(planned | {"DIFFERS": "true"}, api) == "Commented on #7.\n"
    (made,) = server.state["comments"]
    # Pages of others', quotations of ours, and another pull request's come first.
    body = made["body"]
    server.state["comments"] = [
        {"number": 1, "issue": 7, "author": "mallory", "body": body},
        {"number": 2, "issue": 7, "author": BOT, "body": f"> {MARKER}\nin this."},
        {"number": 3, "issue": 8, "author": BOT, "body": body},
        {"number": 4, "issue": 7, "author": BOT, "body": ""},
        made,
    ]
    assert comment(VARIABLES, api) == "The comment on #7 is up to date.\n"
    assert "the plan failed" in made["body"]
    assert comment(planned, api)
    assert made["body"] == body
    assert [e["body"] for e in server.state["comments"][:2]] == [body, f"> {MARKER}\nin this."]
    assert {e.headers["authorization"] for e in tape.exchanges} == {"Bearer ghs_secret"}


def test_the_issue_is_opened_updated_closed_and_opened_again(
    github: tuple[GitHubServer, GitHubApi, Tape],
) -> None:
    server, api, _ = github

    def update(drift: bool, report: str = REPORT) -> list[str]:
        update_issue(VARIABLES, api, report, drift=drift)
        return [issue["state"] for issue in server.state["issues"]]

    assert update(False) == []
    assert update(True) == ["open"]
    (issue,) = server.state["issues"]
    read_comment(issue["body"])
    assert "or an apply could not record what it did" in issue["body"]
    assert update(True, REPORT.replace("text", "again")) == ["open"]
    assert "again" in issue["body"]
    assert update(False) == ["closed"]
    (told,) = server.state["comments"]
    assert told["body"] == "Polar's meters are as they were applied again."
    assert update(False) == ["closed"]
    assert update(True) == ["closed", "open"]


def test_the_issue_tells_of_other_things_that_are_wrong(
    github: tuple[GitHubServer, GitHubApi, Tape],
) -> None:
    server, api, _ = github
    update_issue(VARIABLES, api, REPORT, drift=False, other=True)
    (issue,) = server.state["issues"]
    read_comment(issue["body"])
    assert issue["body"].startswith("Something is wrong with meters at Polar that no pull request shows.")
    update_issue(VARIABLES, api, REPORT, drift=True, other=True)
    assert issue["body"].startswith("Meters at Polar are not as they were last recorded")
    update_issue(VARIABLES, api, REPORT, drift=False, other=True)
    update_issue(VARIABLES, api, REPORT, drift=False)
    assert issue["state"] == "closed"
    (told,) = server.state["comments"]
    assert told["body"] == "Nothing is wrong with Polar's meters any more."


def test_an_issue_is_closed_only_where_all_is_known() -> None:
    def outputs(findings: int, code: int, *lacks: str, drifted: int = 0) -> dict[str, str]:
        gaps = [{"lack": lack} for lack in lacks]
        entry = {"findings": [{}] * findings, "drifted": drifted, "not_checked": gaps}
        fine = {"findings": [], "drifted": 0, "not_checked": []}
        return found_outputs([fine, entry], code, "r.md")

    fine = {"drift": "false", "findings": "0"}
    assert outputs(0, 0) == fine | {"report": "r.md"}
    assert outputs(0, 0, "scope", "budget") == fine | {"report": "r.md"}  # so it is every day
    for lack in ("limited", "timeout", "failed"):
        assert outputs(0, 0, "scope", lack) == fine
    assert outputs(0, 1) == {}
    for code in (1, 3):
        found = outputs(2, code, "limited", drifted=1)
        assert found == {"drift": "true", "findings": "2", "report": "r.md"}
    assert outputs(1, 3)["drift"] == "false"


def test_a_token_that_may_not_is_told_from_a_github_that_does_not_answer(
    github: tuple[GitHubServer, GitHubApi, Tape],
) -> None:
    server, api, _ = github
    variables = VARIABLES | {"DIFFERS": "true"}
    server.state["forbidden"] = True
    with pytest.raises(GitHubError) as refused:
        comment(variables, api)
    said = "GitHub refused the comment (HTTP 403: Resource not accessible by integration)."
    assert refused.value.explained("the comment", REMEDY) == f"{said} {REMEDY}"
    server.state["forbidden"] = "down"
    with pytest.raises(GitHubError) as down:
        comment(variables, api)
    assert "GitHub did not answer as it should: HTTP 502: Bad Gateway. Run" in down.value.explained(
        "the x", ""
    )


def answers(data: Any) -> Any:
    return lambda _method, _path, _body: (
        200,
        {},
        data if isinstance(data, bytes) else json.dumps(data).encode(),
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"errors": [{"message": "Resource not accessible by integration"}]}, "Resource not accessible"),
        (b"<html>", "it sent no JSON"),
        ({"data": {"repository": None}}, "something else than was asked for"),
        ([], "something else than was asked for"),
        (b"", "something else than was asked for"),
    ],
)
def test_odd_answers_of_github_are_errors(data: Any, said: str) -> None:
    with scripted(answers(data)) as (url, _), pytest.raises(GitHubError, match=said):
        comment(VARIABLES, GitHubApi(VARIABLES | {"GITHUB_API_URL": url}))


def test_a_github_that_is_not_there_is_an_error() -> None:
    with pytest.raises(GitHubError) as error:
        GitHubApi(VARIABLES | {"GITHUB_API_URL": "http://127.0.0.1:1"}).rest("GET", "pulls")
    assert "did not answer" in error.value.explained("the list", "")


ROOT = Path(polar_iac.__file__).parent


def standalone() -> dict[str, ast.Module]:
    """The modules that write the comment, by their names."""
    found, waiting = dict[str, ast.Module](), ["polar_iac.ci.comment"]
    while waiting:
        name = waiting.pop()
        path = ROOT.parent.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        # Python 3.7 has to read it: it is what a runner without a newer one may have.
        found[name] = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 7))
        names = {node.module or "" for node in ast.walk(found[name]) if isinstance(node, ast.ImportFrom)}
        waiting += [name for name in names if name.startswith("polar_iac") and name not in found]
    return found


def test_the_comment_needs_nothing_installed() -> None:
    modules = {*standalone(), "polar_iac", "polar_iac.ci"}
    assert len(modules) > 4
    for name, tree in standalone().items():
        for node in ast.walk(tree):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            for other in imported:
                assert other in modules or other.partition(".")[0] in sys.stdlib_module_names, name
    for package in ("__init__.py", "ci/__init__.py"):
        tree = ast.parse((ROOT / package).read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
