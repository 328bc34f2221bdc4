"""Lockfile: maps each key to its Polar meter and the spec as last applied. Reviewed, and merged by git."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError, RefusedError, SourceSpan
from polar_iac.meter import UUID, MeterSpec, Record, canonical_json

VERSION = 1
STATE_DIRECTORY = ".polar-iac"
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})(\s|$)", re.MULTILINE)
_SURROGATE = re.compile(r"\\u[dD][89abABcdefCDEF]")


@dataclass(frozen=True)
class Lockfile:
    """A parsed lockfile.

    `organization_id` is None until an apply learns it. `extra` holds fields of later versions.
    """

    environment: str
    organization_id: str | None
    project: str
    meters: Mapping[str, Record] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def default_path(manifest: Path, environment: str) -> Path:
    """Return the path next to the manifest. Example: `meters.yaml` has `meters.<environment>.lock.json`."""
    return manifest.with_name(f"{manifest.stem}.{environment}.lock.json")


def state_directory(lockfile: Path) -> Path:
    """Return the directory next to the lockfile for files that are not committed, and create it if needed.

    The directory ignores itself through its own `.gitignore`. Raises PolarIacError when it cannot be created.
    """
    directory = lockfile.parent / STATE_DIRECTORY
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
    """Raise RefusedError when git tracks the state directory next to the lockfile.

    A pull request could add a forged journal there, and so tell an apply which meters are ours.
    """
    directory = lockfile.parent / STATE_DIRECTORY
    if directory.is_symlink():
        raise RefusedError(f"{directory} is a symbolic link: remove it, so that state stays here")
    if not directory.is_dir():
        return
    # A container's workspace may belong to another user, hence `safe.directory`. No hook of the repository
    # may run, hence `core.fsmonitor=false`.
    options = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    command = ["git", *options, "ls-files", "-z", "--", STATE_DIRECTORY]
    try:
        listed = subprocess.run(command, cwd=lockfile.parent, capture_output=True, check=False)  # noqa: S603
    except OSError:
        return  # without git, this directory cannot come from a checkout
    if listed.returncode == 0 and listed.stdout:
        raise RefusedError(
            f"{directory} is tracked by git. It holds what only this machine knows, and a pull request could "
            f"plant a journal in it: remove it from the repository (git rm -r --cached {directory})"
        )


def read(path: Path, environment: str, project: str) -> Lockfile:
    """Read the lockfile at `path`. Return an empty one when there is no file.

    Raises DiagnosticError with the position of the fault, PolarIacError when the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return Lockfile(environment, None, project)
    except UnicodeDecodeError as error:
        raise PolarIacError(f"{path}: error: the lockfile is not UTF-8 text: restore it from git") from error
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the lockfile: {error.strerror}") from error
    return loads(text, str(path), environment, project)


def loads(text: str, file: str, environment: str, project: str) -> Lockfile:
    """Parse a lockfile's text, and check that it is for this environment and project."""
    if conflict := _CONFLICT.search(text):
        raise _fault(text, file, conflict.start(), "a git conflict marker: resolve the merge first")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _fault(text, file, error.pos, f"this is no JSON: {error.msg}; restore it from git") from error
    except _FaultError as fault:
        raise _located(text, file, fault) from fault
    except (ValueError, RecursionError) as error:
        raise _fault(text, file, 0, "this is no lockfile: a number or a nesting beyond reason") from error
    # JSON may escape half a character (`"\ud83d"`), which Python reads but cannot write as UTF-8.
    if half := _SURROGATE.search(text):
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            told = "half of a character (a lone surrogate) stands in this file; restore it from git"
            raise _fault(text, file, half.start(), told) from error
    try:
        return _lockfile(data, environment, project)
    except _FaultError as fault:
        raise _located(text, file, fault) from fault


def dumps(lockfile: Lockfile) -> str:
    """Serialize the lockfile; equal states give equal texts.

    Sorted keys, two spaces, a final newline, no timestamps.
    """
    return json.dumps(_document(lockfile), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def digest(lockfile: Lockfile) -> str:
    """Return the SHA-256 of the lockfile's content.

    Equal exactly when `dumps` is equal, and faster to compute.
    """
    text = canonical_json(_document(lockfile))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _document(lockfile: Lockfile) -> dict[str, Any]:
    meters = {
        key: {
            **record.extra,
            "id": record.id,
            "spec": record.spec and record.spec.canonical,
            **({"frozen": True} if record.frozen else {}),
            **({"ignored": sorted(record.ignored)} if record.ignored else {}),
        }
        for key, record in lockfile.meters.items()
    }
    return {
        **lockfile.extra,
        "version": VERSION,
        "environment": lockfile.environment,
        "organization_id": lockfile.organization_id,
        "project": lockfile.project,
        "meters": meters,
    }


def save(path: Path, lockfile: Lockfile) -> None:
    """Write the lockfile atomically: after a crash, either the old or the new file is there."""
    write_atomically(path, dumps(lockfile))


@contextmanager
def lock(path: Path, timeout: float, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Lock the lockfile at `path` against other runs on this machine.

    The lock is on a separate file next to it, because replacing a file would defeat a lock on it. `on_wait`
    receives a description of the holder. Raises PolarIacError when the lock is not acquired within `timeout`
    seconds.
    """
    from filelock import FileLock, Timeout

    beside = state_directory(path) / f"{path.name}.lock"
    holder = beside.with_suffix(".holder")
    held = FileLock(beside)
    try:
        try:
            held.acquire(timeout=0)
        except Timeout:
            on_wait(_holder(holder))
            held.acquire(timeout=timeout)
    except Timeout:
        raise PolarIacError(
            f"{_holder(holder)} is at work on {path}: wait for it, then run this again"
        ) from None
    except OSError as error:
        raise PolarIacError(f"cannot lock {beside}: {error.strerror}") from error
    try:
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        write_atomically(holder, f"pid {os.getpid()} on {socket.gethostname()}, since {since}\n")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        held.release()


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


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` with a file that contains `text`, synced to disk before the rename.

    The new file is created exclusively (no link is followed). It keeps the mode of the old file, or uses the
    umask if there was none. Raises PolarIacError when it cannot be written.
    """
    try:
        try:
            there = path.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:
            there = 0
        mode = there & 0o777 if stat.S_ISREG(there) else 0o666 & ~_umask()
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


class _FaultError(Exception):
    """Invalid lockfile content. `path` leads to the value in the JSON."""

    def __init__(self, message: str, *path: str, duplicate: str | None = None) -> None:
        super().__init__(message)
        self.path, self.duplicate = path, duplicate


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _FaultError(f"the key `{twice}` stands twice: a merge went wrong, keep one", duplicate=twice)
    return data


def _no_constant(name: str) -> Any:
    raise _FaultError(f"{name} is no JSON number")


def _lockfile(data: Any, environment: str, project: str) -> Lockfile:
    if not isinstance(data, dict):
        raise _FaultError("a lockfile is a JSON object; restore it from git")
    version = data.pop("version", None)
    # `True == 1` in Python: `"version": true` must not pass.
    if version != VERSION or isinstance(version, bool):
        raise _FaultError(
            f"lockfile version {json.dumps(version)} is not known to this polar-iac: it reads {VERSION}; "
            "use the polar-iac that wrote it, or a newer one",
            "version",
        )
    found = data.pop("environment", None)
    if found != environment:
        raise _FaultError(
            f"this lockfile is of the environment {json.dumps(found)}, not of {environment}: "
            "choose the environment with -e, or the file with --lockfile",
            "environment",
        )
    found = data.pop("project", None)
    if found != project:
        raise _FaultError(
            f"this lockfile is of the project {json.dumps(found)}, the manifest of {project}: "
            "a project is not renamed, since its name stands in every ownership marker",
            "project",
        )
    organization = data.pop("organization_id", None)
    if organization is not None and not (isinstance(organization, str) and UUID.fullmatch(organization)):
        raise _FaultError("organization_id is no UUID; restore it from git", "organization_id")
    meters = data.pop("meters", None)
    if not isinstance(meters, dict):
        raise _FaultError("`meters` is no object; restore it from git", "meters")
    records = {key: _record(key, value) for key, value in meters.items()}
    owners: dict[str, str] = {}
    for key, record in records.items():
        if other := owners.setdefault(record.id, key) != key and owners[record.id]:
            raise _FaultError(
                f"`{other}` and `{key}` record the same meter {record.id}: a merge went wrong; keep the one "
                "that the meter's metadata `polar_iac` names",
                "meters",
                key,
                "id",
            )
    return Lockfile(environment, organization, project, records, data)


def _record(key: str, value: Any) -> Record:
    if not isinstance(value, dict):
        raise _FaultError(f"the entry of `{key}` is no object; restore it from git", "meters", key)
    meter_id, spec, frozen = value.pop("id", None), value.pop("spec", None), value.pop("frozen", False)
    if not (isinstance(meter_id, str) and UUID.fullmatch(meter_id)):
        raise _FaultError(f"`{key}` has no id: a UUID; restore it from git", "meters", key, "id")
    if not isinstance(frozen, bool):
        raise _FaultError(f"`frozen` of `{key}` is neither true nor false", "meters", key, "frozen")
    ignored = value.pop("ignored", [])
    if not (isinstance(ignored, list) and all(isinstance(entry, str) for entry in ignored)):
        raise _FaultError(f"`ignored` of `{key}` is no list of fields", "meters", key, "ignored")
    try:
        parsed = None if spec is None else MeterSpec.from_json(spec)
        if parsed is not None:
            _ = parsed.fingerprint  # wrong types inside raise here, not during a plan
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _FaultError(
            f"the spec of `{key}` is no meter; restore it from git", "meters", key, "spec"
        ) from error
    return Record(meter_id, parsed, frozen, frozenset(ignored), value)


def _located(text: str, file: str, fault: _FaultError) -> DiagnosticError:
    if fault.duplicate is not None:
        needle = re.compile(re.escape(json.dumps(fault.duplicate, ensure_ascii=False)) + r"\s*:")
        places = [m.start() for m in needle.finditer(text)]
        return _fault(text, file, places[-1] if places else 0, str(fault))
    position = 0
    for name in fault.path:
        needle = re.compile(re.escape(json.dumps(name, ensure_ascii=False)) + r"\s*:")
        # Search for each name after the one before it. Example: "meters", then the key, then "id".
        found = needle.search(text, position)
        position = found.start() if found else position
    return _fault(text, file, position, str(fault))


def _fault(text: str, file: str, position: int, message: str) -> DiagnosticError:
    line = text.count("\n", 0, position) + 1
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    excerpt = text[start : end if end >= 0 else len(text)]
    column = position - start + 1
    return DiagnosticError([Diagnostic(SourceSpan(file, line, column, column + 1), message, excerpt)])
