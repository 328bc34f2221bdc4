"""One run against an organisation: see what is there, plan, carry the plan out, record each effect.

The commands put words to it; the laws are tested on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from polar_iac.api import OnPage, PolarClient
from polar_iac.environment import confirm_organization, pinned_organization
from polar_iac.executor import execute
from polar_iac.journal import Journal
from polar_iac.lockfile import Lockfile
from polar_iac.manifest import Manifest
from polar_iac.meter import LiveMeter, Record
from polar_iac.plan import Event, Plan
from polar_iac.planner import make_plan
from polar_iac.recovery import list_with, observe
from polar_iac.waiting import Clock, Stop

Confirm = Callable[[Sequence[LiveMeter]], str | None]


def look(
    manifest: Manifest,
    recorded: Lockfile,
    records: Mapping[str, Record],
    client: PolarClient,
    *,
    patience: float,
    clock: Clock,
    on_page: OnPage,
) -> tuple[list[LiveMeter], str | None]:
    """What Polar has, and whose it is; only read.

    `records` is the lockfile with what a journal tells besides; `patience` are the seconds for which meters
    that it records are waited for. Raises RefusedError when the token is another organisation's.
    """
    confirm = _confirm(manifest, recorded)
    awaited = [record.id for record in records.values()]
    live = list_with(awaited, client, confirm, patience, clock, on_page)
    return live, confirm(live)


@dataclass(frozen=True)
class Run:
    """An apply. `recorded` is the lockfile at `path` as it stood when the run began; `patience` are the
    seconds for which it looks for what Polar may not show yet."""

    manifest: Manifest
    recorded: Lockfile
    path: Path
    client: PolarClient
    journal: Journal
    patience: float
    clock: Clock

    def refresh(self) -> tuple[list[LiveMeter], list[Event]]:
        """Finish the story that an earlier run left, and see what is live now, for `plan`.

        Raises RefusedError when the token is another organisation's.
        """
        return observe(
            self.manifest.project,
            self.recorded.meters,
            self.manifest.specs,
            self.client,
            self.journal,
            _confirm(self.manifest, self.recorded),
            self.patience,
            self.clock,
        )

    def plan(
        self, live: Sequence[LiveMeter], *, targets: Collection[str] = (), allow_archive: bool = False
    ) -> Plan:
        return make_plan(
            self.manifest,
            self.journal.meters,
            live,
            environment=self.recorded.environment,
            organization_id=_confirm(self.manifest, self.recorded)(live),
            targets=targets,
            allow_archive=allow_archive,
        )

    def carry_out(
        self, plan: Plan, live: Sequence[LiveMeter], *, stop: Stop, parallelism: int = 4
    ) -> Iterator[Event]:
        """Do what the plan says, and write the lockfile; yields and raises what `execute` does."""
        if plan.organization_id and self.journal.organization_id != plan.organization_id:
            self.journal.learn_organization(plan.organization_id)
        yield from execute(
            plan,
            self.manifest,
            live,
            self.client,
            self.journal,
            at_start=self.recorded.meters,
            stop=stop,
            parallelism=parallelism,
            lookup_timeout=self.patience,
            clock=self.clock,
        )
        self.journal.finish(self.path)


def _confirm(manifest: Manifest, recorded: Lockfile) -> Confirm:
    pinned = pinned_organization(manifest, recorded)
    return partial(confirm_organization, pinned, environment=recorded.environment)
