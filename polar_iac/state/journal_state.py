"""Journal state: the lockfile's records, changed by the journal's entries. Values only, no files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from polar_iac.meter.live import LiveMeter, Made, instant
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile
from polar_iac.state.schema import (
    Begin,
    Created,
    CreateIntended,
    DuplicatesSettled,
    Entry,
    Forgotten,
    NotCreated,
    OrganizationLearned,
    Recorded,
)

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
        unanswered = [i for intents in self.intents.values() for i in intents if i not in answered]
        landed = {m.id for m in live if any(intent.may_have_made(m) for intent in unanswered)}
        return Made(frozenset(self.created), frozenset(landed))

    def apply(self, entry: Entry) -> None:
        """Change the state as an entry says."""
        match entry:
            case Begin():
                pass  # names the lockfile that the journal starts from; `journal.read` has compared it
            case OrganizationLearned():
                self.organization_id = entry.id
            case CreateIntended():
                intent = Intent(entry.marker, entry.spec, entry.at)
                self.intents.setdefault(entry.key, []).append(intent)
            case NotCreated():
                self._resolve(entry.key)
            case Created():
                self.created[entry.id] = entry.key
            case DuplicatesSettled():
                self.created.clear()
            case Forgotten():
                self._forget(entry.key, entry.id)
            case Recorded():
                self._record(entry)

    def _record(self, entry: Recorded) -> None:
        previous = self.meters.get(entry.key) or self.meters.get(entry.was or "")
        # Fields of later versions belong to the meter, so they also follow it to another key.
        extra = previous.extra if previous and previous.id == entry.id else {}
        record = Record(entry.id, entry.spec, entry.frozen, frozenset(entry.ignored), extra)
        self.meters[entry.key] = record
        if entry.was:
            self._forget(entry.was, entry.id)
        if entry.created:
            self.created[entry.id] = entry.key
            self._resolve(entry.key)
        elif entry.found:
            self._resolve(entry.key, entry.found if isinstance(entry.found, str) else "")

    def _forget(self, key: str, meter_id: str | None) -> None:
        """Remove a record, unless it now belongs to another meter."""
        record = self.meters.get(key)
        if record and meter_id in (None, record.id):
            del self.meters[key]

    def _resolve(self, key: str, at: str = "") -> None:
        """Remove one create of a key: it is known to have made a meter, or none.

        It is the create that was sent `at` this time, else the last one. Other unanswered creates stay,
        because their meters may still appear as duplicates.
        """
        intents = self.intents.get(key, [])
        last = next((n for n in reversed(range(len(intents))) if at in ("", intents[n].at)), len(intents) - 1)
        del intents[last : last + 1]
        if not intents:
            self.intents.pop(key, None)

    def rebase_onto(self, newer: Lockfile) -> JournalState:
        """Return the state on top of a lockfile that was written since (for example, pulled from git).

        The newer lockfile wins for every key and meter that it has. Kept from the journal is what that
        lockfile cannot know: meters that only the journal has, unanswered creates, and `frozen` flags.
        """
        meters = dict(newer.meters)
        ids = {record.id for record in meters.values()}
        for key, record in self.meters.items():
            newer_record = meters.get(key)
            if newer_record is None and record.id not in ids:
                meters[key] = record
            elif newer_record is not None and newer_record.id == record.id and record.frozen:
                meters[key] = replace(newer_record, frozen=True)
        return JournalState(newer.organization_id or self.organization_id, meters, self.intents, self.created)

    def without_expired(self, now: datetime) -> JournalState:
        """Return the state without the creates that can no longer produce a meter."""
        oldest = instant(now - RETENTION)
        intents = {
            # The age of a create without a time is unknown: it stays until its key has a meter.
            key: [i for i in unanswered if (i.at >= oldest if i.at else key not in self.meters)]
            for key, unanswered in self.intents.items()
        }
        return replace(self, intents={key: recent for key, recent in intents.items() if recent})

    def diff_from(self, base: Lockfile) -> list[Entry]:
        """Return the entries of a journal that starts from the lockfile `base` and leads to this state."""
        entries: list[Entry] = []
        if self.organization_id and self.organization_id != base.organization_id:
            entries.append(OrganizationLearned(key="", id=self.organization_id))
        entries += [record_entry(k, r) for k, r in self.meters.items() if r != base.meters.get(k)]
        entries += [create_entry(key, i) for key, intents in self.intents.items() for i in intents]
        entries += [Created(key=key, id=meter_id) for meter_id, key in self.created.items()]
        return [begin_entry(base), *entries] if entries else []


def begin_entry(base: Lockfile) -> Begin:
    """Return the first entry of a journal that starts from the lockfile `base`."""
    return Begin(key="", environment=base.environment, project=base.project, lockfile=lockfile.digest(base))


def create_entry(key: str, intent: Intent) -> CreateIntended:
    """Return the entry that is written before a create is sent."""
    optional: dict[str, Any] = {"at": intent.at} if intent.at else {}
    return CreateIntended(key=key, marker=intent.marker, spec=intent.spec, **optional)


def record_entry(
    key: str, record: Record, *, was: str | None = None, answer: Answer | None = None
) -> Recorded:
    """Return the entry of a record. Fields that say nothing are not written."""
    optional: dict[str, Any] = {}
    if record.ignored:
        optional["ignored"] = sorted(record.ignored)
    if was:
        optional["was"] = was
    if isinstance(answer, Intent):
        optional["found"] = answer.at or True
    elif answer:
        optional["created"] = True
    return Recorded(key=key, id=record.id, spec=record.spec, frozen=record.frozen, **optional)


def merge(base: Lockfile, result: Lockfile, current: Lockfile) -> Lockfile:
    """Merge the `result` of a run that began with `base` into the `current` lockfile, key by key.

    The lockfile was replaced during the run.

    If both changed a key and mean the same meter, the run's record wins, because it is later. If they mean
    different meters, the new lockfile wins, as it does for a journal that is older than its lockfile. An id
    has only one key.
    """
    meters = dict(current.meters)
    for key in sorted({*base.meters, *result.meters}):
        before, done, now = (state.meters.get(key) for state in (base, result, current))
        if done == before:
            continue
        same_meter = done is not None and now is not None and done.id == now.id
        if now != before and not same_meter:
            continue
        if done is None:
            meters.pop(key, None)
        # Example: the new lockfile has moved this meter to another key. Then it stays there.
        elif all(key == other or done.id != record.id for other, record in meters.items()):
            frozen = done.frozen or (same_meter and now is not None and now.frozen)
            meters[key] = replace(done, frozen=frozen)
    return replace(current, meters=meters, organization_id=current.organization_id or result.organization_id)
