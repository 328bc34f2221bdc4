"""The journal: what a run set out to do and what it did, on disk before the next step is taken.

One JSON object a line, appended; recording one effect costs the same however many meters there are. A run
that ends folds it into the lockfile; a run that finds one goes on from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from polar_iac import lockfile
from polar_iac.errors import PolarIacError
from polar_iac.lockfile import Lockfile
from polar_iac.meter import MeterSpec, Record


@dataclass(frozen=True)
class Intent:
    """A POST that may have been sent: the marker to look for, and the spec that was declared."""

    marker: str
    spec: MeterSpec


@dataclass
class Story:
    """The state as the journal tells it, from the lockfile on.

    `unresolved` holds per key the create that was sent, or about to be, and never answered; `created` the
    ids of 201s since the last sweep, which may yet turn out to be second meters of their markers.
    """

    organization_id: str | None = None
    meters: dict[str, Record] = field(default_factory=dict)
    unresolved: dict[str, Intent] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Take one entry in. Raises ValueError, KeyError, TypeError or AttributeError when it is none."""
        effect, key = entry["effect"], str(entry["key"])
        match effect:
            case "begin":
                pass  # which lockfile it was begun from: `read` has looked
            case "organization":
                self.organization_id = str(entry["id"])
            case "create":
                self.unresolved[key] = Intent(str(entry["marker"]), MeterSpec.from_json(entry["spec"]))
            case "gave-up":
                self.unresolved.pop(key, None)
            case "made":
                self.created[str(entry["id"])] = key
            case "swept":
                self.created.clear()
            case "forget":
                self.meters.pop(key, None)
            case "record":
                self._record(key, entry)
            case _:
                raise ValueError(f"no effect {effect!r}")

    def _record(self, key: str, entry: Mapping[str, Any]) -> None:
        known = self.meters.get(key) or self.meters.get(entry.get("was", ""))
        spec = None if entry["spec"] is None else MeterSpec.from_json(entry["spec"])
        extra = known.extra if known and known.id == entry["id"] else {}
        ignored = frozenset(map(str, entry.get("ignored", ())))
        self.meters[key] = Record(str(entry["id"]), spec, bool(entry["frozen"]), ignored, extra)
        if was := entry.get("was"):
            self.meters.pop(was, None)
        self.unresolved.pop(key, None)
        if entry.get("created"):
            self.created[str(entry["id"])] = key

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
        unresolved = {key: intent for key, intent in self.unresolved.items() if key not in meters}
        return Story(newer.organization_id or self.organization_id, meters, unresolved, self.created)

    def entries(self, state: Lockfile) -> list[Mapping[str, Any]]:
        """What a journal begun from the lockfile `state` has to tell, for this story to come of it."""
        told: list[Mapping[str, Any]] = []
        if self.organization_id and self.organization_id != state.organization_id:
            told.append({"effect": "organization", "key": "", "id": self.organization_id})
        told += [_record(k, r) for k, r in self.meters.items() if r != state.meters.get(k)]
        told += [_intent(key, intent) for key, intent in self.unresolved.items()]
        told += [{"effect": "made", "key": key, "id": meter_id} for meter_id, key in self.created.items()]
        return [_begin(state), *told] if told else []


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
        lines = path.read_bytes().split(b"\n")[:-1]
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
    def unresolved(self) -> Mapping[str, Intent]:
        return self._story.unresolved

    @property
    def created(self) -> Mapping[str, str]:
        """The key of each meter that a 201 told this run, or the one whose journal it goes on with, of."""
        return self._story.created

    @property
    def state(self) -> Lockfile:
        """The lockfile as it will be."""
        meters = dict(self._story.meters)
        return replace(self._lockfile, meters=meters, organization_id=self._story.organization_id)

    def learn_organization(self, organization_id: str) -> None:
        self._append({"effect": "organization", "key": "", "id": organization_id})

    def intend(self, key: str, marker: str, spec: MeterSpec) -> None:
        """A POST for `key` is about to be sent."""
        self._append(_intent(key, Intent(marker, spec)))

    def give_up(self, key: str) -> None:
        """The POST for `key` is known to have created nothing."""
        self._append({"effect": "gave-up", "key": key})

    def record(self, key: str, record: Record, *, was: str | None = None, created: bool = False) -> None:
        """`key` is this meter now. `was` is the key that it replaces; `created`: a 201 told of it."""
        more = {**({"was": was} if was else {}), **({"created": True} if created else {})}
        self._append({**_record(key, record), **more})

    def forget(self, key: str) -> None:
        self._append({"effect": "forget", "key": key})

    def swept(self) -> None:
        """No meter that this run created is a second one of its marker any more."""
        self._append({"effect": "swept", "key": ""})

    def finish(self, lockfile_path: Path) -> None:
        """Fold everything into the lockfile; what a later run must know still stays in the journal.

        A run that learned nothing leaves the lockfile as it is.
        """
        state = self.state
        if lockfile.digest(state) != lockfile.digest(self._lockfile) or not lockfile_path.exists():
            lockfile.save(lockfile_path, state)
        if unsettled := self._story.entries(state):
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
    return {"effect": "create", "key": key, "marker": intent.marker, "spec": intent.spec.canonical}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"
