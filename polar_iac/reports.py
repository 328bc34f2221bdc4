"""Where plans go besides the terminal: files, and what GitHub Actions shows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polar_iac.errors import PolarIacError
from polar_iac.lockfile import write_atomically
from polar_iac.plan import Plan
from polar_iac.render import WIDTH

if TYPE_CHECKING:
    from polar_iac.render.markup import Links

FORMATS = ("text", "json", "markdown")
SUMMARY_LIMIT = 900_000
"""Characters of a job summary; GitHub takes 1 MiB of it."""


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

        return plan_markdown(plans, manifest_file=manifest_file, links=links(variables))
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
    """Where this run's paths begin, seen from the top of the repository that GitHub checked out."""
    try:
        below = Path.cwd().relative_to(variables.get("GITHUB_WORKSPACE") or Path.cwd()).as_posix()
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


def publish_on_github(
    plans: Sequence[Plan], manifest_file: str, variables: Mapping[str, str], *, results: str = ""
) -> str:
    """Append the plans, and what came of them, to the job's summary and outputs.

    Returns the workflow commands that point at risky changes, for stderr.
    """
    from polar_iac.render.github import outputs, plan_commands
    from polar_iac.render.markdown import plan_markdown
    from polar_iac.render.markup import fence

    if summary := variables.get("GITHUB_STEP_SUMMARY"):
        text = plan_markdown(
            plans,
            manifest_file=manifest_file,
            links=links(variables),
            limit=SUMMARY_LIMIT,
            whole="the saved plan",
        )
        if results:
            text += "\n" + fence(results.rstrip("\n").split("\n")) + "\n"
        _append(Path(summary), text)
    if output := variables.get("GITHUB_OUTPUT"):
        _append(Path(output), outputs(plans))
    return plan_commands(plans, directory=directory(variables))


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
