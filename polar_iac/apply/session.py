"""One session with an organization: read the live meters, plan, carry out the plan, record each effect.

`plan` uses a `Session`, which changes nothing. `apply` uses an `ApplySession`, over an open journal. The
commands add the output; the invariants are tested on this module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from polar_iac.apply.duplicates import others_may_settle
from polar_iac.apply.events import Event, stamped
from polar_iac.apply.executor import execute
from polar_iac.apply.jobs import Limits
from polar_iac.apply.live import read_live
from polar_iac.apply.resume import found_creates, may_still_show
from polar_iac.clock import Clock, Stop, SystemClock
from polar_iac.errors import RefusedError
from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import NOTHING_MADE, LiveMeter, Made
from polar_iac.meter.record import Record
from polar_iac.plan.decide import make_plan
from polar_iac.plan.model import Plan
from polar_iac.polar.organization import confirm_by_listing, confirm_organization
from polar_iac.state.journal import Journal
from polar_iac.state.journal_state import Intent
from polar_iac.state.lockfile import Lockfile

if TYPE_CHECKING:
    from polar_iac.polar.client import OnPage, PolarClient


def pinned_organization(manifest: Manifest, lockfile: Lockfile) -> str | None:
    """Return the organization that the manifest or an earlier apply names.

    Raises RefusedError when they name different ones.
    """
    declared = manifest.organizations.get(lockfile.environment)
    if declared and lockfile.organization_id and declared != lockfile.organization_id:
        raise RefusedError(
            f"the manifest pins organization {declared} for {lockfile.environment}, but the lockfile is of "
            f"{lockfile.organization_id}: correct `environments.{lockfile.environment}.organization_id`, or "
            "use another lockfile"
        )
    return declared or lockfile.organization_id


def check_not_shared(organization_id: str | None, environment: str, others: Mapping[str, str]) -> None:
    """Raise RefusedError when another environment has the organization: both would manage the same meters.

    `others` holds the organizations of other environments, as far as they are known, with their names.
    """
    if organization_id and (other := others.get(organization_id)):
        raise RefusedError(
            f"the token belongs to organization {organization_id}, which is that of {other}: each "
            f"environment has an organization of its own. Use a token of the one that {environment} means"
        )


class State(Protocol):
    """State of a lockfile and its journal: a read-only `JournalState`, or an open `Journal`."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    @property
    def unresolved(self) -> Mapping[str, Sequence[Intent]]: ...
    @property
    def created(self) -> Mapping[str, str]: ...
    def made(self, live: Iterable[LiveMeter], answered: Collection[Intent] = ()) -> Made: ...


@dataclass(frozen=True)
class LiveMeters:
    """Live meters of an organization.

    `organization_confirmed` means that the token is known to belong to the pinned organization.
    """

    meters: Sequence[LiveMeter]
    organization_id: str | None
    organization_confirmed: bool


@dataclass(frozen=True)
class Session:
    """Inputs of a plan. `lockfile` is the content of the file at `path` when the session began.

    `targets` and `allow_archive` are those of `make_plan`. `others` are those of `check_not_shared`.
    """

    manifest: Manifest
    lockfile: Lockfile
    path: Path
    state: State
    targets: Collection[str] = ()
    allow_archive: bool = False
    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=SystemClock)
    others: Mapping[str, str] = field(default_factory=dict)

    def read_live(self, client: PolarClient, on_page: OnPage = lambda _done, _of: None) -> LiveMeters:
        """Read every meter, and find out which organization they belong to. Changes nothing in Polar.

        Waits up to `lookup_timeout` seconds for what a replica may not show yet: recorded meters, recently
        lost creates, and duplicates that another run is about to settle. Raises RefusedError when the token
        belongs to another organization.
        """
        environment, pinned = self.lockfile.environment, pinned_organization(self.manifest, self.lockfile)

        def is_settled(meters: Sequence[LiveMeter]) -> bool:
            check_not_shared(confirm_organization(pinned, meters, environment), environment, self.others)
            seconds = self.limits.resend_after + self.limits.lookup_timeout
            recent = may_still_show(self.state, client.now(), seconds)
            return recent <= found_creates(meters, self.state).keys() and not others_may_settle(
                meters, self.manifest.project, self.state
            )

        awaited = {record.id for record in self.state.meters.values()} | set(self.state.created)
        meters = read_live(
            client, awaited, self.limits.lookup_timeout, self.clock, is_settled=is_settled, on_page=on_page
        )
        organization_id = confirm_organization(pinned, meters, environment)
        # Without a meter, only the list of organizations can confirm it, and the token may not see that.
        confirmed = bool(meters) or (pinned is not None and confirm_by_listing(client, pinned, environment))
        return LiveMeters(meters, organization_id, confirmed)

    def plan(self, live: LiveMeters | None) -> Plan:
        """Plan from the live meters. None plans against the lockfile alone."""
        creates = found_creates(live.meters, self.state) if live else {}
        answered = [answer for _, answer in creates.values() if answer]
        pinned = pinned_organization(self.manifest, self.lockfile)
        return make_plan(
            self.manifest,
            {**self.state.meters, **{key: record for key, (record, _) in creates.items()}},
            live.meters if live else None,
            environment=self.lockfile.environment,
            organization_id=live.organization_id if live else pinned,
            made=self.state.made(live.meters, answered) if live else NOTHING_MADE,
            targets=self.targets,
            allow_archive=self.allow_archive,
            lockfile=str(self.path),
        )


@dataclass(frozen=True)
class ApplySession(Session):
    """Session that can carry out its plan. Whatever it learns is recorded in the journal."""

    state: Journal

    def read_live(self, client: PolarClient, on_page: OnPage = lambda _done, _of: None) -> LiveMeters:
        """Read every meter, and record what earlier creates without an answer made."""
        live = super().read_live(client, on_page)
        for key, (record, answer) in found_creates(live.meters, self.state).items():
            self.state.record(key, record, answer=answer)
        return live

    def execute(self, plan: Plan, live: LiveMeters, client: PolarClient, *, stop: Stop) -> Iterator[Event]:
        """Carry out the plan and write the lockfile. Yields and raises the same as `executor.execute`."""
        if plan.organization_id and self.state.organization_id != plan.organization_id:
            self.state.learn_organization(plan.organization_id)
        events = execute(
            plan,
            self.manifest.in_environment(plan.environment),
            live.meters,
            client,
            self.state,
            at_start=self.lockfile.meters,
            stop=stop,
            limits=self.limits,
            clock=self.clock,
            organization_confirmed=live.organization_confirmed,
        )
        yield from map(stamped, events)
        self.state.finish(self.path, client.now())
