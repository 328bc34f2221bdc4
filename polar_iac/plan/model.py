"""Plan as a value: changes with reasons, source positions and digests."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from polar_iac.errors import SourceSpan
from polar_iac.facts.model import Gap
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import Impact
from polar_iac.meter.spec import MeterSpec

Action = Literal["create", "update", "archive", "unarchive", "mark", "settle", "release", "blocked"]
MarkReason = Literal["adopted", "moved", "restored"]
Housekeeping = Literal["adopt", "forget", "moved", "refresh", "marker"]
"""Actions that only affect the lockfile. `marker` occurs only in saved plans of format version 1."""
Origin = Literal["manifest", "outside", "both"]
Freeze = Literal["unknown", "open", "frozen"]
Cause = Literal[
    "mismatch",
    "duplicates",
    "unknown-id",
    "unknown-parts",
    "import",
    "unowned",
    "frozen",
    "unlisted",
    "elsewhere",
    "limits",
    "metadata-limit",
    "attached",
]
"""Reasons that a change is blocked. All but `attached`, which facts tell, are those of the decision table."""
UNKNOWN_HERE = (
    "likely the wrong organization, environment or token: Polar deletes no meters, so an id in the lockfile "
    "always exists in its own organization"
)
UNKNOWN_IMPORT = "it is mistyped, or of another organization or environment"
ACTIONS: tuple[Action, ...] = get_args(Action)
CAUSES: tuple[Cause, ...] = get_args(Cause)


@dataclass(frozen=True)
class FieldChange:
    """One field that would change. `path` is a field name or `metadata.KEY`.

    `before` and `after` are canonical values; None means absent. `origin` says who caused the difference
    since the last apply: the manifest, someone outside, or both.
    """

    path: str
    before: Any
    after: Any
    impact: Impact
    origin: Origin
    source: SourceSpan | None


@dataclass(frozen=True)
class Note:
    """A fact for reviewers, and its source (`as_of`: RFC 3339).

    `data` holds what `text` mentions, mainly ids, for scripts. `key` is the meter's key for a note outside
    the changes; the note of a change has none.
    """

    kind: str
    severity: Literal["info", "warning"]
    text: str
    source: str
    as_of: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True)
class MarkerChange:
    """An ownership marker to write, as `<project>/<key>`. None means no marker."""

    before: str | None
    after: str | None


@dataclass(frozen=True)
class MeterReference:
    """A live meter that the text of a change names."""

    id: str
    name: str
    marker: str | None
    created_at: str
    archived_at: str | None


@dataclass(frozen=True)
class Change:
    """The effect on one meter. `before` is the live spec, `after` the whole spec afterwards.

    `marker` is set when the ownership marker is written. `reason` says why only a marker is written
    (`MarkReason`), or explains why a change is blocked and what to do. `cause` names the latter for scripts,
    and `meters` are the ones that it mentions. A `settle` archives the duplicate `id`; `duplicate_of` is the
    meter that stays.
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
    notes: tuple[Note, ...] = ()
    marker: MarkerChange | None = None
    meters: tuple[MeterReference, ...] = ()
    duplicate_of: str | None = None

    @property
    def order(self) -> tuple[str, bool, str]:
        """Sort key: by key, with the settling of a key's duplicates before the key's own change."""
        return self.key, self.action != "settle", self.id or ""

    @property
    def place(self) -> tuple[str, str]:
        """Identity of the change within a plan: a key has one change, plus one per duplicate to settle."""
        return self.key, (self.id or "") if self.action == "settle" else ""


@dataclass(frozen=True)
class Bookkeeping:
    """An action that only affects the lockfile. `was` is the former key of a moved meter."""

    key: str
    action: Housekeeping
    id: str
    was: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Reason that an apply would be refused as a whole, before any effect, and the keys concerned.

    `unknown-id`: Polar knows no id that the lockfile records, and none that `import` names.
    """

    cause: Literal["unknown-id", "unlisted"]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class MeterTests:
    """The outcome of the tests beside a manifest. `errors` is how many mistakes kept them from being run."""

    passed: int
    failed: int
    errors: int = 0

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.errors


@dataclass(frozen=True)
class Plan:
    """A plan, with changes in `Change.order`, and notes and bookkeeping in key order.

    `refreshed` is False for a plan against the lockfile alone. `notes` are about meters that have no change.
    `refusal` says why an apply of this plan would be refused as a whole before any effect. `targets` (empty:
    every key), `allow_archive`, `manifest`, and `lockfile` (paths as given) are the inputs of the plan, so
    that an apply can use the same. `outdated` is set for a saved plan of an earlier format: it can be shown,
    but never applied.
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
    notes: tuple[Note, ...] = ()
    manifest: str | None = None
    lockfile: str | None = None
    unowned: int = 0
    """Number of active meters that no project owns, in a plan that creates meters or would; else 0."""
    tests: MeterTests | None = None
    """The outcome of the tests of the manifest; None if there are none. It is in no digest."""
    outdated: str | None = None
    """Digest that the plan had in the earlier format."""
    facts_requests: int = 0
    """Number of requests that were sent for facts. What they tell is in the notes, and in no digest."""
    facts_gaps: tuple[Gap, ...] = ()
    """Facts that the plan should have had."""
    on_production: bool = field(default=False, compare=False)
    """The environment is on the production server. Reports show it first; a saved plan does not say it."""

    @property
    def summary(self) -> Mapping[str, int]:
        counts = Counter[str](change.action for change in self.changes)
        return {**{action: counts[action] for action in ACTIONS}, "unchanged": self.unchanged}

    @property
    def wanted(self) -> int:
        """Number of changes that an apply would carry out."""
        return sum(change.action != "blocked" for change in self.changes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's environment and organization and of its changes' digests, sorted.

        Notes and bookkeeping are not included.
        """
        if self.outdated:
            return self.outdated
        return sha256(
            {
                "environment": self.environment,
                "organization_id": self.organization_id,
                "project": self.project,
                "changes": sorted(change.digest for change in self.changes),
            }
        )


SHORT_DIGEST = 32
"""Number of hexadecimal digits that are printed and required. With 12, an author of the manifest can find two
plans with the same digest in minutes."""


def change_digest(
    environment: str,
    organization_id: str | None,
    key: str,
    action: Action,
    meter_id: str | None,
    before: MeterSpec | None,
    after: MeterSpec | None,
    marker: MarkerChange | None,
) -> str:
    """Return the SHA-256 of the effect of a change. Positions, texts, and versions are not included."""
    return sha256(
        {
            "environment": environment,
            "organization_id": organization_id,
            "key": key,
            "action": action,
            "id": meter_id,
            "before": before and before.canonical,
            "after": after and after.canonical,
            "marker": marker and {"before": marker.before, "after": marker.after},
        }
    )


def decided_action(change: Change) -> Action:
    """Return the action that the digest of a change stands for: an archive that facts block keeps its own."""
    return "archive" if change.cause == "attached" else change.action


def sha256(value: Any) -> str:
    """Return the SHA-256 of canonical JSON."""
    # If Polar ever allows a lone surrogate in a name, the digest must not fail.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Difference:
    """A change that appeared, disappeared, or became a different one since the review of a plan."""

    key: str
    reviewed: Change | None
    fresh: Change | None


def differences(reviewed: Plan, fresh: Plan) -> tuple[Difference, ...]:
    """Return what makes a reviewed plan stale, by key. Empty when both plans do the same."""
    then, now = ({change.place: change for change in plan.changes} for plan in (reviewed, fresh))
    return tuple(
        Difference(place[0], then.get(place), now.get(place))
        for place in sorted({*then, *now})
        if place not in then or place not in now or then[place].digest != now[place].digest
    )
