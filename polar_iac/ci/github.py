"""GitHub Actions: workflow commands, job summary, step outputs, and links into the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from polar_iac.ci.annotations import Annotation
from polar_iac.ci.publish import Publisher
from polar_iac.errors import PolarIacError
from polar_iac.report.audit import CiRun
from polar_iac.report.comment.escape import repository_path
from polar_iac.sanitize import printable, printable_lines

_SUMMARY_LIMIT = 1_000_000
"""Maximum bytes that one step adds to the job summary. GitHub accepts 1 MiB, and drops anything larger
entirely."""
_LONGEST_MESSAGE = 2_000
# Characters that .NET may ignore in a comparison and that `printable` keeps.
# Example: the runner may read ":\u200d:error" as "::error".
_IGNORED = "[\u034f\u180b-\u180d\u180f\u200d\ufe00-\ufe0f]*"
_COMMAND = re.compile(rf"(?m)^((?:\s|\x1b\[[0-9;]*m|{_IGNORED[:-1]})*):(?={_IGNORED}:)")
_SERVER = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_OLD_COMMAND = re.compile(rf"#(?={_IGNORED}#{_IGNORED}\[)")


_RUN = ("actor", "triggering_actor", "repository", "ref", "workflow", "job", "run_id", "run_attempt")
"""Facts about a run for which GitHub sets a variable, such as GITHUB_ACTOR."""


class GitHub(Publisher):
    """The host of a run on GitHub Actions."""

    annotation_limit = 10
    summary_name = "the summary of the workflow run"
    log_name = "the log of the workflow run"
    step_log_name = "the log of this step"

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def escape(self, text: str) -> str:
        """Escape text for the log, so that the runner finds no command in it.

        The runner reads commands from every line of a step, and `##[…]` even in the middle of a line. The
        first `:` or `#` of a possible command becomes a JSON escape, so JSON keeps its meaning.
        """
        return _OLD_COMMAND.sub(r"\\u0023", _COMMAND.sub(r"\1\\u003a", text))

    def annotate(self, annotations: Sequence[Annotation]) -> str:
        return workflow_commands(annotations, working_directory(self._variables))

    def links(self) -> GitHubLinks | None:
        server, repository = (self._variables.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY"))
        commit = _head_commit(self._variables)
        if not (server and repository and commit):
            return None
        run = self._variables.get("GITHUB_RUN_ID")
        return GitHubLinks(server, repository, commit, working_directory(self._variables), run)

    def run(self) -> CiRun:
        value = {name: self._variables.get(f"GITHUB_{name.upper()}") or None for name in _RUN}
        links = self.links()
        return CiRun(
            system="GitHub Actions",
            commit=_head_commit(self._variables),
            url=links.run if links else None,
            **value,
        )

    def summary_room(self) -> int:
        summary = self._variables.get("GITHUB_STEP_SUMMARY")
        if not summary:
            return 0
        try:
            return max(0, _SUMMARY_LIMIT - Path(summary).stat().st_size)
        except OSError:  # no step has written to it yet
            return _SUMMARY_LIMIT

    def append_summary(self, markdown: str) -> None:
        self._append("GITHUB_STEP_SUMMARY", f"{markdown}\n")

    def write_outputs(self, outputs: Mapping[str, str]) -> None:
        self._append("GITHUB_OUTPUT", output_lines(outputs))

    def _append(self, variable: str, text: str) -> None:
        """Append to the file that a variable names, if it does."""
        path = self._variables.get(variable)
        if not path:
            return
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise PolarIacError(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True)
class GitHubLinks:
    """Addresses on GitHub of the files at a commit, and of a workflow run.

    `directory` is the base of the run's paths, relative to the root of the repository.
    """

    server_url: str
    repository: str
    sha: str
    directory: str = ""
    run_id: str | None = None

    def file(self, path: str, line: int | None = None) -> str | None:
        """Return the address of a file at the commit, or None if it is unknown."""
        place = repository_path(path, self.directory)
        if place is None or not self._home or not _SHA.fullmatch(self.sha):
            return None
        anchor = f"#L{line}" if line else ""
        return f"{self._home}/blob/{self.sha}/{quote(place, safe='/', errors='surrogatepass')}{anchor}"

    @property
    def run(self) -> str | None:
        """Address of the run, or None if it is unknown."""
        is_number = self.run_id and self.run_id.isascii() and self.run_id.isdigit()
        return f"{self._home}/actions/runs/{self.run_id}" if self._home and is_number else None

    @property
    def _home(self) -> str | None:
        valid = _SERVER.fullmatch(self.server_url) and _REPOSITORY.fullmatch(self.repository)
        return f"{self.server_url}/{self.repository}" if valid else None


def workflow_commands(annotations: Sequence[Annotation], directory: str = "") -> str:
    """Return a workflow command for each annotation.

    `directory` is the base of the paths, relative to the root of the repository.
    """
    return "".join(_command(annotation, directory) for annotation in annotations)


def _command(annotation: Annotation, directory: str) -> str:
    properties = {}
    span = annotation.span
    path = span and repository_path(span.file, directory)
    if span and path:
        properties = {"file": path, "line": str(span.line), "col": str(span.column)}
    properties["title"] = annotation.title
    pairs = ",".join(f"{name}={_property(printable(text))}" for name, text in properties.items())
    message = printable_lines(annotation.message)
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "…"
    return f"::{annotation.level} {pairs}::{_data(message)}\n"


def _data(text: str) -> str:
    """Escape the message of a command as actions/toolkit does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def output_lines(outputs: Mapping[str, str]) -> str:
    """Return lines for GITHUB_OUTPUT."""
    # A one-line value needs no delimiter, so it cannot forge one.
    return "".join(f"{name}={printable(text)}\n" for name, text in outputs.items())


def working_directory(variables: Mapping[str, str]) -> str:
    """Return the current directory relative to the repository root, which may be anywhere."""
    here = Path.cwd()
    # actions/checkout may have put the repository into a subdirectory of GITHUB_WORKSPACE.
    tops = (path for path in (here, *here.parents) if (path / ".git").exists())
    top = next(tops, Path(variables.get("GITHUB_WORKSPACE") or here))
    try:
        below = here.relative_to(top).as_posix()
    except ValueError:
        return ""
    return "" if below == "." else below


def _head_commit(variables: Mapping[str, str]) -> str | None:
    """Return the commit that people see: the head of the pull request, not its test merge."""
    try:
        event = json.loads(Path(variables["GITHUB_EVENT_PATH"]).read_bytes())
        return str(event["pull_request"]["head"]["sha"])
    except (KeyError, TypeError, ValueError, OSError):
        return variables.get("GITHUB_SHA")
