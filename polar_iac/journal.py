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

    organization_id: str | None
    meters: dict[str, Record]
    unresolved: dict[str, Intent] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Take one entry in. Raises ValueError, KeyError, TypeError or AttributeError when it is none."""
        effect, key = entry["effect"], str(entry["key"])
        match effect:
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


def path_for(lockfile_path: Path) -> Path:
    return lockfile_path.parent / lockfile.STATE_DIRECTORY / f"{lockfile_path.name}.journal"


def read(path: Path, state: Lockfile) -> Story:
    """The lockfile's state, and what the journal at `path` tells since; telling it twice changes nothing.

    A last line cut short by a crash never happened. Raises PolarIacError when the file is no journal.
    """
    story = Story(state.organization_id, dict(state.meters))
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return story
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the journal: {error.strerror}") from error
    for number, line in enumerate(lines[:-1], 1):
        try:
            story.tell(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PolarIacError(
                f"{path}:{number}:1: error: this line is no journal entry. Delete the file: what it held is "
                "found again by the ownership markers"
            ) from error
    return story


class Journal:
    """The open journal of a run; each method returns once its entry is on disk. For one thread."""

    def __init__(self, path: Path, state: Lockfile) -> None:
        self._path = path
        self._lockfile = state
        self._story = read(path, state)
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
        self._append(
            {
                "effect": "record",
                "key": key,
                "id": record.id,
                "spec": record.spec and record.spec.canonical,
                "frozen": record.frozen,
                **({"ignored": sorted(record.ignored)} if record.ignored else {}),
                **({"was": was} if was else {}),
                **({"created": True} if created else {}),
            }
        )

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
        if lockfile.dumps(state) != lockfile.dumps(self._lockfile) or not lockfile_path.exists():
            lockfile.save(lockfile_path, state)
        unsettled = [_intent(key, intent) for key, intent in self.unresolved.items()]
        unsettled += [
            {"effect": "made", "key": key, "id": meter_id} for meter_id, key in self.created.items()
        ]
        if unsettled:
            lockfile.write_atomically(self._path, "".join(map(_line, unsettled)))
        else:
            with suppress(FileNotFoundError):
                self._path.unlink()

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            data = memoryview(_line(entry).encode("utf-8", "surrogatepass"))
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise PolarIacError(f"cannot write the journal {self._path}: {error.strerror}") from error
        self._story.tell(entry)


def _intent(key: str, intent: Intent) -> dict[str, Any]:
    return {"effect": "create", "key": key, "marker": intent.marker, "spec": intent.spec.canonical}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"
