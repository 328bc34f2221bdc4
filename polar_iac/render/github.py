"""What GitHub Actions is told besides the comment: workflow commands, and the results of a step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.plan import Change, Event, Failed, Plan, Unconfirmed, Unsure
from polar_iac.render.entry import RISKS, labels, listed, risk
from polar_iac.render.markdown import headline
from polar_iac.render.markup import repository_path
from polar_iac.render.words import printable, printable_lines, settled, value

Level = Literal["error", "warning", "notice"]

_SHOWN = 10
"""As many annotations of one level as GitHub shows of a step."""
_LONGEST = 2_000

# What .NET may pass over when it compares texts, and `printable` leaves alone.
_IGNORED = "[\u034f\u180b-\u180d\u180f\u200d\ufe00-\ufe0f]*"
_COMMAND = re.compile(rf"(?m)^((?:\s|\x1b\[[0-9;]*m|{_IGNORED[:-1]})*):(?={_IGNORED}:)")
_OLD_COMMAND = re.compile(rf"#(?={_IGNORED}#{_IGNORED}\[)")


def diagnostic_commands(diagnostics: Sequence[Diagnostic], *, directory: str = "") -> str:
    """An annotation for each problem at its place in the file.

    `directory` is where paths begin, seen from the top of the repository.
    """
    return "".join(_command("error", "polar-iac", d.span, d.message, directory) for d in diagnostics)


def failure_commands(events: Sequence[Event], *, directory: str = "") -> str:
    """An annotation for each meter that an apply could not change, at its place where Polar named it."""
    failed = [event for event in events if isinstance(event, Failed)]
    placed = diagnostic_commands([d for event in failed for d in event.diagnostics], directory=directory)
    unplaced = [f"{event.key}: {event.message}" for event in failed if not event.diagnostics]
    unplaced += [f"{event.key}: {event.message}" for event in events if isinstance(event, Unconfirmed)]
    unplaced += [event.message for event in events if isinstance(event, Unsure)]
    return placed + "".join(map(error_command, unplaced))


def error_command(message: str) -> str:
    """An annotation for an error that has no place in a file."""
    return _command("error", "polar-iac", None, message, "")


def plan_commands(plans: Sequence[Plan], *, directory: str = "") -> str:
    """An annotation for each risky change: what is billed, archived, blocked or overwritten, and warnings as
    notices."""
    notes: dict[_Note, list[str]] = {}
    for plan, label in zip(plans, labels(plans), strict=True):
        for change in plan.changes:
            for note in _notes(change):
                notes.setdefault(note, []).append(label)
    lines = []
    for level in ("warning", "notice"):
        found = sorted((n for n in notes if n.level == level), key=lambda n: (n.rank, n.key))
        shown = found if len(found) <= _SHOWN else found[: _SHOWN - 1]
        for note in shown:
            title = f"{note.title} · {listed(notes[note])}"
            lines.append(_command(note.level, title, note.source, note.message, directory))
        if len(found) > len(shown):
            more = f"{len(found) - len(shown)} more like these stand in the plan"
            lines.append(_command(found[0].level, "Polar meters", None, more, directory))
    return "".join(lines)


def outputs(plans: Sequence[Plan]) -> str:
    """Lines for GITHUB_OUTPUT: `changes` (how many), `summary` (one line) and `digest`.

    Of several plans, `digest` is `ENVIRONMENT=DIGEST` for each, with spaces between.
    """
    digests = [plan.digest for plan in plans]
    if len(plans) > 1:
        digests = [f"{label}={digest}" for label, digest in zip(labels(plans), digests, strict=True)]
    told = {
        "changes": str(sum(len(plan.changes) for plan in plans)),
        "summary": headline(plans),
        "digest": " ".join(digests),
    }
    # A value of one line needs no delimiter, and so none that it could forge.
    return "".join(f"{name}={printable(text)}\n" for name, text in told.items())


def inert(text: str) -> str:
    """`text` for a log on GitHub, with nothing in it that the runner would take for a command.

    The runner reads commands from every line of a step, also `##[…]` in the middle of one. What could be
    one is written as an escape; JSON keeps its meaning.
    """
    return _OLD_COMMAND.sub(r"\\u0023", _COMMAND.sub(r"\1\\u003a", text))


@dataclass(frozen=True)
class _Note:
    level: Level
    rank: int
    key: str
    title: str
    source: SourceSpan | None
    message: str


def _notes(change: Change) -> Iterator[_Note]:
    found = risk(change)
    if not found:
        return
    warnings = "; ".join(fact.text for fact in change.evidence if fact.severity == "warning")
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
    yield _Note(
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
    """As actions/toolkit escapes what follows a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
