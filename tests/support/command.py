"""The real command in a subprocess, in a directory of its own."""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import TYPE_CHECKING, Any

from tests.support.build import manifest_text

if TYPE_CHECKING:
    from tests.support.fork_server import ForkServer
    from tests.support.served_polar import Tape

# Without its bytecode the command would be compiled anew for each of hundreds of runs.
_LEFT_OUT = ("NO_COLOR", "FORCE_COLOR", "PYTHONDONTWRITEBYTECODE")

COMMAND = [sys.executable, "-m", "polar_iac"]


_MEASURES = "COVERAGE_PROCESS_"


def measured() -> dict[str, str]:
    """The variables with which a Python process measures its coverage, where this one is measured. It takes
    a tenth of a second, so that only those have them that show something new.
    """
    return {name: value for name, value in os.environ.items() if name.startswith(_MEASURES)}


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything of Polar's or GitHub's, and with `variables`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POLAR_", "GITHUB_", _MEASURES)) and name not in _LEFT_OUT
    }
    return {**kept, "PYTHONWARNINGS": "error", **variables}


HANG_SECONDS = 900.0
"""After this a process is taken to hang. No test comes near it, on however slow a machine."""

_BEFORE_ANY_EFFECT = (4, 5)
"""The exit codes that promise it: the plan is stale, the command is refused."""


@dataclass
class Workspace:
    """A directory with a manifest. `environ` holds additional variables."""

    path: Path
    environ: dict[str, str]
    warmed: ForkServer | None = None
    """Forks the command instead of starting Python anew: the same process from `main` on, sooner there."""
    tape: Tape | None = None
    """The requests to the Polar of `environ`: with it, each run that must only read is held to that."""
    measures: bool = True
    """True if a command on a terminal measures its coverage, where this process does."""

    def write(self, meters: Mapping[str, Any], **top: Any) -> None:
        (self.path / "meters.yaml").write_text(manifest_text(meters, **top), encoding="utf-8")

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        before = self.asked
        done = self._run(*arguments, **variables)
        if arguments[:1] == ("plan",) or done.returncode in _BEFORE_ANY_EFFECT:
            self.has_only_read(since=before)
        return done

    def reads_only(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command that, however it ends, must send Polar nothing but GETs."""
        assert self.tape is not None, "nobody knows what this workspace's Polar is asked"
        before = self.asked
        done = self._run(*arguments, **variables)
        self.has_only_read(since=before)
        return done

    @property
    def asked(self) -> int:
        """The number of requests that Polar has had so far."""
        return len(self.tape.exchanges) if self.tape else 0

    def has_only_read(self, *, since: int) -> None:
        """Hold that every request after the first `since` was a GET."""
        assert self.tape is None or self.tape.writes(since) == []

    def _run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        if self.warmed:
            ended = self.warmed.run(self.path, self.environ | variables, *arguments)
            return subprocess.CompletedProcess(arguments, ended.code, ended.stdout, ended.stderr)
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.path,
            env=clean_environment(**(self.environ | variables)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )

    def ok(self, *arguments: str, **variables: str) -> str:
        """The output of a command that must succeed."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lock(self, environment: str = "sandbox") -> dict[str, Any]:
        directory = self.path / ".polar-iac" if environment == "local" else self.path
        text = (directory / f"meters.{environment}.lock.json").read_text(encoding="utf-8")
        return dict(json.loads(text))


@dataclass
class ServeCommand:
    """A running `polar-iac serve`. `code` and `errors` (its stderr) are there when it has ended."""

    url: str
    code: int = 0
    errors: str = ""


@contextmanager
def serve_command(directory: Path, *options: str) -> Iterator[ServeCommand]:
    """Run the real `serve` in a directory, and interrupt it at the end, as Ctrl-C does."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *options],
        cwd=directory,
        env=clean_environment(**measured()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = ServeCommand("")
    try:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert url is not None
        running.url = url[0]
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, running.errors = process.communicate(timeout=HANG_SECONDS)
            running.code = process.returncode
        finally:
            process.kill()


_PROMPT = re.compile(r"(?:\[y/N\]|to (?:apply|probe)): ?$")


def on_terminal(
    workspace: Workspace,
    *arguments: str,
    answer: str = "",
    columns: int = 100,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[int, str]:
    """Run the real command on a terminal, and type `answer` when it asks; its exit code, and what it showed.

    `meanwhile` is what happens while the question is open.

    As a person would, it types again when nothing happens: what is typed in the moment between a prompt and
    the first look at the keyboard may be lost, also where the terminal has shown it.
    """
    shown = re.escape(answer.strip().replace("\x03", "^C"))
    unanswered = re.compile(rf"{_PROMPT.pattern[:-1]}(?:{shown}\s*)*$")
    before = workspace.asked
    child, terminal = pty.fork()
    if child == 0:
        ioctl(0, TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.chdir(workspace.path)
        environ = clean_environment(**workspace.environ, **(measured() if workspace.measures else {}))
        environ.pop("COLUMNS", None)  # a word of the terminal that the tests run on
        os.execve(sys.executable, [*COMMAND, *arguments], environ)  # noqa: S606
    output, prompted, end = "", False, time.monotonic() + HANG_SECONDS
    decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 0.5)[0]:
                if unanswered.search(output):
                    os.write(terminal, answer.encode())
                continue
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            at_prompt = _PROMPT.search(output)
            output += decoder.decode(data)
            if not at_prompt and _PROMPT.search(output):
                prompted = True
                meanwhile()
                os.write(terminal, answer.encode())
        else:
            os.kill(child, signal.SIGKILL)
    except BaseException:
        os.kill(child, signal.SIGKILL)  # nobody will answer it
        raise
    finally:
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    code = os.waitstatus_to_exitcode(status)
    declined = prompted and answer.strip() in ("", "n", "\x03")
    if declined or arguments[:1] == ("plan",) or code in _BEFORE_ANY_EFFECT:
        workspace.has_only_read(since=before)
    return code, output
