"""The journal: what a run set out to do and what it did, on disk before the next step is taken.

One JSON object a line, appended; recording one effect costs the same however many meters there are. A run
that ends folds it into the lockfile and removes it; a run that finds one finishes that story first.
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


@dataclass(frozen=True)
class Story:
    """What a journal tells: the effects in their order, and the creates that have no known result.

    `created` holds the ids that the run itself got from a 201.
    """

    effects: tuple[Mapping[str, Any], ...] = ()
    unresolved: Mapping[str, Intent] = field(default_factory=dict)
    """Per key the create that was sent, or about to be, and never answered."""
    created: frozenset[str] = frozenset()


def path_for(lockfile_path: Path) -> Path:
    return lockfile_path.parent / lockfile.STATE_DIRECTORY / f"{lockfile_path.name}.journal"


def read(path: Path) -> Story:
    """The story so far; an empty one when there is no journal.

    A last line cut short by a crash is no effect: it was never completed. Raises PolarIacError when the
    file is no journal.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Story()
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the journal: {error.strerror}") from error
    lines = text.split("\n")
    effects, unresolved, created = [], {}, set()
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
            effect, key = entry["effect"], entry["key"]
            if effect == "create":
                unresolved[key] = Intent(str(entry["marker"]), MeterSpec.from_json(entry["spec"]))
            elif effect in ("record", "forget", "organization"):
                effects.append(entry)
                if effect != "organization":
                    _apply({}, entry)  # wrong types show here, with their line
                if effect == "record" and entry.get("created"):
                    created.add(entry["id"])
                unresolved.pop(key, None)
            elif effect == "gave-up":
                unresolved.pop(key, None)
            else:
                raise ValueError(effect)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PolarIacError(
                f"{path}:{number}:1: error: this line is no journal entry. Delete the file: what it held is "
                "found again by the ownership markers"
            ) from error
    return Story(tuple(effects), unresolved, frozenset(created))


def fold(state: Lockfile, story: Story) -> Lockfile:
    """The lockfile with the journal's effects; doing it twice is doing it once."""
    meters = dict(state.meters)
    organization_id = state.organization_id
    for entry in story.effects:
        if entry["effect"] == "organization":
            organization_id = str(entry["id"])
        else:
            _apply(meters, entry)
    return replace(state, meters=meters, organization_id=organization_id)


def _apply(meters: dict[str, Record], entry: Mapping[str, Any]) -> None:
    key = entry["key"]
    if entry["effect"] == "forget":
        meters.pop(key, None)
        return
    if was := entry.get("was"):
        meters.pop(was, None)
    known = meters.get(key)
    meters[key] = Record(
        id=str(entry["id"]),
        spec=None if entry["spec"] is None else MeterSpec.from_json(entry["spec"]),
        frozen=bool(entry["frozen"]),
        extra=known.extra if known and known.id == entry["id"] else {},
    )


class Journal:
    """The open journal of a run, and the state as the run knows it.

    Made by `begin`; each method returns once its entry is on disk. For one thread.
    """

    def __init__(self, path: Path, state: Lockfile) -> None:
        self._path = path
        self._organization_id = state.organization_id
        self._meters = dict(state.meters)
        self._state = state
        try:
            # No link is followed: the journal is written where it is meant to be, or not at all.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._file = os.open(path, flags, 0o644)
            lockfile.sync_directory(path.parent)
        except OSError as error:
            raise PolarIacError(f"cannot write the journal {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def state(self) -> Lockfile:
        """The lockfile as it will be: what was read, and every effect so far."""
        return replace(self._state, meters=dict(self._meters), organization_id=self._organization_id)

    def get(self, key: str) -> Record | None:
        return self._meters.get(key)

    @property
    def organization_id(self) -> str | None:
        return self._organization_id

    def learn_organization(self, organization_id: str) -> None:
        self._append({"effect": "organization", "key": "", "id": organization_id})
        self._organization_id = organization_id

    def intend(self, key: str, marker: str, spec: MeterSpec) -> None:
        """A POST for `key` is about to be sent."""
        self._append({"effect": "create", "key": key, "marker": marker, "spec": spec.canonical})

    def give_up(self, key: str) -> None:
        """The POST for `key` is known to have created nothing."""
        self._append({"effect": "gave-up", "key": key})

    def record(self, key: str, record: Record, *, was: str | None = None, created: bool = False) -> None:
        """`key` is this meter now. `was` is the key that it replaces; `created`: this run made it."""
        entry = {
            "effect": "record",
            "key": key,
            "id": record.id,
            "spec": record.spec and record.spec.canonical,
            "frozen": record.frozen,
            **({"was": was} if was else {}),
            **({"created": True} if created else {}),
        }
        self._append(entry)
        _apply(self._meters, entry)

    def forget(self, key: str) -> None:
        self._append({"effect": "forget", "key": key})
        self._meters.pop(key, None)

    def finish(self, lockfile_path: Path) -> None:
        """Fold everything into the lockfile; the journal goes once that is on disk.

        A run that learned nothing leaves the lockfile as it is.
        """
        state = self.state
        if lockfile.dumps(state) != lockfile.dumps(self._state) or not lockfile_path.exists():
            lockfile.save(lockfile_path, state)
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            data = memoryview(line.encode("utf-8", "surrogatepass"))
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise PolarIacError(f"cannot write the journal {self._path}: {error.strerror}") from error
