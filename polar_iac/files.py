"""Files: atomic writes, and the state directory."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from polar_iac.errors import PolarIacError, RefusedError

STATE_DIRECTORY = ".polar-iac"
LARGEST_FILE = 256 * 2**20
"""Maximum size of a file that is read whole, in bytes. A plan of 5,000 changes has a few MB."""
_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""Paths of what this process has open already. Example: the shell makes `/dev/fd/63` of `<(command)`."""


def state_path(lockfile: Path) -> Path:
    """Return the path of the state directory: next to the lockfile, or around it for the one of `local`."""
    parent = lockfile.parent
    return parent if parent.name == STATE_DIRECTORY else parent / STATE_DIRECTORY


def state_directory(lockfile: Path) -> Path:
    """Return the state directory of a lockfile, for files that are not committed. Create it if needed.

    The directory ignores itself through its own `.gitignore`. Raises PolarIacError when it cannot be created.
    """
    directory = state_path(lockfile)
    try:
        if not directory.parent.is_dir():
            raise PolarIacError(f"there is no directory {directory.parent}")
        directory.mkdir(exist_ok=True)
        if directory.is_symlink():
            raise PolarIacError(f"{directory} is a symbolic link: remove it, so that state stays here")
        with suppress(FileExistsError), (directory / ".gitignore").open("x", encoding="utf-8") as ignore:
            ignore.write("*\n")
    except OSError as error:
        raise PolarIacError(f"cannot write to {directory}: {error.strerror}") from error
    return directory


def refuse_tracked_state(lockfile: Path) -> None:
    """Raise RefusedError when git tracks the state directory of a lockfile.

    A pull request could add a forged journal there, and so tell an apply which meters are ours.
    """
    directory = state_path(lockfile)
    if directory.is_symlink():
        raise RefusedError(f"{directory} is a symbolic link: remove it, so that state stays here")
    if not directory.is_dir():
        return
    # Without git, this directory cannot come from a checkout.
    if _git(directory.parent, "ls-files", "-z", "--", STATE_DIRECTORY):
        raise RefusedError(
            f"{directory} is tracked by git. It holds what only this machine knows, and a pull request could "
            f"plant a journal in it: remove it from the repository (git rm -r --cached {directory})"
        )


def _git(directory: Path, *arguments: str) -> str | None:
    """Return what a command of git prints in a directory; None where it fails, or where there is no git."""
    # A container's workspace may belong to another user, hence `safe.directory`. No hook of the repository
    # may run, hence `core.fsmonitor=false`.
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, check=False)  # noqa: S603
    except OSError:
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


@dataclass(frozen=True)
class Head:
    """The commit that is checked out around a file."""

    commit: str
    has_file: bool
    """True if the file is as the commit has it."""


def head_of(file: Path) -> Head | None:
    """Return the commit that is checked out around a file; None outside of a checkout."""
    directory = file.parent
    commit = _git(directory, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not commit:
        return None
    committed = _git(directory, "rev-parse", "--verify", "--quiet", f"HEAD:./{file.name}")
    return Head(
        commit, committed is not None and committed == _git(directory, "hash-object", "--", file.name)
    )


def open_file(path: Path) -> BinaryIO:
    """Open a file to read. Raises OSError, and PolarIacError for a pipe or a device.

    A pipe that nobody writes to would be waited for, and a device such as `/dev/zero` never ends. A directory
    is left to `open` to refuse.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or str(path).startswith(_DESCRIPTORS)):
        raise PolarIacError(f"{path} is {_kind(mode)}, not a file: save what it holds in a file")
    return path.open("rb")


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def read_file(path: Path) -> bytes:
    """Read a whole file. Raises OSError, and PolarIacError for a pipe, a device, or a huge file."""
    with open_file(path) as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise PolarIacError(f"{path} is larger than {LARGEST_FILE // 2**20} MiB")
    return data


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` with a file that contains `text`, synced to disk before the rename.

    The new file is created exclusively (no link is followed). It keeps the mode of the old file, or uses the
    umask if there was none. Raises PolarIacError when it cannot be written.
    """
    try:
        try:
            old_mode = path.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:
            old_mode = 0
        mode = old_mode & 0o777 if stat.S_ISREG(old_mode) else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise PolarIacError(f"cannot write {path}: {error.strerror}") from error


def sync_directory(directory: Path) -> None:
    """Make a rename, a new name, or a removal in `directory` survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_OPEN = re.compile(r"/dev/(?:fd/(?P<number>\d+)|(?P<name>stdout|stderr))|/proc/self/fd/(?P<entry>\d+)")
_NAMED = {"stdout": 1, "stderr": 2}


def descriptor_of(path: Path) -> int | None:
    """Return the number of the open file that a path stands for, whatever kind of file that is."""
    match = _OPEN.fullmatch(str(path))
    return (_NAMED.get(match["name"]) or int(match["number"] or match["entry"])) if match else None


def is_replaced(path: Path) -> bool:
    """Tell whether `write_file` makes a new file at a path, rather than writing to what is there."""
    return descriptor_of(path) is None and (not path.exists() or path.is_file())


def write_file(path: Path, text: str) -> None:
    """Write a file that the user named, completely or not at all.

    A device, a pipe and what is open already (`/dev/stdout`) are written to and not replaced. Raises
    PolarIacError when the file cannot be written.
    """
    try:
        if is_replaced(path):
            write_atomically(path, text)
            return
        # `/dev/stdout` may be a file that was opened before, with a place in it at which to go on. And root
        # could replace the link in `/dev` itself.
        number = descriptor_of(path)
        target = path if number is None else os.dup(number)
        with open(target, "w", encoding="utf-8") as stream:  # noqa: PTH123  it takes a descriptor
            stream.write(text)
    except OSError as error:
        raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
