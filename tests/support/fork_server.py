"""A warmed process that forks the command: hundreds of runs, each a process of its own that can be killed.

`python -m tests.support.fork_server` reads one JSON request a line and answers with one. Each child runs the
real `main`; where a test asks for it, it dies by SIGKILL at the n-th boundary: before or after a journal
write (or in the middle of it), a request, a response, the lockfile's write or its rename.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.support.command import HANG_SECONDS, clean_environment

WARM = (
    *("_ruamel_yaml", "deepdiff", "filelock", "tqdm", "multiprocessing.synchronize", "encodings.idna"),
    *("httpcore", "httpcore._sync.http_proxy", "h11", "certifi", "anyio"),
    *("polar_iac.apply.session", "polar_iac.cli.main", "polar_iac.cli.session", "polar_iac.cli.error_report"),
    *("polar_iac.cli.apply", "polar_iac.cli.plan", "polar_iac.cli.show", "polar_iac.cli.validate"),
    *("polar_iac.local", "polar_iac.ci.github", "polar_iac.plan.read_document"),
)
"""Modules that an apply loads: in the warmed process once, instead of in each child."""


STREAMS = ("stdout", "stderr", "boundaries")


@dataclass(frozen=True)
class Ended:
    """The end of a child: its exit code (negative for a signal), its output, and the boundaries it met."""

    code: int
    stdout: str
    stderr: str
    boundaries: int

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class ForkServer:
    """The warmed process, from the test's side."""

    def __init__(self, streams: Path, environ: dict[str, str]) -> None:
        self._streams = streams
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(streams)],
            cwd=Path(__file__).parents[2],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._process.communicate()

    def start(
        self, directory: Path, environ: dict[str, str], *arguments: str, kill_at: int | None = None
    ) -> int:
        """Fork a run of the command in `directory`; its process id."""
        request = {"cwd": str(directory), "environ": environ, "argv": arguments, "kill_at": kill_at}
        return int(self._ask(request)["pid"])

    def wait(self, pid: int) -> Ended:
        code = int(self._ask({"wait": pid})["code"])
        stdout, stderr, counted = (self._streams / f"{pid}.{name}" for name in STREAMS)
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in (stdout, stderr))
        ended = Ended(code, out, err, counted.stat().st_size)
        for path in (stdout, stderr, counted):
            path.unlink()
        return ended

    def reach(self, pid: int, boundaries: int = 1) -> None:
        """Return once a run has met this many boundaries: the first one is its first request."""
        self._until(lambda: (self._streams / f"{pid}.boundaries").stat().st_size >= boundaries)

    def say(self, pid: int, text: str) -> None:
        """Return once a run has said this on stderr."""
        self._until(lambda: text in (self._streams / f"{pid}.stderr").read_text(encoding="utf-8"))

    @staticmethod
    def _until(come: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
        end = time.monotonic() + seconds
        while True:
            with suppress(FileNotFoundError):  # it is just being forked
                if come():
                    return
            if time.monotonic() > end:
                raise TimeoutError("a run does not come to where it is waited for")
            time.sleep(0.002)

    def run(
        self, directory: Path, environ: dict[str, str], *arguments: str, kill_at: int | None = None
    ) -> Ended:
        return self.wait(self.start(directory, environ, *arguments, kill_at=kill_at))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


@contextmanager
def fork_server(**variables: str) -> Iterator[ForkServer]:
    with tempfile.TemporaryDirectory() as streams:
        warmed = ForkServer(Path(streams), clean_environment(**variables))
        try:
            yield warmed
        finally:
            warmed.close()


def _at_boundaries(meet: Callable[[], None]) -> None:
    """Call `meet` wherever a crash would leave something half done."""
    import httpx

    from polar_iac.state import journal, lockfile

    send, write, replace = httpx.HTTPTransport.handle_request, os.write, Path.replace
    save = lockfile.save

    def handle_request(self: Any, request: Any) -> Any:
        meet()
        response = send(self, request)
        meet()
        return response

    def journal_write(handle: int, data: Any) -> int:
        meet()
        half = len(data) // 2
        written = write(handle, data[:half])
        meet()
        written += write(handle, data[half:])
        meet()
        return written

    def met_replace(self: Path, target: Any) -> Path:
        meet()
        replaced = replace(self, target)
        meet()
        return replaced

    def met_save(*arguments: Any) -> None:
        meet()
        save(*arguments)
        meet()

    class Os:
        """`os` as the journal sees it."""

        write = staticmethod(journal_write)

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    for owner, name, value in (
        (httpx.HTTPTransport, "handle_request", handle_request),
        (Path, "replace", met_replace),
        (lockfile, "save", met_save),
        (journal, "os", Os()),
    ):
        setattr(owner, name, value)


def _child(request: dict[str, Any]) -> None:
    pid = os.getpid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(clean_environment(**request["environ"]))
    streams = (os.path.join(sys.argv[1], f"{pid}.{name}") for name in STREAMS)  # noqa: PTH118
    stdout, stderr, counted = (
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for path in streams
    )
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    numbers, lock = itertools.count(1), threading.Lock()
    real_write = os.write

    def meet() -> None:
        with lock:
            number = next(numbers)
            real_write(counted, b".")
            if number == request["kill_at"]:
                os.kill(pid, signal.SIGKILL)

    _at_boundaries(meet)
    # A signal in the midst of an import leaves a file to the collector; only here is that told.
    warnings.filterwarnings("ignore", category=ResourceWarning)
    run_main(request["argv"])


def run_main(arguments: Sequence[str]) -> NoReturn:
    """Be the command from `main` on, and end this process as it ends."""
    from polar_iac.cli.main import main

    code = 1
    try:
        sys.argv = ["polar-iac", *arguments]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    for name in WARM:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                _child(request)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
