"""The journal: what a run set out to do and what it did, on disk before the next step is taken.

One JSON object a line, appended; recording one effect costs the same however many meters there are. A run
that ends folds it into the lockfile; a run that finds one goes on from it.
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

from polar_iac import lockfile
from polar_iac.errors import PolarIacError
from polar_iac.lockfile import Lockfile
from polar_iac.meter import LiveMeter, Made, MeterSpec, Record, instant

T = TypeVar("T")
RETENTION = timedelta(hours=24)
"""How long an unanswered create is remembered, so that a meter that appears late is known as ours. No gateway
keeps a request for nearly as long."""


@dataclass(frozen=True)
class Intent:
    """A POST that may have been sent: the marker to look for, and the spec that was declared.

    `at` is when it was about to be sent, by Polar's clock and no later than that, in the form of
    `LiveMeter.created_at`; empty in journals of earlier versions.
    """

    marker: str
    spec: MeterSpec
    at: str = ""

    def may_have_made(self, meter: LiveMeter) -> bool:
        """Tell whether a meter looks like what this POST would have made."""
        same = meter.marker == self.marker and meter.spec is not None
        return bool(self.at) and same and meter.created_at >= self.at and self._is_declared(meter)

    def _is_declared(self, meter: LiveMeter) -> bool:
        # A meter that was archived since is still the one that was made.
        return meter.spec is not None and replace(meter.spec, archived=self.spec.archived) == self.spec


Answer = Literal["created"] | Intent
"""What answers a POST: its 201, or a lookup that found what this one made."""


@dataclass
class Story:
    """The state as the journal tells it, from the lockfile on.

    `intents` holds per key the creates that were sent, or about to be, and never answered, oldest first;
    `created` the ids of 201s since the last sweep, which may yet turn out to be duplicates.
    """

    organization_id: str | None = None
    meters: dict[str, Record] = field(default_factory=dict)
    intents: dict[str, list[Intent]] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)

    @property
    def unresolved(self) -> dict[str, Sequence[Intent]]:
        """The unanswered creates of keys for which no meter is known."""
        return {key: intents for key, intents in self.intents.items() if key not in self.meters}

    def made(self, live: Iterable[LiveMeter], answered: Collection[Intent] = ()) -> Made:
        """Which of the live meters runs of this machine made, as far as the journal knows.

        What the `answered` creates made is known, so that they stand for no other meter.
        """
        intents = [i for found in self.intents.values() for i in found if i not in answered]
        landed = {m.id for m in live if any(intent.may_have_made(m) for intent in intents)}
        return Made(frozenset(self.created), frozenset(landed))

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Take one entry in. Raises ValueError, KeyError, TypeError or AttributeError when it is not one."""
        effect, key = entry["effect"], str(entry["key"])
        match effect:
            case "begin":
                pass  # which lockfile it was begun from: `read` has looked
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
        """Drop a record, unless it is another meter's by now."""
        known = self.meters.get(key)
        if known and meter_id in (None, known.id):
            del self.meters[key]

    def _answered(self, key: str, at: str = "") -> None:
        """The create of a key that was sent `at` this time, else the last, is known to have made a meter, or
        none.

        Others without an answer stay: their meters may still appear, as duplicates.
        """
        intents = self.intents.get(key, [])
        last = next((n for n in reversed(range(len(intents))) if at in ("", intents[n].at)), len(intents) - 1)
        del intents[last : last + 1]
        if not intents:
            self.intents.pop(key, None)

    def on(self, newer: Lockfile) -> Story:
        """The story on a lockfile that was written since: pulled from git, say, after other runs.

        What that says of a key, or of a meter, is the newer word. Kept is what it cannot know: meters that
        only the journal names, creates that were never answered, and that Polar once refused.
        """
        meters = dict(newer.meters)
        taken = {record.id for record in meters.values()}
        for key, record in self.meters.items():
            known = meters.get(key)
            if known is None and record.id not in taken:
                meters[key] = record
            elif known is not None and known.id == record.id and record.frozen:
                meters[key] = replace(known, frozen=True)
        return Story(newer.organization_id or self.organization_id, meters, self.intents, self.created)

    def without_expired(self, now: datetime) -> Story:
        """The story without creates that can make nothing any more."""
        oldest = instant(now - RETENTION)
        intents = {
            key: [i for i in found if (i.at >= oldest if i.at else key not in self.meters)]
            for key, found in self.intents.items()
        }
        return replace(self, intents={key: found for key, found in intents.items() if found})

    def entries(self, state: Lockfile) -> list[Mapping[str, Any]]:
        """What a journal begun from the lockfile `state` has to tell, for this story to come of it."""
        entries: list[Mapping[str, Any]] = []
        if self.organization_id and self.organization_id != state.organization_id:
            entries.append({"effect": "organization", "key": "", "id": self.organization_id})
        entries += [_record(k, r) for k, r in self.meters.items() if r != state.meters.get(k)]
        entries += [_intent(key, intent) for key, found in self.intents.items() for intent in found]
        entries += [{"effect": "made", "key": key, "id": meter_id} for meter_id, key in self.created.items()]
        return [_begin(state), *entries] if entries else []


def path_for(lockfile_path: Path) -> Path:
    return lockfile_path.parent / lockfile.STATE_DIRECTORY / f"{lockfile_path.name}.journal"


def read(path: Path, state: Lockfile) -> Story:
    """The lockfile's state, and what the journal at `path` tells since; telling it twice changes nothing.

    A last line cut short by a crash never happened. Raises PolarIacError when the file is no journal, or one
    of another environment or project.
    """
    return _read(path, state)[0]


def _read(path: Path, state: Lockfile) -> tuple[Story, bool]:
    """The story, and whether the lockfile is still the one that the journal was begun from."""
    story = Story(state.organization_id, dict(state.meters))
    try:
        # No link is followed: whoever could plant one would tell this run which meters are ours.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return story, True
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the journal: {error.strerror}") from error
    alone = Story()
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
    """The open journal of a run; each method returns once its entry is on disk. For one thread."""

    def __init__(self, path: Path, state: Lockfile) -> None:
        self._path = path
        self._lockfile = state
        self._story, same = _read(path, state)
        if not same:
            # From here on it goes with the lockfile that is there now.
            lockfile.write_atomically(path, "".join(map(_line, self._story.entries(state))))
        try:
            # No link is followed: the journal is written where it is meant to be, or not at all.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            whole = os.pread(self._file, os.fstat(self._file).st_size, 0)
            os.ftruncate(self._file, whole.rfind(b"\n") + 1)
            os.lseek(self._file, 0, os.SEEK_END)
            lockfile.sync_directory(path.parent)
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
        """The unanswered creates of keys for which no meter is known, oldest first."""
        return self._story.unresolved

    def intents(self, key: str) -> Sequence[Intent]:
        """The unanswered creates of a key, oldest first."""
        return tuple(self._story.intents.get(key, ()))

    @property
    def created(self) -> Mapping[str, str]:
        """Meter id to key, for every create (201) of this run or of the interrupted run it resumes."""
        return self._story.created

    def made(self, live: Iterable[LiveMeter], answered: Collection[Intent] = ()) -> Made:
        """Which of the live meters runs of this machine made."""
        return self._story.made(live, answered)

    @property
    def state(self) -> Lockfile:
        """The lockfile as it will be."""
        meters = dict(self._story.meters)
        return replace(self._lockfile, meters=meters, organization_id=self._story.organization_id)

    def learn_organization(self, organization_id: str) -> None:
        self._append({"effect": "organization", "key": "", "id": organization_id})

    def intend(self, key: str, marker: str, spec: MeterSpec, now: datetime) -> None:
        """A POST for `key` is about to be sent. `now` is by Polar's clock, and no later than the present."""
        self._append(_intent(key, Intent(marker, spec, instant(now))))

    def give_up(self, key: str) -> None:
        """The last POST for `key` is known to have created nothing."""
        self._append({"effect": "gave-up", "key": key})

    def record(
        self,
        key: str,
        record: Record,
        *,
        was: str | None = None,
        answer: Answer | None = None,
    ) -> None:
        """`key` is this meter now. `was` is the key that it replaces, `answer` what answered a POST."""
        more: dict[str, Any] = {"was": was} if was else {}
        if isinstance(answer, Intent):
            more["found"] = answer.at or True
        elif answer:
            more["created"] = True
        self._append({**_record(key, record), **more})

    def forget(self, key: str, meter_id: str) -> None:
        """`key` is not this meter any more; a record of another meter stays."""
        self._append({"effect": "forget", "key": key, "id": meter_id})

    def swept(self) -> None:
        """No meter that this run created is a duplicate any more."""
        self._append({"effect": "swept", "key": ""})

    def finish(self, lockfile_path: Path, now: datetime) -> None:
        """Fold everything into the lockfile; what a later run must know still stays in the journal.

        A run that learned nothing leaves the lockfile as it is. One that was replaced since the run began (a
        `git pull`, say) is merged. Raises PolarIacError when it cannot be read: the journal then keeps all.
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
            lockfile.write_atomically(self._path, "".join(map(_line, unsettled)))
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
    """Merge what a run did since `base` into a lockfile that was replaced meanwhile, key by key.

    Where both changed a key and mean one meter, the run's record holds, since it is the later one; where they
    mean two, the new lockfile's does, as for a journal that is older than its lockfile. An id has one key.
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
    """The first line: whose journal this is, and from which lockfile it goes on."""
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
