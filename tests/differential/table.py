"""The decision table once more, written from its text alone: what a plan must say of each key.

Where the text leaves two answers open, both are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property

from tests.differential.aftermath import FULL, merged
from tests.differential.rounds import FREEZABLE, Flag, brief
from tests.differential.truth import Json, Meter, Meters, normal
from tests.differential.world import marker_of

NOTHING = "nothing"


@dataclass(frozen=True)
class Answer:
    """The actions that a key may have, and the id of its meter, where that is certain."""

    actions: frozenset[str]
    id: str | None = None


def answer(*actions: str, meter: Meter | None = None) -> Answer:
    return Answer(frozenset(actions), meter.id if meter else None)


BLOCKED = answer("blocked")


def _doubled(*meters: Meter) -> Answer:
    """Of meters that share a marker: which of them the command made, the table does not know."""
    return answer("settle", "blocked") if all(meter.is_known for meter in meters) else BLOCKED


@dataclass(frozen=True)
class Table:
    """The declared, recorded and live meters of a plan."""

    declared: Mapping[str, Json]
    moved: Mapping[str, str]
    lockfile: Mapping[str, Json]
    meters: Meters
    allow_archive: bool
    imports: Mapping[str, str] = field(default_factory=dict)
    removed: Set[str] = frozenset()

    def key_now(self, key: str) -> str:
        """The key that a former key has now, if that is declared."""
        now = key
        while now in self.moved:
            now = self.moved[now]
        return now if now in self.declared else key

    def _steps(self, key: str) -> int:
        return 1 + self._steps(self.moved[key]) if key in self.moved else 0

    @cached_property
    def records(self) -> dict[str, Json]:
        """The lockfile after the moves; of two names for one key the later counts, the other stays."""
        records_by_key = dict(self.lockfile)
        for old in sorted(self.lockfile, key=lambda key: (self._steps(key), key)):
            if (new := self.key_now(old)) != old and new not in records_by_key:
                records_by_key[new] = records_by_key.pop(old)
        return records_by_key

    @cached_property
    def owner(self) -> dict[str, str]:
        return {record["id"]: key for key, record in self.records.items()}

    def key_of(self, meter: Meter) -> str | None:
        """The key of this project that a meter's marker names, after the moves.

        Where a record could not move, since its new key has one already, its meter stays with it.
        """
        owner = self.owner.get(meter.id)
        if meter.key is None or owner in self._names(meter.key):
            return meter.key and owner
        return self.key_now(meter.key)

    def _names(self, key: str) -> list[str]:
        """A key, and what it was called after each move."""
        return [key, *(self._names(self.moved[key]) if key in self.moved else ())]

    def bearers(self, key: str) -> list[Meter]:
        return [meter for meter in self.meters.values() if meter.active and self.key_of(meter) == key]

    @cached_property
    def all_unknown(self) -> bool:
        ids = [record["id"] for record in self.records.values()]
        return bool(ids) and not any(meter_id in self.meters for meter_id in ids)

    @cached_property
    def is_elsewhere(self) -> bool:
        """Tell whether Polar knows no id that the lockfile or `import` has."""
        ids = [*(record["id"] for record in self.records.values()), *self.imports.values()]
        return not any(meter_id in self.meters for meter_id in ids)

    def waits(self, key: str) -> bool:
        """Tell whether a key is to have the meter that `import` names, and none yet."""
        is_open = key in self.declared and key not in self.records and len(self.bearers(key)) < 2
        return is_open and key in self.imports

    @cached_property
    def keys(self) -> set[str]:
        marked = {self.key_of(meter) for meter in self.meters.values()}
        return {*self.declared, *self.records, *self.removed, *(key for key in marked if key is not None)}

    def facts(self, key: str) -> str:
        """The facts behind an answer, for the reader of a flag."""
        record = self.records.get(key)
        mentioned = [
            m for m in self.meters.values() if self.key_of(m) == key or (record and m.id == record["id"])
        ]
        lines = [f"{m.id} {'active' if m.active else 'archived'} marked {m.marker}" for m in mentioned]
        return f"moved {dict(self.moved)}, lockfile {dict(self.lockfile)}, meters {lines}"

    # --- Which meter ---

    def answer(self, key: str) -> Answer:
        record = self.records.get(key)
        if key in self.removed:
            return answer(NOTHING) if record is None else self._removed(key, record)
        if record is None:
            return self._unrecorded(key)
        contradicted = self.imports.get(key, record["id"]) != record["id"]
        return BLOCKED if contradicted else self._recorded(key, record)

    def _removed(self, key: str, record: Json) -> Answer:
        meter = self.meters.get(record["id"])
        others = [bearer for bearer in self.bearers(key) if bearer.id != record["id"]]
        if meter is not None and self.key_of(meter) == key:
            stays = others or not meter.is_known or self._is_claimed(meter)
            return BLOCKED if stays else answer("release", meter=meter)
        if len(others) > 1 or (meter is None and self.all_unknown):
            return BLOCKED
        return answer(NOTHING)

    def _recorded(self, key: str, record: Json) -> Answer:
        meter = self.meters.get(record["id"])
        if meter is None:
            some_id_is_live = not self.all_unknown
            return answer(NOTHING) if some_id_is_live and key not in self.declared else BLOCKED
        others = [bearer for bearer in self.bearers(key) if bearer.id != meter.id]
        if self.key_of(meter) == key:
            return _doubled(meter, *others) if others else self._by_manifest(key, meter)
        if self.key_of(meter) is not None:
            return BLOCKED
        if key not in self.declared and not others:
            return answer(NOTHING) if meter.marker or record["spec"] else answer(NOTHING, "blocked")
        if meter.marker is not None or others or not (record["spec"] or key in self.imports):
            return BLOCKED
        return self._by_manifest(key, meter) if record["spec"] else self._taken_over(key, meter)

    def _taken_over(self, key: str, meter: Meter) -> Answer:
        """The answer for a meter without an owner that `import` names."""
        archives = meter.active and self.declared[key].get("archived")
        return BLOCKED if archives else self._by_manifest(key, meter)

    def _unrecorded(self, key: str) -> Answer:
        if key not in self.declared:
            return answer(NOTHING)
        bearers = self.bearers(key)
        if any(bearer.id in self.owner for bearer in bearers):
            return BLOCKED
        if len(bearers) > 1:
            return _doubled(*bearers)
        if key in self.imports:
            return self._imported(key, bearers)
        if bearers:
            return self._by_manifest(key, bearers[0])
        archived = [m for m in self.meters.values() if self.key_of(m) == key]
        owned = [meter for meter in archived if meter.id in self.owner]
        if owned and len(owned) == len(archived):
            return BLOCKED
        last = max(archived, key=lambda m: (m.document["archived_at"], m.id), default=None)
        decision = self._by_manifest(key, last)
        # Of one that is recorded elsewhere beside one that is not, the text says nothing.
        return answer(*decision.actions, "blocked") if owned else decision

    def _imported(self, key: str, bearers: list[Meter]) -> Answer:
        meter = self.meters.get(self.imports[key])
        if meter is None or meter.id in self.owner or any(bearer.id != meter.id for bearer in bearers):
            return BLOCKED
        if meter.marker is None:
            return self._taken_over(key, meter)
        return self._by_manifest(key, meter) if self.key_of(meter) == key else BLOCKED

    # --- What happens to it ---

    def _by_manifest(self, key: str, meter: Meter | None) -> Answer:
        block = self.declared.get(key)
        if block is None:
            return self._absent(key, meter)
        # Whether one with unknown parts may be archived, or marked, the text leaves open.
        unread = ["blocked"] if meter and not meter.is_known else []
        if block.get("archived"):
            if meter is None or not meter.active:
                return answer(NOTHING, "mark", *unread)
            return answer("archive", meter=meter)
        if meter is None:
            return BLOCKED if any(both for _, both in self.doubles(block)) else answer("create")
        return self._active(key, block, meter) if meter.is_known else BLOCKED

    def _absent(self, key: str, meter: Meter | None) -> Answer:
        if meter is None or not meter.active or key not in self.records:
            return answer(NOTHING)
        archives = self.allow_archive and not self._is_claimed(meter)
        return answer("archive" if archives else "blocked", meter=meter)

    def _is_claimed(self, meter: Meter) -> bool:
        """Tell whether `import` names a meter for a key that has none: a rename without `moved`."""
        return any(named == meter.id and key not in self.records for key, named in self.imports.items())

    def _active(self, key: str, block: Json, meter: Meter) -> Answer:
        record = self.records.get(key)
        wanted, now = merged(block, record, meter), normal(meter.document)
        differs = {path for path in wanted.keys() | now.keys() if wanted.get(path) != now.get(path)}
        has_room = meter.marker is not None or len(meter.metadata) < FULL
        marks = meter.marker != marker_of(key) and has_room
        size = sum(path.startswith("metadata.") for path in wanted) + has_room
        if (differs or marks) and size > FULL:
            return answer("blocked", meter=meter)
        frozen = differs & set(FREEZABLE) and record is not None and record.get("frozen")
        if frozen:
            return answer("blocked", meter=meter)
        if not meter.active:
            return answer("unarchive", meter=meter)
        return answer("update" if differs else "mark" if marks else NOTHING, meter=meter)

    def doubles(self, block: Json) -> Iterator[tuple[Meter, bool]]:
        """The unowned active meters that have the same name or count the same, and whether they do both."""
        wanted = normal(block)
        for meter in self.meters.values():
            taken = meter.id in self.owner or meter.id in self.imports.values()
            if meter.active and meter.marker is None and not taken:
                now = normal(meter.document)
                same_name = now["name"] == wanted["name"]
                counts = all(now[path] == wanted[path] for path in FREEZABLE)
                if same_name or counts:
                    yield meter, same_name and counts


def flags(table: Table, plan: Json, targets: tuple[str, ...]) -> Iterator[Flag]:
    """Flag each part of a plan that is not as the table says."""
    changes_by_key: dict[str, list[Json]] = {}
    for change in plan["changes"]:
        changes_by_key.setdefault(change["key"], []).append(change)
    keys = set(targets) or table.keys
    for key in sorted(keys | changes_by_key.keys()):
        changes = changes_by_key.get(key, [])
        expected = table.answer(key) if key in keys else answer(NOTHING)
        settles = "settle" in {change["action"] for change in changes} and "settle" in expected.actions
        actions = {change["action"] for change in changes} or {NOTHING}
        if not settles and not actions <= expected.actions:
            decisions = [f"{brief(change)} {change.get('cause')}" for change in changes]
            yield Flag(
                "decision", f"{key}: {decisions}, expected {sorted(expected.actions)}; {table.facts(key)}"
            )
        elif expected.id and any(c["id"] not in (None, expected.id) for c in changes):
            yield Flag("decision", f"{key}: {[brief(c) for c in changes]} is about {expected.id}")
        yield from (flag for change in changes for flag in _unreported(table, change))
    yield from _refusal(table, plan, keys)


def _unreported(table: Table, change: Json) -> Iterator[Flag]:
    """Flag facts that a reviewer must know and a change does not report."""
    evidence = change["evidence"]
    if _is_in_vain(table, change):
        yield Flag("unreported", f"{brief(change)}: Polar has refused that")
    block = table.declared.get(change["key"])
    if change["action"] == "create" and block:
        for meter, _ in table.doubles(block):
            if meter.id not in json.dumps(evidence):
                yield Flag("unreported", f"{brief(change)}: {meter.text} has its name or counts the same")


def _is_in_vain(table: Table, change: Json) -> bool:
    """True if Polar has refused the planned change before."""
    record = table.records.get(change["key"], {})
    touched = {field["path"] for field in change["fields"]} & set(FREEZABLE)
    is_frozen = record.get("id") == change["id"] and record.get("frozen")
    return change["action"] != "blocked" and bool(touched and is_frozen)


def _refusal(table: Table, plan: Json, keys: set[str]) -> Iterator[Flag]:
    unlisted = {c["key"] for c in plan["changes"] if c["action"] == "blocked" and c["cause"] == "unlisted"}
    unknown = table.all_unknown and bool(keys & table.records.keys())
    unknown |= table.is_elsewhere and any(map(table.waits, keys))
    if bool(unlisted or unknown) != ("refusal" in plan):
        yield Flag("refusal", f"{plan.get('refusal')}, unlisted {unlisted}, all unknown {unknown}")
