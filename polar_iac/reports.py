"""Where plans go besides the terminal: files, and what GitHub Actions shows of a run."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.lockfile import write_atomically
from polar_iac.plan import Done, Event, Left, Plan
from polar_iac.render import WIDTH

if TYPE_CHECKING:
    from polar_iac.render.markup import Links

FORMATS = ("text", "json", "markdown")
SUMMARY_LIMIT = 1_000_000
"""Bytes of what one step may tell in the job's summary; GitHub takes 1 MiB, or nothing at all."""
_LEAST = 4_000
_IN_SUMMARY = "the summary of the workflow run"
_IN_LOG = "the log of this step"


def rendered(
    plans: Sequence[Plan],
    format_: str,
    manifest_file: str,
    variables: Mapping[str, str],
    width: int = WIDTH,
) -> str:
    """The plans of one run, one for each environment, in one of the FORMATS; text in `width` columns.

    JSON is an object for one plan, and a list of them for several.
    """
    if format_ == "json":
        from polar_iac.render.document import plan_json, plans_json

        return plan_json(plans[0]) if len(plans) == 1 else plans_json(plans)
    if format_ == "markdown":
        from polar_iac.render.markdown import plan_markdown

        told = functools.partial(plan_markdown, plans, manifest_file=manifest_file, links=links(variables))
        if not on_github(variables):
            return told(whole="what `plan` prints as text")
        in_summary = len(told(limit=sys.maxsize).encode()) <= _summary_room(variables)
        return told(whole=_IN_SUMMARY if in_summary else "the log of the workflow run")
    from polar_iac.render.text import plan_text

    return "\n".join(plan_text(plan, manifest_file, width) for plan in plans)


def write_reports(
    reports: Sequence[str],
    plans: Sequence[Plan],
    manifest_file: str,
    variables: Mapping[str, str],
) -> None:
    """Write each FORMAT=FILE. Raises PolarIacError for one that is none, or cannot be written."""
    from click import unstyle

    for report in reports:
        format_, equals, file = report.partition("=")
        if not equals or not file or format_ not in FORMATS:
            raise PolarIacError(f"--report {report}: write FORMAT=FILE, where FORMAT is {', '.join(FORMATS)}")
        write(Path(file), unstyle(rendered(plans, format_, manifest_file, variables)))


def write(path: Path, text: str) -> None:
    """Write a file that the user named, whole or not at all; into a device or a pipe (`/dev/stdout`), which
    must not be replaced. Raises PolarIacError when it cannot be written."""
    if path.exists() and not path.is_file():
        try:
            with path.open("w", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
    else:
        write_atomically(path, text)


def read_plan(path: Path) -> Plan:
    """A plan that `plan --out` wrote. Raises PolarIacError when the file holds none."""
    import json

    from polar_iac.render.document import plan_from_document

    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the plan: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PolarIacError(f"{path}: error: this is no saved plan: make one with `plan --out`") from error
    try:
        return plan_from_document(data)
    except PolarIacError as error:
        raise PolarIacError(f"{path}: error: {error}") from error


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


def on_github(variables: Mapping[str, str]) -> bool:
    return variables.get("GITHUB_ACTIONS") == "true"


def for_log(text: str, variables: Mapping[str, str]) -> str:
    """`text` of our renderers as it may be printed here, whatever it quotes: nothing moves the cursor, and
    on GitHub, where a runner reads commands from what a step prints, no line is one."""
    from polar_iac.render.words import printable_styled

    text = printable_styled(text)
    if not on_github(variables):
        return text
    from polar_iac.render.github import inert

    return inert(text)


def plain(text: str, variables: Mapping[str, str]) -> str:
    """The same for text that is no renderer's, and so has no colours of ours."""
    from polar_iac.render.words import printable_lines

    return for_log(printable_lines(text), variables)


def told_of(error: Exception, variables: Mapping[str, str], width: int = WIDTH) -> str:
    """What stderr says of an error, with its annotation on GitHub; lines of the user's in `width` columns."""
    from polar_iac.errors import DiagnosticError
    from polar_iac.render.github import diagnostic_commands, error_command
    from polar_iac.render.text import diagnostics_text, error_text

    if isinstance(error, DiagnosticError):
        text = diagnostics_text(error.diagnostics, width)
        commands = diagnostic_commands(error.diagnostics, directory=directory(variables))
    else:
        message = str(error)
        if not isinstance(error, PolarIacError):
            told = f"{type(error).__name__}: {error}"
            message = f"polar-iac itself failed ({told}): please report this with what --debug prints"
        text, commands = error_text(message), error_command(message)
    return (commands if on_github(variables) else "") + for_log(text, variables)


def publish_on_github(plans: Sequence[Plan], manifest_file: str, variables: Mapping[str, str]) -> str:
    """Append the plans to the job's summary and outputs.

    Returns the workflow commands that point at risky changes, for stderr.
    """
    from polar_iac.render.github import outputs, plan_commands
    from polar_iac.render.markdown import plan_markdown

    links_ = links(variables)
    limit = max(_LEAST, _summary_room(variables))
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
    limit = max(_LEAST, _summary_room(variables))
    _summarize(
        result_markdown(plan, counts, lines, links=links(variables), limit=limit, whole=_IN_LOG), variables
    )
    if output := variables.get("GITHUB_OUTPUT"):
        _append(Path(output), outputs([plan]))
    place = directory(variables)
    return plan_commands([plan], directory=place) + failure_commands(events, directory=place)


def publish_error(error: Exception, variables: Mapping[str, str]) -> None:
    """Append to the job's summary why nothing came of a command."""
    from click import unstyle

    from polar_iac.render.entry import Lines

    title = {
        ExitCode.STALE_PLAN: "the plan is stale, and nothing was done",
        ExitCode.REFUSED: "refused, and nothing was done",
    }
    code = error.exit_code if isinstance(error, PolarIacError) else ExitCode.ERROR
    told = unstyle(told_of(error, {})).rstrip("\n").split("\n")
    room = max(_LEAST, _summary_room(variables)) - 200
    text = f"### 🛑 Polar meters: {title.get(code, 'an error')}\n\n"
    with suppress(PolarIacError):  # the error itself is told already
        _summarize(f"{text}{Lines(told, language='').markdown(room, _IN_LOG)}\n", variables)


def _summary_room(variables: Mapping[str, str]) -> int:
    """How many bytes this step may still add to the job's summary."""
    summary = variables.get("GITHUB_STEP_SUMMARY")
    try:
        return SUMMARY_LIMIT - (Path(summary).stat().st_size if summary else 0)
    except OSError:
        return SUMMARY_LIMIT


def _summarize(text: str, variables: Mapping[str, str]) -> None:
    """Append a text to the job's summary; not one by which GitHub would refuse all of it."""
    if (summary := variables.get("GITHUB_STEP_SUMMARY")) and len(text.encode()) < _summary_room(variables):
        _append(Path(summary), f"{text}\n")


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
