"""A warmed process that forks the command: hundreds of runs, each a process of its own that can be killed.

`python -m tests.support.fork_server SOCKET` forks the command for whoever connects, with the directory,
environment and streams of the request, until its stdin ends. Each child runs the real `main`. With a fourth
stream it writes a byte there at each boundary, and dies by SIGKILL at boundary `kill_at`: before or after a
journal write (or in the middle of it), a request, a response, the lockfile's write or its rename.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import pkgutil
import posix
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from coverage import Coverage
from filelock import FileLock
from pydantic import BaseModel

import polar_iac
from tests.support.command import HANG_SECONDS, clean_environment
from tests.support.shared import ALIVE, DIRECTORY
from tests.support.warm_command import Run

WARM = (
    *("_ruamel_yaml", "deepdiff", "filelock", "tqdm", "multiprocessing.synchronize", "encodings.idna"),
    *("httpcore", "httpcore._sync.http_proxy", "h11", "certifi", "anyio"),
)
"""Modules of others that a command loads late: in the warmed process once, instead of in each child."""


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
    """The warmed process at a socket, from the test's side. `directory` takes what runs print."""

    def __init__(self, address: Path, directory: Path) -> None:
        self.address = address
        self._directory = directory
        self._numbers = itertools.count(1)
        self._runs: dict[int, tuple[Run, list[Path]]] = {}

    def start(
        self, directory: Path, environ: dict[str, str], *arguments: str, kill_at: int | None = None
    ) -> int:
        """Fork a run of the command in `directory`; its process id."""
        number = next(self._numbers)
        paths = [self._directory / f"{number}.{name}" for name in STREAMS]
        streams = [os.open(os.devnull, os.O_RDONLY)]
        streams += [os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in paths]
        try:
            request = {"cwd": str(directory), "environ": clean_environment(**environ), "argv": arguments}
            run = Run(str(self.address), json.dumps({**request, "kill_at": kill_at}).encode(), streams)
        finally:
            for stream in streams:
                os.close(stream)
        self._runs[run.pid] = run, paths
        return run.pid

    def wait(self, pid: int) -> Ended:
        run, paths = self._runs.pop(pid)
        code = run.wait()
        stdout, stderr, boundaries = paths
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in (stdout, stderr))
        ended = Ended(code, out, err, boundaries.stat().st_size)
        for path in paths:
            path.unlink()
        return ended

    def reach(self, pid: int, boundaries: int = 1) -> None:
        """Return once a run has met this many boundaries: the first one is its first request."""
        path = self._runs[pid][1][2]
        self._until(lambda: path.stat().st_size >= boundaries)

    def say(self, pid: int, text: str) -> None:
        """Return once a run has said this on stderr."""
        path = self._runs[pid][1][1]
        self._until(lambda: text in path.read_text(encoding="utf-8"))

    @staticmethod
    def _until(come: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not come():
            if time.monotonic() > end:
                raise TimeoutError("a run does not come to where it is waited for")
            time.sleep(0.002)

    def run(
        self, directory: Path, environ: dict[str, str], *arguments: str, kill_at: int | None = None
    ) -> Ended:
        return self.wait(self.start(directory, environ, *arguments, kill_at=kill_at))

    def together(self, directory: Path, environ: dict[str, str], *arguments: str) -> str:
        """The output of a run with both streams in one, as it comes."""
        path = self._directory / f"{next(self._numbers)}.both"
        with path.open("w+", encoding="utf-8") as both, Path(os.devnull).open() as nothing:
            request = {"cwd": str(directory), "environ": clean_environment(**environ), "argv": arguments}
            streams = [nothing.fileno(), both.fileno(), both.fileno()]
            Run(str(self.address), json.dumps(request).encode(), streams).wait()
            return path.read_text(encoding="utf-8")


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """A warmed process of one's own."""
    with tempfile.TemporaryDirectory() as directory:  # a socket's path must be short
        address = Path(directory) / "socket"
        process = _launch(address, clean_environment(), subprocess.PIPE)
        try:
            yield ForkServer(address, Path(directory))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


@contextmanager
def shared_fork_server(name: str, **variables: str) -> Iterator[ForkServer]:
    """The warmed process of this name. The first worker that asks starts it, and it ends with the run."""
    address = Path(os.environ[DIRECTORY]) / f"{name}.socket"
    with FileLock(address.with_suffix(".lock")):
        if not address.exists():
            alive = os.open(address.with_name(ALIVE), os.O_RDONLY)
            process = _launch(address, clean_environment(**variables), alive)
            os.close(alive)
            process.returncode = 0  # this worker may end before the others, and does not wait for it
    with tempfile.TemporaryDirectory() as directory:
        yield ForkServer(address, Path(directory))


def _launch(address: Path, environ: dict[str, str], stdin: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fork_server", str(address)],
        cwd=Path(__file__).parents[2],
        env=environ,
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "ready\n"
    return process


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


def _child(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    for stream, given in zip((0, 1, 2), streams, strict=False):
        os.dup2(given, stream)
        os.close(given)
    for boundaries in streams[3:]:
        _count_boundaries(boundaries, request["kill_at"])
    _run_main(request["argv"])


def _count_boundaries(counted: int, kill_at: int | None) -> None:
    numbers, lock = itertools.count(1), threading.Lock()
    real_write = os.write

    def meet() -> None:
        with lock:
            number = next(numbers)
            real_write(counted, b".")
            if number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    _at_boundaries(meet)
    # A signal in the midst of an import leaves a file to the collector; only here does a test see that.
    warnings.filterwarnings("ignore", category=ResourceWarning)


def _run_main(arguments: Sequence[str]) -> NoReturn:
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


def _measure_children() -> None:
    """Measure each child by what it runs, without the imports of this process, which are saved here once.

    Otherwise each child would write every line of the package anew, in five times the time that it runs.
    """
    loading = Coverage.current()
    if loading is None:
        return
    loading.stop()
    loading.save()
    source = str(Path(polar_iac.__file__).parent / "*")
    running = Coverage(
        loading.config.data_file, data_suffix=True, branch=True, include=[source], config_file=False
    )
    exit_at_once = posix._exit  # that of `os` would save the imports again

    def save_and_exit(status: int) -> NoReturn:
        running.stop()
        running.save()
        exit_at_once(status)

    os._exit = save_and_exit
    running.start()


def _warm() -> None:
    """Load all that a command may load, and keep the collector from touching it in each child."""
    ours = (module.name for module in pkgutil.walk_packages(polar_iac.__path__, "polar_iac."))
    for name in (*WARM, *(name for name in ours if not name.endswith("__main__"))):
        importlib.import_module(name)
    for model in _subclasses(BaseModel):
        model.model_rebuild()  # those that wait for their first use
    gc.collect()
    gc.freeze()


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in model.__subclasses__():
        yield one
        yield from _subclasses(one)


def _serve(address: str) -> None:
    _warm()
    _measure_children()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[socket.socket, int] = {}
    awaited = set[socket.socket]()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)
        while True:
            sources: list[Any] = [0, woken, listening, *running.keys() - awaited]
            ready, _, _ = select.select(sources, [], [])
            if 0 in ready:
                return
            if woken in ready:
                os.read(woken, 4096)
            if listening in ready:
                connection, _ = listening.accept()
                running[connection] = _start(connection, [listening, *running])
            for connection in running.keys() & set(ready):
                _hear(connection, awaited)
            # A child is reaped only when its client asks: until then its process id may be sent signals.
            for connection in list(awaited):
                if _answer(connection, running[connection]):
                    awaited.remove(connection)
                    del running[connection]


def _start(connection: socket.socket, others: Sequence[socket.socket]) -> int:
    size, streams, _, _ = socket.recv_fds(connection, 4, len(STREAMS) + 1)
    request = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (connection, *others):
            other.close()
        _child(request, streams)
    for stream in streams:
        os.close(stream)
    with suppress(OSError):  # the client was killed
        connection.sendall(b"%d\n" % pid)
    return pid


def _hear(connection: socket.socket, awaited: set[socket.socket]) -> None:
    """Note that a client waits, or has gone, so that nobody else waits for its child."""
    with suppress(OSError):
        connection.recv(1)
    awaited.add(connection)


def _answer(connection: socket.socket, pid: int) -> bool:
    """Tell a client the exit code of its child, if the child has ended."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return False
    with closing(connection), suppress(OSError):  # the client was killed
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    return True


if __name__ == "__main__":
    _serve(sys.argv[1])
