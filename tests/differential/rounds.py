"""An apply, and everything around it that it is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tests.differential.truth import Json, Meter, Meters, normal, read_lockfile
from tests.differential.world import marker_of

FREEZABLE = ("filter", "aggregation")


@dataclass(frozen=True)
class Flag:
    """A violation of a rule."""

    kind: str
    detail: str


@dataclass(frozen=True, repr=False)
class Write:
    """A POST or a PATCH that the command sent; `id` is empty for a POST."""

    method: str
    id: str
    body: Json

    def __str__(self) -> str:
        return f"{self.method} {self.id} {json.dumps(self.body)}"

    __repr__ = __str__


@dataclass(frozen=True)
class Moment:
    """Everything as it is at one time."""

    meters: Meters
    lockfile: str | None
    journal: str

    @cached_property
    def records(self) -> dict[str, Json]:
        return read_lockfile(self.lockfile)

    @cached_property
    def entries(self) -> list[Json]:
        """The journal's; what a kill cut off at its end never happened."""
        return [json.loads(line) for line in self.journal.split("\n")[:-1]]

    @cached_property
    def lockfile_is_complete(self) -> bool:
        """True if the lockfile holds all that the journal knows.

        A create without an answer stays in the journal for a day, even after its key is recorded.
        """
        return all(
            entry["effect"] == "begin" or (entry["effect"] == "create" and entry["key"] in self.records)
            for entry in self.entries
        )

    def may_have_made(self, meter: Meter) -> bool:
        """True if an unanswered create in the journal would have made just this meter. A duplicate of another
        run looks the same.
        """
        creates = [entry for entry in self.entries if entry["effect"] == "create"]
        return any(
            (create["marker"], normal(create["spec"])) == (meter.marker, normal(meter.document))
            and create["at"] <= meter.document["created_at"]
            for create in creates
        )

    def remembers(self, meter_id: str) -> bool:
        """True if the lockfile or the journal holds the id."""
        return meter_id in (self.lockfile or "") + self.journal


@dataclass(frozen=True)
class Round:
    """One apply: the plan taken just before it with the same options, and what came of it.

    `permitted`: neither the plan nor the options of the apply refuse the whole. `calm`: it met no fault, was
    not killed, and nothing was left of a run that was. `complete`: it was calm, or says that all is done.
    `made` are the ids of all meters that the command ever created, `let_go_before` those that the plans of
    runs let go of which were disturbed and may have got as far as that, `imports` those that `import` names.
    """

    declared: Mapping[str, Json]
    plan: Json
    targets: Sequence[str]
    allow_archive: bool
    permitted: bool
    calm: bool
    complete: bool
    before: Moment
    after: Moment
    sent: Sequence[Write]
    code: int
    made: frozenset[str]
    let_go_before: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()

    @cached_property
    def changes(self) -> list[Json]:
        """The changes that an apply carries out."""
        return [change for change in self.plan["changes"] if change["action"] != "blocked"]

    @cached_property
    def blocked(self) -> dict[str, Json]:
        return {c["key"]: c for c in self.plan["changes"] if c["action"] == "blocked"}

    @cached_property
    def by_id(self) -> dict[str, Json]:
        return {change["id"]: change for change in self.changes if change["id"]}

    @cached_property
    def creates(self) -> dict[str, Json]:
        return {marker_of(c["key"]): c for c in self.changes if c["action"] == "create"}

    @cached_property
    def new(self) -> set[str]:
        """The ids of the meters that came during the apply."""
        return self.after.meters.keys() - self.before.meters.keys()

    @cached_property
    def refused(self) -> set[str]:
        """The keys whose change Polar refuses, since the meter is frozen."""
        return {
            change["key"]
            for change in self.changes
            if change["id"] and self.before.meters[change["id"]].frozen
            if any(field["path"] in FREEZABLE for field in change["fields"])
        }

    @property
    def lets_go(self) -> set[str]:
        """The ids that the lockfile need not hold any longer."""
        forgotten = {entry["id"] for entry in self.plan["bookkeeping"] if entry["action"] == "forget"}
        return forgotten | {c["id"] for c in self.changes if c["action"] in ("archive", "settle", "release")}

    def is_ours(self, meter: Meter) -> bool:
        """True if the command made the meter, or may have made it for all that it knows."""
        return meter.id in self.made or self.before.may_have_made(meter)

    def concerns(self, key: str) -> bool:
        return not self.targets or key in self.targets


def brief(change: Json) -> str:
    """A change in one line."""
    fields = [field["path"] for field in change["fields"]]
    return f"{change['action']} {change['key']} {change['id']} {fields} {change['marker'] or ''}".rstrip()
