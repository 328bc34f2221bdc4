"""Workflow commands and step outputs for GitHub Actions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from polar_iac.apply.events import Event, Failed, Unconfirmed, Unknown
from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.plan.model import Change, Plan
from polar_iac.report.comment.document import headline
from polar_iac.report.comment.escape import repository_path
from polar_iac.report.comment.remarks import labels, listed
from polar_iac.report.comment.risks import RISKS, risk
from polar_iac.report.wording import settled, value
from polar_iac.sanitize import printable, printable_lines

Level = Literal["error", "warning", "notice"]
_SHOWN = 10
"""Annotations of one level that GitHub shows for a step."""
_LONGEST = 2_000
# Characters that .NET may ignore in a comparison and that `printable` keeps.
# Example: the runner may read ":\u200d:error" as "::error".
_IGNORED = "[\u034f\u180b-\u180d\u180f\u200d\ufe00-\ufe0f]*"
_COMMAND = re.compile(rf"(?m)^((?:\s|\x1b\[[0-9;]*m|{_IGNORED[:-1]})*):(?={_IGNORED}:)")
_OLD_COMMAND = re.compile(rf"#(?={_IGNORED}#{_IGNORED}\[)")


def diagnostic_commands(diagnostics: Sequence[Diagnostic], *, directory: str = "") -> str:
    """Return an annotation for each problem at its place in the file.

    `directory` is the base of the paths, relative to the root of the repository.
    """
    return "".join(_command("error", "polar-iac", d.span, d.message, directory) for d in diagnostics)


def failure_commands(events: Sequence[Event], *, directory: str = "") -> str:
    """Return an annotation for each meter that an apply could not change, at its place if Polar named one."""
    failed = [event for event in events if isinstance(event, Failed)]
    placed = diagnostic_commands([d for event in failed for d in event.diagnostics], directory=directory)
    unplaced = [f"{event.key}: {event.message}" for event in failed if not event.diagnostics]
    unplaced += [f"{event.key}: {event.message}" for event in events if isinstance(event, Unconfirmed)]
    unplaced += [event.message for event in events if isinstance(event, Unknown)]
    return placed + "".join(map(error_command, unplaced))


def error_command(message: str) -> str:
    """Return an annotation for an error that has no place in a file."""
    return _command("error", "polar-iac", None, message, "")


def plan_commands(plans: Sequence[Plan], *, directory: str = "") -> str:
    """Return an annotation for each risky change.

    Changes that alter billing, archive, are blocked or overwrite are warnings; the other risks are notices.
    """
    notes: dict[_Annotation, list[str]] = {}
    for plan, label in zip(plans, labels(plans), strict=True):
        for change in plan.changes:
            for note in _notes(change):
                notes.setdefault(note, []).append(label)
    lines = []
    for level in ("warning", "notice"):
        found = sorted((n for n in notes if n.level == level), key=lambda n: (n.rank, n.key))
        # GitHub drops what exceeds the limit: of 12, show 9 and "3 more".
        shown = found if len(found) <= _SHOWN else found[: _SHOWN - 1]
        for note in shown:
            title = f"{note.title} · {listed(notes[note])}"
            lines.append(_command(note.level, title, note.source, note.message, directory))
        if len(found) > len(shown):
            more = f"{len(found) - len(shown)} more like these stand in the plan"
            lines.append(_command(found[0].level, "Polar meters", None, more, directory))
    return "".join(lines)


def outputs(plans: Sequence[Plan]) -> str:
    """Return lines for GITHUB_OUTPUT: `changes` (a count), `summary` (one line) and `digest`.

    For several plans, `digest` is `ENVIRONMENT=DIGEST` for each, separated by spaces.
    """
    digests = [plan.digest for plan in plans]
    if len(plans) > 1:
        digests = [f"{label}={digest}" for label, digest in zip(labels(plans), digests, strict=True)]
    told = {
        "changes": str(sum(len(plan.changes) for plan in plans)),
        "summary": headline(plans),
        "digest": " ".join(digests),
    }
    # A one-line value needs no delimiter, so it cannot forge one.
    return "".join(f"{name}={printable(text)}\n" for name, text in told.items())


def inert(text: str) -> str:
    """Escape `text` for a GitHub log, so that the runner finds no command in it.

    The runner reads commands from every line of a step, and `##[…]` even in the middle of a line. The first
    `:` or `#` of a possible command becomes a JSON escape, so JSON keeps its meaning.
    """
    return _OLD_COMMAND.sub(r"\\u0023", _COMMAND.sub(r"\1\\u003a", text))


@dataclass(frozen=True)
class _Annotation:
    level: Level
    rank: int
    key: str
    title: str
    source: SourceSpan | None
    message: str


def _notes(change: Change) -> Iterator[_Annotation]:
    found = risk(change)
    if not found:
        return
    warnings = "; ".join(fact.text for fact in change.notes if fact.severity == "warning")
    fields = listed([field.path for field in change.fields if field.impact == "billing"])
    outside = listed([field.path for field in change.fields if field.origin != "manifest"])
    billed = f"changes what is billed: {fields}" if fields else "starts to bill again"
    told = {
        "billing": billed + (f". {warnings}" if warnings else ""),
        "outside": f"overwrites what was changed at Polar: {outside}" + (f". {warnings}" if warnings else ""),
        "archive": settled(change)
        if change.action == "settle"
        else warnings or "bills nothing once it is archived",
        "blocked": change.reason or "blocked",
        "warning": warnings,
    }[found]
    yield _Annotation(
        level="notice" if found == "warning" else "warning",
        rank=RISKS.index(found),
        key=change.key,
        title=f"Polar meters: {change.action}",
        source=change.source,
        message=f"{change.key} {value(change.name)}: {told}",
    )


def _command(level: Level, title: str, source: SourceSpan | None, message: str, directory: str) -> str:
    properties = {}
    place = source and repository_path(source.file, directory)
    if source and place:
        properties = {"file": place, "line": str(source.line), "col": str(source.column)}
    properties["title"] = title
    told = ",".join(f"{name}={_property(printable(text))}" for name, text in properties.items())
    text = printable_lines(message)
    return f"::{level} {told}::{_data(text if len(text) <= _LONGEST else text[:_LONGEST] + '…')}\n"


def _data(text: str) -> str:
    """Escape the message of a command as actions/toolkit does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
