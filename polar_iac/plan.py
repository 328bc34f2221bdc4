"""A plan: a value that says what would change and why, with nothing executable in it; and what came of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.meter import Impact, MeterSpec, canonical_json

Action = Literal["create", "update", "archive", "unarchive", "blocked"]
Housekeeping = Literal["adopt", "forget", "moved", "marker", "refresh"]
Origin = Literal["manifest", "outside", "both"]
Freeze = Literal["unknown", "open", "frozen"]
Cause = Literal["twins", "unknown-id", "foreign", "frozen", "unlisted", "metadata-limit"]

UNKNOWN_HERE = (
    "likely the wrong organisation, environment or token: Polar deletes no meters, so an id in the lockfile "
    "always exists in its own organisation"
)

ACTIONS: tuple[Action, ...] = ("create", "update", "archive", "unarchive", "blocked")


@dataclass(frozen=True)
class FieldChange:
    """One field that would differ: `path` is a field's name, or `metadata.KEY`.

    `before` and `after` are canonical values; None stands for absent. `origin` says who moved the two apart
    since the last apply: the manifest, someone outside, or both.
    """

    path: str
    before: Any
    after: Any
    impact: Impact
    origin: Origin
    source: SourceSpan | None


@dataclass(frozen=True)
class Evidence:
    """A fact about a change that a reviewer should know, and where it comes from (`as_of`: RFC 3339)."""

    kind: str
    severity: Literal["info", "warning"]
    text: str
    source: str
    as_of: str | None = None


@dataclass(frozen=True)
class Change:
    """What would happen to one meter. `before` is the live spec, `after` the whole spec afterwards.

    `cause` and `reason` say why a blocked change is blocked and what to do.
    """

    key: str
    action: Action
    id: str | None
    name: str
    before: MeterSpec | None
    after: MeterSpec | None
    digest: str
    fields: tuple[FieldChange, ...] = ()
    source: SourceSpan | None = None
    reason: str | None = None
    cause: Cause | None = None
    freeze: Freeze = "unknown"
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Bookkeeping:
    """What only the lockfile or the ownership marker is told. `was` is the former key of a moved meter."""

    key: str
    action: Housekeeping
    id: str
    was: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Why an apply would be refused as a whole, before any effect, and the keys that it is about."""

    cause: Literal["unknown-id", "unlisted"]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Changes and bookkeeping, each in the order of their keys.

    `refreshed` is False for a plan against the lockfile alone. `refusal` says why an apply of this plan
    would be refused as a whole before any effect. `targets` (empty: every key) and `allow_archive` are what
    it was asked with, so that an apply of it can ask the same.
    """

    environment: str
    organization_id: str | None
    project: str
    refreshed: bool
    changes: tuple[Change, ...]
    bookkeeping: tuple[Bookkeeping, ...]
    unchanged: int
    refusal: Refusal | None = None
    targets: tuple[str, ...] = ()
    allow_archive: bool = False

    @property
    def summary(self) -> Mapping[str, int]:
        counts = Counter[str](change.action for change in self.changes)
        return {**{action: counts[action] for action in ACTIONS}, "unchanged": self.unchanged}

    @property
    def digest(self) -> str:
        """SHA-256 of the compact JSON list of the changes' digests, sorted; bookkeeping is in no digest."""
        return _sha256([*sorted(change.digest for change in self.changes)])


def renames(changes: Sequence[Change]) -> Mapping[str, str]:
    """Keys that went from the manifest while their meters are active, each with a new key that bills by the
    same filter and aggregation: likely the same meter, renamed."""
    new: dict[str, str] = {}
    for change in changes:
        if change.action == "create" and change.after:
            new.setdefault(change.after.billing, change.key)
    gone = [c for c in changes if c.source is None and c.before and not c.before.archived]
    return {c.key: new[c.before.billing] for c in gone if c.before and c.before.billing in new}


def change_digest(
    environment: str,
    organization_id: str | None,
    key: str,
    action: Action,
    meter_id: str | None,
    before: MeterSpec | None,
    after: MeterSpec | None,
) -> str:
    """SHA-256 of what a change does, and of nothing else: no positions, no prose, no versions."""
    return _sha256(
        {
            "environment": environment,
            "organization_id": organization_id,
            "key": key,
            "action": action,
            "id": meter_id,
            "before": before and before.canonical,
            "after": after and after.canonical,
        }
    )


def _sha256(value: Any) -> str:
    # A name may hold a lone surrogate if Polar ever lets one through: a digest must not fail on it.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Done:
    """The meter is as its change or bookkeeping says, and recorded."""

    key: str
    action: str
    id: str


@dataclass(frozen=True)
class Failed:
    """The meter could not be changed; `diagnostics` point at the manifest where Polar named fields."""

    key: str
    action: str
    message: str
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True)
class Left:
    """The meter was not touched: its change is blocked, or the run stopped before it."""

    key: str
    action: str
    reason: str


@dataclass(frozen=True)
class Unsure:
    """Something about the run as a whole that is not known; everything that is known is recorded."""

    message: str


Event = Done | Failed | Left | Unsure


@dataclass(frozen=True)
class Difference:
    """A change that came since a plan was reviewed, went, or became another."""

    key: str
    reviewed: Change | None
    fresh: Change | None


def differences(reviewed: Plan, fresh: Plan) -> tuple[Difference, ...]:
    """What makes a reviewed plan stale, by key; empty when the two do the same."""
    then = {change.key: change for change in reviewed.changes}
    now = {change.key: change for change in fresh.changes}
    return tuple(
        Difference(key, then.get(key), now.get(key))
        for key in sorted({*then, *now})
        if key not in then or key not in now or then[key].digest != now[key].digest
    )
