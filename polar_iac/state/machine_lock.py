"""Lock of a run against other runs on this machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from polar_iac.errors import PolarIacError
from polar_iac.files import state_directory, write_atomically


@contextmanager
def machine_lock(path: Path, timeout: float, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Lock the lockfile at `path` against other runs on this machine.

    The lock is on a separate file next to it, because replacing a file would defeat a lock on it. `on_wait`
    receives a description of the holder. Raises PolarIacError when the lock is not acquired within `timeout`
    seconds.
    """
    from filelock import FileLock, Timeout

    lock_path = state_directory(path) / f"{path.name}.lock"
    holder = lock_path.with_suffix(".holder")
    lock = FileLock(lock_path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(_holder(holder))
            lock.acquire(timeout=timeout)
    except Timeout:
        raise PolarIacError(
            f"{path} is locked by {_holder(holder)}: try again when it has finished"
        ) from None
    except OSError as error:
        raise PolarIacError(f"cannot lock {lock_path}: {error.strerror}") from error
    try:
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        write_atomically(holder, f"pid {os.getpid()} on {socket.gethostname()}, since {since}\n")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _holder(path: Path) -> str:
    """Describe the run that holds the lock, from the file that it writes right after acquiring it."""
    # Retry for 0.2 seconds: the holder may have the lock and not yet have written its file.
    for _ in range(20):
        with (
            suppress(OSError),
            os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8", errors="replace") as file,
        ):
            return f"another run ({file.read(200).strip()})"
        time.sleep(0.01)
    return "another run"
