"""Journal: records on disk what a run is about to do and what it did, before the next step.

One JSON object per line, append only, so recording an effect costs the same for any number of meters. A run
that ends folds the journal into the lockfile; a run that finds one continues from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from polar_iac.errors import PolarIacError
from polar_iac.files import STATE_DIRECTORY, sync_directory, write_atomically
from polar_iac.meter.live import LiveMeter, Made, instant
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile

T = TypeVar("T")
RETENTION = timedelta(hours=24)
"""Time that an unanswered create is remembered, so that a late meter is recognized as ours. No gateway keeps
a request nearly that long."""


@dataclass(frozen=True)
class Intent:
    """A POST that may have been sent: the marker to look for, and the declared spec.

    `at` is the time just before it was sent, by Polar's clock or slightly earlier, in the format of
    `LiveMeter.created_at`. It is empty in journals of earlier versions.
    """

    marker: str
    spec: MeterSpec
    at: str = ""

    def may_have_made(self, meter: LiveMeter) -> bool:
        """Tell whether a meter looks like what this POST would have made."""
        same = meter.marker == self.marker and meter.spec is not None
        return bool(self.at) and same and meter.created_at >= self.at and self._is_declared(meter)

    def _is_declared(self, meter: LiveMeter) -> bool:
        # A meter that was archived later is still the one that was created.
        return meter.spec is not None and replace(meter.spec, archived=self.spec.archived) == self.spec


Answer = Literal["created"] | Intent
"""Resolution of a POST: its 201 answer, or the intent whose meter a lookup found."""


@dataclass
class JournalState:
    """State according to the lockfile plus the journal.

    `intents` holds, per key, the creates that were sent (or about to be) and never answered, oldest first.
    `created` holds the ids from 201 answers since the last sweep; they may still turn out to be duplicates.
    """

    organization_id: str | None = None
    meters: dict[str, Record] = field(default_factory=dict)
    intents: dict[str, list[Intent]] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)

    @property
    def unresolved(self) -> dict[str, Sequence[Intent]]:
        """Unanswered creates of keys with no known meter."""
        return {key: intents for key, intents in self.intents.items() if key not in self.meters}

    def made(self, live: Iterable[LiveMeter], answered: Collection[Intent] = ()) -> Made:
        """Return which of the live meters were created by runs on this machine, as far as the journal knows.

        The meters that the `answered` creates made are known, so these creates match no other meter.
        """
        intents = [i for found in self.intents.values() for i in found if i not in answered]
        landed = {m.id for m in live if any(intent.may_have_made(m) for intent in intents)}
        return Made(frozenset(self.created), frozenset(landed))

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Apply one entry. Raises ValueError, KeyError, TypeError, or AttributeError for an invalid entry."""
        effect, key = entry["effect"], str(entry["key"])
        match effect:
            case "begin":
                pass  # names the lockfile it started from; `_read` has checked it
            case "organization":
                self.organization_id = str(entry["id"])
            case "create":
                at = _typed(entry.get("at", ""), str)
                intent = Intent(str(entry["marker"]), MeterSpec.from_json(entry["spec"]), at)
                self.intents.setdefault(key, []).append(intent)
            case "gave-up":
                self._answered(key)
            case "made":
                self.created[str(entry["id"])] = key
            case "swept":
                self.created.clear()
            case "forget":
                self._forget(key, entry.get("id"))
            case "record":
                self._record(key, entry)
            case _:
                raise ValueError(f"no effect {effect!r}")

    def _record(self, key: str, entry: Mapping[str, Any]) -> None:
        known = self.meters.get(key) or self.meters.get(entry.get("was", ""))
        spec = None if entry["spec"] is None else MeterSpec.from_json(entry["spec"])
        extra = known.extra if known and known.id == entry["id"] else {}
        ignored = frozenset(map(str, entry.get("ignored", ())))
        frozen = _typed(entry["frozen"], bool)
        self.meters[key] = Record(str(entry["id"]), spec, frozen, ignored, extra)
        if was := entry.get("was"):
            self._forget(was, entry["id"])
        if entry.get("created"):
            self.created[str(entry["id"])] = key
        if entry.get("created"):
            self._answered(key)
        elif found := entry.get("found"):
            self._answered(key, found if isinstance(found, str) else "")

    def _forget(self, key: str, meter_id: str | None) -> None:
        """Remove a record, unless it now belongs to another meter."""
        known = self.meters.get(key)
        if known and meter_id in (None, known.id):
            del self.meters[key]

    def _answered(self, key: str, at: str = "") -> None:
        """Mark one create of a key as resolved: it is known to have made a meter, or none.

        It is the create that was sent `at` this time, else the last one. Other unanswered creates stay,
        because their meters may still appear as duplicates.
        """
        intents = self.intents.get(key, [])
        last = next((n for n in reversed(range(len(intents))) if at in ("", intents[n].at)), len(intents) - 1)
        del intents[last : last + 1]
        if not intents:
            self.intents.pop(key, None)

    def on(self, newer: Lockfile) -> JournalState:
        """Return the story rebased onto a lockfile that was written since (for example, pulled from git).

        The newer lockfile wins for every key and meter that it has. Kept from the journal is what that
        lockfile cannot know: meters that only the journal has, unanswered creates, and `frozen` flags.
        """
        meters = dict(newer.meters)
        taken = {record.id for record in meters.values()}
        for key, record in self.meters.items():
            known = meters.get(key)
            if known is None and record.id not in taken:
                meters[key] = record
            elif known is not None and known.id == record.id and record.frozen:
                meters[key] = replace(known, frozen=True)
        return JournalState(newer.organization_id or self.organization_id, meters, self.intents, self.created)

    def without_expired(self, now: datetime) -> JournalState:
        """Return the story without the creates that can no longer produce a meter."""
        oldest = instant(now - RETENTION)
        intents = {
            key: [i for i in found if (i.at >= oldest if i.at else key not in self.meters)]
            for key, found in self.intents.items()
        }
        return replace(self, intents={key: found for key, found in intents.items() if found})

    def entries(self, state: Lockfile) -> list[Mapping[str, Any]]:
        """Return the entries of a journal that starts from the lockfile `state` and leads to this story."""
        entries: list[Mapping[str, Any]] = []
        if self.organization_id and self.organization_id != state.organization_id:
            entries.append({"effect": "organization", "key": "", "id": self.organization_id})
        entries += [_record(k, r) for k, r in self.meters.items() if r != state.meters.get(k)]
        entries += [_intent(key, intent) for key, found in self.intents.items() for intent in found]
        entries += [{"effect": "made", "key": key, "id": meter_id} for meter_id, key in self.created.items()]
        return [_begin(state), *entries] if entries else []


def path_for(lockfile_path: Path) -> Path:
    return lockfile_path.parent / STATE_DIRECTORY / f"{lockfile_path.name}.journal"


def read(path: Path, state: Lockfile) -> JournalState:
    """Read the lockfile's state plus the journal at `path`. Reading it twice changes nothing.

    A last line that a crash cut short is ignored. Raises PolarIacError when the file is not a journal, or is
    one of another environment or project.
    """
    return _read(path, state)[0]


def _read(path: Path, state: Lockfile) -> tuple[JournalState, bool]:
    """Return the story, and whether the journal was started from this lockfile."""
    story = JournalState(state.organization_id, dict(state.meters))
    try:
        # Follow no link: an attacker who can plant one could tell this run which meters are ours.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return story, True
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the journal: {error.strerror}") from error
    alone = JournalState()
    begun = _begin(state)
    same = not lines
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line.decode())
            if b"\\ud" in line.lower():
                json.dumps(entry, ensure_ascii=False).encode()  # half a character could not be written again
            if number == 1 and entry["effect"] == "begin":
                _check_owner(path, entry, begun)
                same = entry["lockfile"] == begun["lockfile"]
            (story if same else alone).tell(entry)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PolarIacError(
                f"{path}:{number}:1: error: this line is no journal entry. Delete the file: what it held is "
                "found again by the ownership markers"
            ) from error
    return (story if same else alone.on(state)), same


def _check_owner(path: Path, entry: Mapping[str, Any], begun: Mapping[str, Any]) -> None:
    for what in ("environment", "project"):
        if entry[what] != begun[what]:
            raise PolarIacError(
                f"{path}: error: this journal is of the {what} {json.dumps(entry[what])}, not of "
                f"{begun[what]}: apply there first, or choose another file with --lockfile"
            )


class Journal:
    """Open journal of a run. Each method returns once its entry is on disk. For use by one thread."""

    def __init__(self, path: Path, state: Lockfile) -> None:
        self._path = path
        self._lockfile = state
        self._story, same = _read(path, state)
        if not same:
            # From here on the journal is based on the current lockfile.
            write_atomically(path, "".join(map(_line, self._story.entries(state))))
        try:
            # Follow no link: write the journal at this path or fail.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            whole = os.pread(self._file, os.fstat(self._file).st_size, 0)
            os.ftruncate(self._file, whole.rfind(b"\n") + 1)
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
        return self._story.meters

    @property
    def organization_id(self) -> str | None:
        return self._story.organization_id

    @property
    def unresolved(self) -> Mapping[str, Sequence[Intent]]:
        """Unanswered creates of keys with no known meter, oldest first."""
        return self._story.unresolved

    def intents(self, key: str) -> Sequence[Intent]:
        """Return the unanswered creates of a key, oldest first."""
        return tuple(self._story.intents.get(key, ()))

    @property
    def created(self) -> Mapping[str, str]:
        """Meter id to key, for every create (201) of this run or of the interrupted run it resumes."""
        return self._story.created

    def made(self, live: Iterable[LiveMeter], answered: Collection[Intent] = ()) -> Made:
        """Return which of the live meters were created by runs on this machine."""
        return self._story.made(live, answered)

    @property
    def state(self) -> Lockfile:
        """Lockfile that this run will write."""
        meters = dict(self._story.meters)
        return replace(self._lockfile, meters=meters, organization_id=self._story.organization_id)

    def learn_organization(self, organization_id: str) -> None:
        self._append({"effect": "organization", "key": "", "id": organization_id})

    def intend(self, key: str, marker: str, spec: MeterSpec, now: datetime) -> None:
        """Record that a POST for `key` is about to be sent.

        `now` is by Polar's clock, or slightly earlier.
        """
        self._append(_intent(key, Intent(marker, spec, instant(now))))

    def give_up(self, key: str) -> None:
        """Record that the last POST for `key` is known to have created nothing."""
        self._append({"effect": "gave-up", "key": key})

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
        more: dict[str, Any] = {"was": was} if was else {}
        if isinstance(answer, Intent):
            more["found"] = answer.at or True
        elif answer:
            more["created"] = True
        self._append({**_record(key, record), **more})

    def forget(self, key: str, meter_id: str) -> None:
        """Record that `key` is no longer this meter. A record of another meter stays."""
        self._append({"effect": "forget", "key": key, "id": meter_id})

    def swept(self) -> None:
        """Record that none of the meters that this run created is a duplicate."""
        self._append({"effect": "swept", "key": ""})

    def finish(self, lockfile_path: Path, now: datetime) -> None:
        """Fold everything into the lockfile. Only what a later run must know stays in the journal.

        A run that learned nothing does not rewrite the lockfile. A lockfile that was replaced during the run
        (for example, by `git pull`) is merged. Raises PolarIacError when it cannot be read; the journal then
        keeps everything.
        """
        state, begun = self.state, self._lockfile
        if lockfile_path.exists():
            there = lockfile.read(lockfile_path, begun.environment, begun.project)
            if lockfile.digest(there) != lockfile.digest(begun):
                state, begun = merge(begun, state, there), there
        if lockfile.digest(state) != lockfile.digest(begun) or not lockfile_path.exists():
            lockfile.save(lockfile_path, state)
        story = replace(self._story, meters=dict(state.meters)).without_expired(now)
        if unsettled := story.entries(state):
            write_atomically(self._path, "".join(map(_line, unsettled)))
        else:
            with suppress(FileNotFoundError):
                self._path.unlink()

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            begun = os.fstat(self._file).st_size > 0
            lines = _line(entry) if begun else _line(_begin(self._lockfile)) + _line(entry)
            data = memoryview(lines.encode("utf-8", "surrogatepass"))
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise PolarIacError(f"cannot write the journal {self._path}: {error.strerror}") from error
        self._story.tell(entry)


def merge(base: Lockfile, ours: Lockfile, theirs: Lockfile) -> Lockfile:
    """Merge what a run did since `base` into a lockfile that was replaced during the run, key by key.

    If both changed a key and mean the same meter, the run's record wins, because it is later. If they mean
    different meters, the new lockfile wins, as it does for a journal that is older than its lockfile. An id
    has only one key.
    """
    meters = dict(theirs.meters)
    for key in sorted({*base.meters, *ours.meters}):
        was, done, there = (state.meters.get(key) for state in (base, ours, theirs))
        if done == was:
            continue
        same = done is not None and there is not None and done.id == there.id
        if there != was and not same:
            continue
        if done is None:
            meters.pop(key, None)
        elif all(key == other or done.id != record.id for other, record in meters.items()):
            frozen = done.frozen or (same and there is not None and there.frozen)
            meters[key] = replace(done, frozen=frozen)
    return replace(theirs, meters=meters, organization_id=theirs.organization_id or ours.organization_id)


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"got {type(value).__name__}")
    return value


def _begin(state: Lockfile) -> dict[str, Any]:
    """Return the first line: the owner of this journal, and the digest of the lockfile it starts from."""
    return {
        "effect": "begin",
        "key": "",
        "environment": state.environment,
        "project": state.project,
        "lockfile": lockfile.digest(state),
    }


def _record(key: str, record: Record) -> dict[str, Any]:
    return {
        "effect": "record",
        "key": key,
        "id": record.id,
        "spec": record.spec and record.spec.canonical,
        "frozen": record.frozen,
        **({"ignored": sorted(record.ignored)} if record.ignored else {}),
    }


def _intent(key: str, intent: Intent) -> dict[str, Any]:
    at = {"at": intent.at} if intent.at else {}
    return {"effect": "create", "key": key, "marker": intent.marker, "spec": intent.spec.canonical, **at}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"
