"""Issue of the action `drift`: never more than one is open, while something is wrong with the meters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polar_iac.ci.github_api import GitHubApi
from polar_iac.ci.marker import marker_of, own, with_marker
from polar_iac.ci.pull_request import run_url
from polar_iac.errors import ExitCode

REMEDY = (
    "The job needs permissions: {contents: read, issues: write}, and the repository must have issues enabled."
)
_QUERY = """query($owner: String!, $name: String!, $cursor: String) {
  repository(owner: $owner, name: $name) { issues(first: 100, after: $cursor, states: OPEN) {
    nodes { number body viewerDidAuthor } pageInfo { hasNextPage endCursor }
  } } }"""
_TITLE = "Polar meters need attention"
_DRIFTED = (
    "Meters at Polar are not as they were last recorded: someone changed them, or an apply could not "
    "record what it did. Take the change into the manifest by a pull request, or run the apply workflow "
    "to put back what the manifest says."
)
_OTHERWISE = "Something is wrong with meters at Polar that no pull request shows."

_INCOMPLETE = ("limited", "timeout", "failed")
"""Reasons for a gap that may be gone tomorrow. Until then, the result is not known."""


def found_outputs(entries: Sequence[Mapping[str, Any]], code: int, report: str) -> dict[str, str]:
    """Return the outputs of the step that looks: `drift`, `findings`, and the `report` for the issue.

    `entries` are those of the JSON of a check, whose exit code is `code`. Without `report` the issue is left
    as it is. If an environment or some facts could not be read this time, the result is not known, and no
    issue is closed.
    """
    count = sum(len(entry["findings"]) for entry in entries)
    drift = "true" if any(entry["drifted"] for entry in entries) else "false"
    if count:
        return {"drift": drift, "findings": str(count), "report": report}
    if code != ExitCode.OK:
        return {}
    lacks = {gap["lack"] for entry in entries for gap in entry["not_checked"]}
    known = {} if lacks.intersection(_INCOMPLETE) else {"report": report}
    return {"drift": drift, "findings": "0", **known}


def issue_body(variables: Mapping[str, str], report: str, *, drift: bool) -> str:
    """Return the text of the issue. `report` is what was found, as Markdown."""
    seen = f"Seen last in [this run]({run_url(variables)}). This issue closes when nothing is wrong any more."
    return f"{_DRIFTED if drift else _OTHERWISE} {seen}\n\n{with_marker(report, marker_of(variables))}"


def update_issue(
    variables: Mapping[str, str], github: GitHubApi, report: str, *, drift: bool, other: bool = False
) -> str:
    """Open the issue, bring it up to date, or close it, and say so. Raises GitHubError.

    `drift` says that meters are not as they were applied, `other` that something else is wrong.
    """
    texts = list(github.texts(_QUERY, ("repository", "issues")))
    existing = own(texts, marker_of(variables))
    body = issue_body(variables, report, drift=drift)
    if existing is None and (drift or other):
        github.rest("POST", "issues", title=_TITLE, body=body)
        return "Opened an issue.\n"
    if existing is None:
        return ""
    if drift or other:
        github.rest("PATCH", f"issues/{existing}", body=body)
        return f"Issue #{existing} is up to date.\n"
    was = next(text for number, text, _ in texts if number == existing)
    closing = (
        "Polar's meters are as they were applied again."
        if was.startswith(_DRIFTED)
        else "Nothing is wrong with Polar's meters any more."
    )
    github.rest("POST", f"issues/{existing}/comments", body=closing)
    github.rest("PATCH", f"issues/{existing}", state="closed", state_reason="completed")
    return f"Closed issue #{existing}.\n"
