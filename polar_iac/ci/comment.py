"""Comment of the action `plan`: one on each pull request, with the plan, or with word that there is none.

Runs from the action's checkout, also where nothing could be installed: standard library only, and Python 3.7.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Mapping  # noqa: UP035  Python 3.7 runs this

from polar_iac.ci.github_api import GitHubApi, GitHubError
from polar_iac.ci.marker import marker_of, own, with_marker
from polar_iac.ci.pull_request import run_url, without_secrets

REMEDY = (
    "The job that plans needs permissions: {contents: read, pull-requests: write}; or set comment: false on "
    "the step, the plan stands in the job summary too."
)
_QUERY = """query($owner: String!, $name: String!, $issue: Int!, $cursor: String) {
  repository(owner: $owner, name: $name) { pullRequest(number: $issue) {
    comments(first: 100, after: $cursor) {
      nodes { number: databaseId body viewerDidAuthor } pageInfo { hasNextPage endCursor }
    } } } }"""
_PATH = ("repository", "pullRequest", "comments")


def may_comment(variables: Mapping[str, str]) -> bool:
    """Tell whether a run comments: on a pull request, with a token that may, and not switched off."""
    wanted = bool(variables["PULL_REQUEST"]) and variables["INPUT_COMMENT"] == "true"
    return wanted and not without_secrets(variables)


def comment_body(variables: Mapping[str, str], report: str) -> str:
    """Return the text of the comment. `report` is the Markdown of the plans, empty where there is none."""
    marker, commit = marker_of(variables), variables["HEAD_SHA"][:12]
    run = f"[The run]({run_url(variables)}) says why."
    if not report:
        return (
            f"### Polar meters: the plan failed at `{commit}`\n\n"
            f"{run} What stood here was the plan of an earlier commit.\n\n{marker}\n"
        )
    head = ""
    if variables.get("UNPLANNED"):
        missing = variables["UNPLANNED"].replace(" ", " and ")
        head = f"### Polar meters: no plan for {missing} at `{commit}`\n\n{run} "
        head += "What could be planned follows.\n\n"
    before = variables.get("BLOCKED_BEFORE")
    gray = (
        f"> Blocked, and not by this pull request, so its check does not fail for it: {before}."
        if before
        else ""
    )
    return head + with_marker(report, marker, gray)


def comment(variables: Mapping[str, str], github: GitHubApi) -> str:
    """Make or edit the comment, and say so. Nothing to say and nothing said before: stay silent.

    Raises GitHubError and OSError.
    """
    number = variables["PULL_REQUEST"]
    existing = own(github.texts(_QUERY, _PATH, issue=int(number)), marker_of(variables))
    if existing is None and variables.get("DIFFERS") != "true":
        return ""
    file = variables.get("REPORT")
    body = comment_body(variables, Path(file).read_text(encoding="utf-8") if file else "")
    if existing is None:
        github.rest("POST", f"issues/{number}/comments", body=body)
        return f"Commented on #{number}.\n"
    github.rest("PATCH", f"issues/comments/{existing}", body=body)
    return f"The comment on #{number} is up to date.\n"


def main() -> int:
    """Run the step: the exit code is 1 if GitHub refused the comment, or did not answer."""
    if not may_comment(os.environ):
        return 0
    try:
        sys.stdout.write(comment(os.environ, GitHubApi(os.environ)))
    except GitHubError as error:
        message = error.explained("the comment", REMEDY).replace("%", "%25").replace("\n", "%0A")
        sys.stderr.write(f"::error title=polar-iac::{message}\n")
        return 1
    return 0
