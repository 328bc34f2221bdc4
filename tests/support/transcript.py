"""Transcripts in a document: commands that run as they stand there, and what they show."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.support.command import Workspace, on_terminal
from tests.support.golden import renews

CUT = "…"
"""A line that stands for lines of the output that a document leaves out."""
_BLOCK = re.compile(r"^```(console|diff)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
_BAR = re.compile(r"\w+: +\d+%\|[^\n\]]*\]")
_ANSWER = re.compile(r"(?:\[y/N\]|to apply): (\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A command and the output that a document shows of it, or a change of files as a diff."""

    command: str
    shown: str
    start: int
    end: int


def steps_of(document: str) -> Iterator[Step]:
    """The steps in a document's blocks of `console` and `diff`, in order; places are of what they show."""
    for block in _BLOCK.finditer(document):
        if block[1] == "diff":
            yield Step("", block[2], *block.span(2))
            continue
        for part in re.finditer(r"^\$ ([^\n]+)\n((?:(?!\$ )[^\n]*\n)*)", block[2], re.MULTILINE):
            start = block.start(2)
            yield Step(part[1], part[2], start + part.start(2), start + part.end(2))


def cut_like(shown: str, output: str) -> str:
    """Cut an output as a document does: each part as long as it shows it, between the same lines left out.

    The first part begins the output, the last one ends it, and each other one is found by its first line.
    """
    parts = [part.splitlines(keepends=True) for part in re.split(f"^{CUT}\n", shown, flags=re.MULTILINE)]
    lines = output.splitlines(keepends=True)
    if len(parts) == 1:
        return output
    first, *others, last = parts
    kept, place = lines[: len(first)], len(first)
    for part in others:
        place = lines.index(part[0], place)
        kept += [f"{CUT}\n", *lines[place : place + len(part)]]
        place += len(part)
    return "".join([*kept, f"{CUT}\n", *lines[len(lines) - len(last) :]])


def follow(path: Path, workspace: Workspace) -> None:
    """Run each command of a document, make each change, and hold that what it shows is shown.

    `REGENERATE=1` writes the outputs anew.
    """
    document = path.read_text(encoding="utf-8")
    written, place = "", 0
    for step in steps_of(document):
        if not step.command:
            subprocess.run(["git", "apply", "-"], cwd=workspace.path, input=step.shown, text=True, check=True)
            continue
        output = cut_like(step.shown, _output(step, workspace))
        if not renews():
            assert output == step.shown, f"{path.name}: {step.command}"
        written += document[place : step.start] + output
        place = step.end
    if renews():
        path.write_text(written + document[place:], encoding="utf-8")


def _output(step: Step, workspace: Workspace) -> str:
    program, *arguments = shlex.split(step.command)
    assert program == "polar-iac"
    if answer := _ANSWER.search(step.shown):
        _, output = on_terminal(workspace, *arguments, answer=f"{answer[1]}\n")
        # A display of progress, on a slow machine, returns to the beginning of the line and clears it.
        shown = _BAR.sub("", click.unstyle(output).replace("\r\n", "\n"))
        lines = (line.rsplit("\r", 1)[-1] for line in shown.split("\n"))
        return "\n".join(lines)
    assert workspace.warmed is not None
    return workspace.warmed.together(workspace.path, workspace.environ, *arguments)
