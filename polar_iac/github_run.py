"""The run on GitHub Actions, as its variables tell of it: where things stand, and what its pages are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.plan import Done, Event, Left, Plan

if TYPE_CHECKING:
    from polar_iac.render.markup import Links

SUMMARY_LIMIT = 1_000_000
"""Bytes of what one step may tell in the job's summary; GitHub takes 1 MiB, or nothing at all."""
_LEAST = 4_000
_IN_LOG = "the log of this step"


def on_github(variables: Mapping[str, str]) -> bool:
    return variables.get("GITHUB_ACTIONS") == "true"


def links(variables: Mapping[str, str]) -> Links | None:
    """Where the manifest and this run are to be seen, as GitHub's variables tell; None elsewhere."""
    from polar_iac.render.markup import Links

    server, repository = variables.get("GITHUB_SERVER_URL"), variables.get("GITHUB_REPOSITORY")
    sha = _head_commit(variables)
    if not (server and repository and sha):
        return None
    run = variables.get("GITHUB_RUN_ID")
    return Links(server, repository, sha, directory(variables), run)


def directory(variables: Mapping[str, str]) -> str:
    """Where this run's paths begin, seen from the top of the repository: that may be checked out anywhere."""
    here = Path.cwd()
    tops = (path for path in (here, *here.parents) if (path / ".git").exists())
    top = next(tops, Path(variables.get("GITHUB_WORKSPACE") or here))
    try:
        below = here.relative_to(top).as_posix()
    except ValueError:
        return ""
    return "" if below == "." else below


def _head_commit(variables: Mapping[str, str]) -> str | None:
    """The commit whose files people see: a pull request's own, not the merge that is tested for it."""
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
    from polar_iac.render.github import outputs, plan_commands
    from polar_iac.render.markdown import plan_markdown

    links_ = links(variables)
    limit = max(_LEAST, summary_room(variables))
    _summarize(
        plan_markdown(plans, manifest_file=manifest_file, links=links_, limit=limit, whole=_IN_LOG), variables
    )
    if output := variables.get("GITHUB_OUTPUT"):
        _append(Path(output), outputs(plans))
    return plan_commands(plans, directory=directory(variables))


def publish_results(plan: Plan, events: Sequence[Event], variables: Mapping[str, str]) -> str:
    """Append what came of an apply to the job's summary, what went wrong first, and the plan to its outputs.

    Returns the workflow commands that point at risky changes and at failures, for stderr.
    """
    from click import unstyle

    from polar_iac.render.github import failure_commands, outputs, plan_commands
    from polar_iac.render.markdown import result_markdown
    from polar_iac.render.text import event_text, left_text, result_text

    left = [event for event in events if isinstance(event, Left)]
    others = [event for event in events if not isinstance(event, Left)]
    wrong, done = (
        "".join(event_text(event) for event in others if isinstance(event, Done) == fine)
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
    """Append to the job's summary why nothing came of a command: the text that the log has of it."""
    from click import unstyle

    from polar_iac.render.fitting import Lines

    title = {
        ExitCode.STALE_PLAN: "the plan is stale, and nothing was done",
        ExitCode.REFUSED: "refused, and nothing was done",
    }
    lines = unstyle(told).rstrip("\n").split("\n")
    room = max(_LEAST, summary_room(variables)) - 200
    text = f"### 🛑 Polar meters: {title.get(code, 'an error')}\n\n"
    with suppress(PolarIacError):  # the error itself is told already
        _summarize(f"{text}{Lines(lines, language='').markdown(room, _IN_LOG)}\n", variables)


def summary_room(variables: Mapping[str, str]) -> int:
    """How many bytes this step may still add to the job's summary."""
    summary = variables.get("GITHUB_STEP_SUMMARY")
    try:
        return SUMMARY_LIMIT - (Path(summary).stat().st_size if summary else 0)
    except OSError:
        return SUMMARY_LIMIT


def _summarize(text: str, variables: Mapping[str, str]) -> None:
    """Append a text to the job's summary; not one by which GitHub would refuse all of it."""
    if (summary := variables.get("GITHUB_STEP_SUMMARY")) and len(text.encode()) < summary_room(variables):
        _append(Path(summary), f"{text}\n")


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
