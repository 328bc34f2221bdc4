"""Journal: records on disk what a run is about to do and what it did, before the next step.

One JSON object per line, append only, so recording an effect costs the same for any number of meters. A run
that ends folds the journal into the lockfile; a run that finds one continues from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Self

from polar_iac.errors import PolarIacError
from polar_iac.files import state_path, sync_directory, write_atomically
from polar_iac.meter.live import LiveMeter, Made, instant
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.state import lockfile
from polar_iac.state.journal_state import (
    Answer,
    Intent,
    JournalState,
    begin_entry,
    create_entry,
    merge,
    record_entry,
)
from polar_iac.state.lockfile import Lockfile
from polar_iac.state.schema import (
    Begin,
    DuplicatesSettled,
    Entry,
    Forgotten,
    NotCreated,
    OrganizationLearned,
    entry_from,
    line_of,
)


def path_for(lockfile_path: Path) -> Path:
    """Return the path of a lockfile's journal, in the state directory."""
    return state_path(lockfile_path) / f"{lockfile_path.name}.journal"


def read(path: Path, base: Lockfile) -> JournalState:
    """Read the lockfile's state plus the journal at `path`. Reading it twice changes nothing.

    A last line that a crash cut short is ignored. Raises PolarIacError when the file is not a journal, or is
    one of another environment or project.
    """
    return _read(path, base)[0]


def _read(path: Path, base: Lockfile) -> tuple[JournalState, bool]:
    """Return the state, and True if the journal was started from this lockfile."""
    state = JournalState(base.organization_id, dict(base.meters))
    try:
        # Follow no link: an attacker who can plant one could tell this run which meters are ours.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return state, True
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the journal: {error.strerror}") from error
    if not lines:
        return state, True
    entries = [_parse(path, number, line) for number, line in enumerate(lines, 1)]
    same, begin = False, entries[0]
    if isinstance(begin, Begin):
        expected = begin_entry(base)
        _check_owner(path, begin, expected)
        same = begin.lockfile == expected.lockfile
    # A journal of another lockfile is read on its own first: its entries do not apply to these records.
    state = state if same else JournalState()
    for entry in entries:
        state.apply(entry)
    return (state if same else state.rebase_onto(base)), same


def _parse(path: Path, number: int, line: bytes) -> Entry:
    try:
        return entry_from(line)
    except (ValueError, RecursionError) as error:
        raise PolarIacError(
            f"{path}:{number}:1: error: this line is not a journal entry. Delete the file: its content is "
            "found again by the ownership markers"
        ) from error


def _check_owner(path: Path, begin: Begin, expected: Begin) -> None:
    for what, actual, wanted in (
        ("environment", begin.environment, expected.environment),
        ("project", begin.project, expected.project),
    ):
        if actual != wanted:
            raise PolarIacError(
                f"{path}: error: this journal is of the {what} {json.dumps(actual)}, not of "
                f"{wanted}: apply there first, or choose another file with --lockfile"
            )


class Journal:
    """Open journal of a run. Each method returns once its entry is on disk. For use by one thread."""

    def __init__(self, path: Path, base: Lockfile) -> None:
        self._path = path
        self._base = base
        self._state, same = _read(path, base)
        if not same:
            # From here on the journal is based on the current lockfile.
            write_atomically(path, "".join(map(line_of, self._state.diff_from(base))))
        try:
            # Follow no link: write the journal at this path or fail.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            whole = os.pread(self._file, os.fstat(self._file).st_size, 0)
            os.ftruncate(self._file, whole.rfind(b"\n") + 1)  # a crash may have cut the last line short
            os.lseek(self._file, 0, os.SEEK_END)
            sync_directory(path.parent)
        except OSError as error:
            raise PolarIacError(f"cannot write the journal {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if os.fstat(self._file).st_size == 0:
            with suppress(FileNotFoundError):
                self._path.unlink()
        os.close(self._file)

    @property
    def meters(self) -> Mapping[str, Record]:
        return self._state.meters

    @property
    def organization_id(self) -> str | None:
        return self._state.organization_id

    @property
    def unresolved(self) -> Mapping[str, Sequence[Intent]]:
        """Unanswered creates of keys with no known meter, oldest first."""
        return self._state.unresolved

    def intents(self, key: str) -> Sequence[Intent]:
        """Return the unanswered creates of a key, oldest first."""
        return tuple(self._state.intents.get(key, ()))

    @property
    def created(self) -> Mapping[str, str]:
        """Meter id to key, for every create (201) of this run or of the interrupted run it resumes."""
        return self._state.created

    def made(self, live: Iterable[LiveMeter], answered: Collection[Intent] = ()) -> Made:
        """Return which of the live meters were created by runs on this machine."""
        return self._state.made(live, answered)

    @property
    def lockfile(self) -> Lockfile:
        """Lockfile that this run will write."""
        meters = dict(self._state.meters)
        return replace(self._base, meters=meters, organization_id=self._state.organization_id)

    def learn_organization(self, organization_id: str) -> None:
        self._append(OrganizationLearned(key="", id=organization_id))

    def intend(self, key: str, marker: str, spec: MeterSpec, now: datetime) -> None:
        """Record that a POST for `key` is about to be sent.

        `now` is by Polar's clock, or slightly earlier.
        """
        self._append(create_entry(key, Intent(marker, spec, instant(now))))

    def not_created(self, key: str) -> None:
        """Record that the last POST for `key` is known to have created nothing."""
        self._append(NotCreated(key=key))

    def record(
        self,
        key: str,
        record: Record,
        *,
        was: str | None = None,
        answer: Answer | None = None,
    ) -> None:
        """Record that `key` is now this meter.

        `was` is the key that it replaces. `answer` is the resolution of a POST.
        """
        self._append(record_entry(key, record, was=was, answer=answer))

    def forget(self, key: str, meter_id: str) -> None:
        """Record that `key` is no longer this meter. A record of another meter stays."""
        self._append(Forgotten(key=key, id=meter_id))

    def duplicates_settled(self) -> None:
        """Record that none of the meters that this run created is a duplicate."""
        self._append(DuplicatesSettled(key=""))

    def finish(self, lockfile_path: Path, now: datetime) -> None:
        """Fold everything into the lockfile. Only what a later run must know stays in the journal.

        A run that learned nothing does not rewrite the lockfile. A lockfile that was replaced during the run
        (for example, by `git pull`) is merged. Raises PolarIacError when it cannot be read; the journal then
        keeps everything.
        """
        result, base = self.lockfile, self._base
        if lockfile_path.exists():
            current = lockfile.read(lockfile_path, base.environment, base.project)
            if lockfile.digest(current) != lockfile.digest(base):
                result, base = merge(base, result, current), current
        if lockfile.digest(result) != lockfile.digest(base) or not lockfile_path.exists():
            lockfile.save(lockfile_path, result)
        state = replace(self._state, meters=dict(result.meters)).without_expired(now)
        if entries := state.diff_from(result):
            write_atomically(self._path, "".join(map(line_of, entries)))
        else:
            with suppress(FileNotFoundError):
                self._path.unlink()

    def _append(self, entry: Entry) -> None:
        try:
            empty = os.fstat(self._file).st_size == 0
            lines = line_of(begin_entry(self._base)) + line_of(entry) if empty else line_of(entry)
            unwritten = memoryview(lines.encode("utf-8", "surrogatepass"))
            while unwritten:
                unwritten = unwritten[os.write(self._file, unwritten) :]
            os.fsync(self._file)
        except OSError as error:
            raise PolarIacError(f"cannot write the journal {self._path}: {error.strerror}") from error
        self._state.apply(entry)
