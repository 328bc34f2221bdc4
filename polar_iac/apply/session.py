"""One run against an organization: read the live meters, plan, carry out the plan, and record each effect.

The commands add the output; the invariants are tested on this module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from polar_iac.apply.duplicates import others_may_settle
from polar_iac.apply.events import Event
from polar_iac.apply.executor import Limits, execute
from polar_iac.apply.resume import found_creates, list_with, may_still_show
from polar_iac.clock import Clock, Stop
from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import NOTHING_MADE, LiveMeter, Made
from polar_iac.meter.record import Record
from polar_iac.plan.decide import make_plan
from polar_iac.plan.model import Plan
from polar_iac.polar.client import OnPage, PolarClient
from polar_iac.polar.environments import confirm_by_listing, confirm_organization, pinned_organization
from polar_iac.state.journal import Journal
from polar_iac.state.journal_state import Intent
from polar_iac.state.lockfile import Lockfile


class State(Protocol):
    """State of a lockfile and its journal: a read-only `Story`, or an open `Journal`."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    @property
    def unresolved(self) -> Mapping[str, Sequence[Intent]]: ...
    @property
    def created(self) -> Mapping[str, str]: ...
    def made(self, live: Iterable[LiveMeter], answered: Collection[Intent] = ()) -> Made: ...


@dataclass(frozen=True)
class Observed:
    """Live meters of an organization. `confirmed`: the token is known to belong to the pinned one."""

    live: Sequence[LiveMeter]
    organization_id: str | None
    confirmed: bool


def read_live(
    manifest: Manifest,
    recorded: Lockfile,
    state: State,
    client: PolarClient,
    *,
    limits: Limits,
    clock: Clock,
    on_page: OnPage = lambda _done, _of: None,
) -> Observed:
    """Read every meter, and find out which organization they belong to.

    Waits up to `lookup_timeout` seconds for what a replica may not show yet: recorded meters, recently lost
    creates, and duplicates that another run is about to settle. Raises RefusedError when the token belongs to
    another organization.
    """
    pinned = pinned_organization(manifest, recorded)
    confirm = partial(confirm_organization, pinned, environment=recorded.environment)
    awaited = {record.id for record in state.meters.values()} | set(state.created)

    def settled(live: Sequence[LiveMeter]) -> bool:
        lately = may_still_show(state, client.now(), limits.resend_after + limits.lookup_timeout)
        return lately <= found_creates(live, state).keys() and not others_may_settle(
            live, manifest.project, state
        )

    live = list_with(awaited, client, confirm, limits.lookup_timeout, clock, on_page, settled)
    organization_id = confirm(live)
    listed = not live and pinned is not None and confirm_by_listing(client, pinned, recorded.environment)
    return Observed(live, organization_id, bool(live) or listed)


def plan_for(
    manifest: Manifest,
    recorded: Lockfile,
    state: State,
    observed: Observed | None,
    *,
    lockfile: Path,
    targets: Collection[str] = (),
    allow_archive: bool = False,
) -> Plan:
    """Plan from what was observed. None plans against the lockfile alone."""
    found = found_creates(observed.live, state) if observed else {}
    answered = [answer for _, answer in found.values() if isinstance(answer, Intent)]
    return make_plan(
        manifest,
        {**state.meters, **{key: record for key, (record, _) in found.items()}},
        observed.live if observed else None,
        environment=recorded.environment,
        organization_id=observed.organization_id if observed else pinned_organization(manifest, recorded),
        made=state.made(observed.live, answered) if observed else NOTHING_MADE,
        targets=targets,
        allow_archive=allow_archive,
        lockfile=str(lockfile),
    )


@dataclass(frozen=True)
class Session:
    """An apply. `recorded` is the lockfile at `path` at the start of the run."""

    manifest: Manifest
    recorded: Lockfile
    path: Path
    client: PolarClient
    journal: Journal
    limits: Limits
    clock: Clock

    def read_live(self) -> Observed:
        """Read the live meters, and record in the journal what earlier creates without an answer made.

        Changes nothing in Polar. Raises RefusedError when the token belongs to another organization.
        """
        observed = read_live(
            self.manifest,
            self.recorded,
            self.journal,
            self.client,
            limits=self.limits,
            clock=self.clock,
        )
        for key, (record, answer) in found_creates(observed.live, self.journal).items():
            self.journal.record(key, record, answer=answer)
        return observed

    def plan(self, observed: Observed, *, targets: Collection[str] = (), allow_archive: bool = False) -> Plan:
        return plan_for(
            self.manifest,
            self.recorded,
            self.journal,
            observed,
            lockfile=self.path,
            targets=targets,
            allow_archive=allow_archive,
        )

    def carry_out(self, plan: Plan, observed: Observed, *, stop: Stop) -> Iterator[Event]:
        """Carry out the plan and write the lockfile. Yields and raises the same as `execute`."""
        if plan.organization_id and self.journal.organization_id != plan.organization_id:
            self.journal.learn_organization(plan.organization_id)
        yield from execute(
            plan,
            self.manifest,
            observed.live,
            self.client,
            self.journal,
            at_start=self.recorded.meters,
            stop=stop,
            limits=self.limits,
            clock=self.clock,
            organization_confirmed=observed.confirmed,
        )
        self.journal.finish(self.path, self.client.now())
