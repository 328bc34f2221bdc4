"""Pull request of a run. Standard library only, and Python 3.7: see `polar_iac.ci.marker`."""

from __future__ import annotations

from typing import Mapping  # noqa: UP035  Python 3.7 runs this


def without_secrets(variables: Mapping[str, str]) -> str:
    """Say why a run has no token of Polar, and one of GitHub that writes nothing. Empty if it has both."""
    if not variables.get("PULL_REQUEST"):
        return ""
    if variables.get("HEAD_REPOSITORY") != variables["GITHUB_REPOSITORY"]:
        return "This pull request comes from a fork"
    return "This pull request is Dependabot's" if variables.get("ACTOR") == "dependabot[bot]" else ""


def run_url(variables: Mapping[str, str]) -> str:
    """Return the address of this workflow run."""
    server = variables.get("GITHUB_SERVER_URL") or "https://github.com"
    return f"{server}/{variables['GITHUB_REPOSITORY']}/actions/runs/{variables.get('GITHUB_RUN_ID', '')}"
