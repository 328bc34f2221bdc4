"""GitHub Actions integration: reads the run's variables, and writes its summary and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from polar_iac.apply.events import Applied, Event, Skipped
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.plan.model import Plan

if TYPE_CHECKING:
    from polar_iac.report.comment.escape import Links

SUMMARY_LIMIT = 1_000_000
"""Maximum bytes that one step adds to the job summary. GitHub accepts 1 MiB, and drops anything larger
entirely."""
_LEAST = 4_000
_IN_LOG = "the log of this step"


def on_github(variables: Mapping[str, str]) -> bool:
    return variables.get("GITHUB_ACTIONS") == "true"


def links(variables: Mapping[str, str]) -> Links | None:
    """Return links to the manifest and this run from GitHub's variables, or None outside GitHub."""
    from polar_iac.report.comment.escape import Links

    server, repository = variables.get("GITHUB_SERVER_URL"), variables.get("GITHUB_REPOSITORY")
    sha = _head_commit(variables)
    if not (server and repository and sha):
        return None
    run = variables.get("GITHUB_RUN_ID")
    return Links(server, repository, sha, directory(variables), run)


def directory(variables: Mapping[str, str]) -> str:
    """Return the current directory relative to the repository root, which may be anywhere."""
    here = Path.cwd()
    tops = (path for path in (here, *here.parents) if (path / ".git").exists())
    top = next(tops, Path(variables.get("GITHUB_WORKSPACE") or here))
    try:
        below = here.relative_to(top).as_posix()
    except ValueError:
        return ""
    return "" if below == "." else below


def _head_commit(variables: Mapping[str, str]) -> str | None:
    """Return the commit that people see: the head of the pull request, not its test merge."""
    import json

    try:
        event = json.loads(Path(variables["GITHUB_EVENT_PATH"]).read_bytes())
        return str(event["pull_request"]["head"]["sha"])
    except (KeyError, TypeError, ValueError, OSError):
        return variables.get("GITHUB_SHA")


def publish_plans(plans: Sequence[Plan], manifest_file: str, variables: Mapping[str, str]) -> str:
    """Append the plans to the job's summary and outputs.

    Returns the workflow commands that point at risky changes, for stderr.
    """
    from polar_iac.ci.workflow_commands import outputs, plan_commands
    from polar_iac.report.comment.document import plan_markdown

    links_ = links(variables)
    limit = max(_LEAST, summary_room(variables))
    _summarize(
        plan_markdown(plans, manifest_file=manifest_file, links=links_, limit=limit, whole=_IN_LOG), variables
    )
    if output := variables.get("GITHUB_OUTPUT"):
        _append(Path(output), outputs(plans))
    return plan_commands(plans, directory=directory(variables))


def publish_results(plan: Plan, events: Sequence[Event], variables: Mapping[str, str]) -> str:
    """Append the results of an apply to the job summary, problems first, and the plan to the job outputs.

    Returns the workflow commands that point at risky changes and at failures, for stderr.
    """
    from click import unstyle

    from polar_iac.ci.workflow_commands import failure_commands, outputs, plan_commands
    from polar_iac.report.comment.document import result_markdown
    from polar_iac.report.results import event_text, left_text, result_text

    left = [event for event in events if isinstance(event, Skipped)]
    others = [event for event in events if not isinstance(event, Skipped)]
    wrong, done = (
        "".join(event_text(event) for event in others if isinstance(event, Applied) == fine)
        for fine in (False, True)
    )
    told = unstyle(wrong + left_text(left) + done).rstrip("\n")
    lines = told.split("\n") if told else []
    counts = unstyle(result_text(events)).removeprefix("Apply: ").rstrip(".") if events else "nothing to do"
    limit = max(_LEAST, summary_room(variables))
    _summarize(
        result_markdown(plan, counts, lines, links=links(variables), limit=limit, whole=_IN_LOG), variables
    )
    if output := variables.get("GITHUB_OUTPUT"):
        _append(Path(output), outputs([plan]))
    place = directory(variables)
    return plan_commands([plan], directory=place) + failure_commands(events, directory=place)


def publish_error(code: ExitCode, told: str, variables: Mapping[str, str]) -> None:
    """Append to the job summary why a command failed, with the same text as in the log."""
    from click import unstyle

    from polar_iac.report.comment.budget import TruncatableBlock

    title = {
        ExitCode.STALE_PLAN: "the plan is stale, and nothing was done",
        ExitCode.REFUSED: "refused, and nothing was done",
    }
    lines = unstyle(told).rstrip("\n").split("\n")
    room = max(_LEAST, summary_room(variables)) - 200
    text = f"### 🛑 Polar meters: {title.get(code, 'an error')}\n\n"
    with suppress(PolarIacError):  # the error itself is already reported
        _summarize(f"{text}{TruncatableBlock(lines, language='').markdown(room, _IN_LOG)}\n", variables)


def summary_room(variables: Mapping[str, str]) -> int:
    """Return the number of bytes that this step may still add to the job summary."""
    summary = variables.get("GITHUB_STEP_SUMMARY")
    try:
        return SUMMARY_LIMIT - (Path(summary).stat().st_size if summary else 0)
    except OSError:
        return SUMMARY_LIMIT


def _summarize(text: str, variables: Mapping[str, str]) -> None:
    """Append text to the job summary, unless it is so large that GitHub would reject the whole summary."""
    if (summary := variables.get("GITHUB_STEP_SUMMARY")) and len(text.encode()) < summary_room(variables):
        _append(Path(summary), f"{text}\n")


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
