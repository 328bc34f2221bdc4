"""Issue of the action `drift`: never more than one is open, while meters are not as they were applied."""

from __future__ import annotations

from collections.abc import Mapping

from polar_iac.ci.github_api import GitHubApi
from polar_iac.ci.marker import marker_of, own, with_marker
from polar_iac.ci.pull_request import run_url

REMEDY = (
    "The job needs permissions: {contents: read, issues: write}, and the repository must have issues enabled."
)
_QUERY = """query($owner: String!, $name: String!, $cursor: String) {
  repository(owner: $owner, name: $name) { issues(first: 100, after: $cursor, states: OPEN) {
    nodes { number body viewerDidAuthor } pageInfo { hasNextPage endCursor }
  } } }"""
_TITLE = "Polar meters are not as they were last applied"


def issue_body(variables: Mapping[str, str], report: str) -> str:
    """Return the text of the issue. `report` is the Markdown of the drift."""
    head = (
        "Meters at Polar are not as they were last recorded: someone changed them, or an apply could not "
        "record what it did. Take the change into the manifest by a pull request, or run the apply workflow "
        f"to put back what the manifest says. Seen last in [this run]({run_url(variables)}). This issue "
        "closes when the difference is gone.\n\n"
    )
    return head + with_marker(report, marker_of(variables))


def update_issue(variables: Mapping[str, str], github: GitHubApi, report: str, *, drift: bool) -> str:
    """Open the issue, bring it up to date, or close it, and say so. Raises GitHubError."""
    existing = own(github.texts(_QUERY, ("repository", "issues")), marker_of(variables))
    if drift and existing is None:
        github.rest("POST", "issues", title=_TITLE, body=issue_body(variables, report))
        return "Opened an issue.\n"
    if drift:
        github.rest("PATCH", f"issues/{existing}", body=issue_body(variables, report))
        return f"Issue #{existing} is up to date.\n"
    if existing is None:
        return ""
    closing = "Polar's meters are as they were applied again."
    github.rest("POST", f"issues/{existing}/comments", body=closing)
    github.rest("PATCH", f"issues/{existing}", state="closed", state_reason="completed")
    return f"Closed issue #{existing}.\n"
