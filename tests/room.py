"""A directory with a lockfile, and the steps of the command without its words, in this process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from polar_iac import lockfile
from polar_iac.api import PolarClient
from polar_iac.executor import execute
from polar_iac.journal import Journal, path_for
from polar_iac.lockfile import Lockfile
from polar_iac.manifest import Manifest
from polar_iac.meter import LiveMeter
from polar_iac.plan import Event, Plan
from polar_iac.planner import make_plan
from polar_iac.recovery import list_with, observe
from polar_iac.waiting import Stop, SystemClock
from tests.build import PROJECT


class Room:
    """What a checkout on one machine is to the command. Archiving unlisted meters is allowed."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        timeout: float = 30.0,
        retry_wait: float = 0.001,
        patience: float = 0.0,
    ) -> None:
        self.clock = SystemClock()
        self.client = PolarClient(
            url, "polar_oat_test", timeout=timeout, retry_wait=retry_wait, clock=self.clock
        )
        self.patience = patience
        self.lockfile = directory / "meters.sandbox.lock.json"
        self.journal = path_for(self.lockfile)
        lockfile.state_directory(self.lockfile)

    def recorded(self) -> Lockfile:
        return lockfile.read(self.lockfile, "sandbox", PROJECT)

    def make_plan(self, manifest: Manifest, recorded: Lockfile, live: Iterable[LiveMeter]) -> Plan:
        return make_plan(
            manifest,
            recorded.meters,
            list(live),
            environment="sandbox",
            organization_id=recorded.organization_id,
            allow_archive=True,
        )

    def plan(self, manifest: Manifest) -> Plan:
        recorded = self.recorded()
        awaited = [record.id for record in recorded.meters.values()]
        return self.make_plan(
            manifest, recorded, list_with(awaited, self.client, lambda _: None, self.patience, self.clock)
        )

    def apply(self, manifest: Manifest, parallelism: int = 4) -> list[Event]:
        """Everything that `apply` does but for locking, asking and printing."""
        recorded = self.recorded()
        with Journal(self.journal, recorded) as journal:
            declared = {key: meter.spec for key, meter in manifest.meters.items()}
            live, events = observe(
                PROJECT,
                recorded.meters,
                declared,
                self.client,
                journal,
                lambda _: None,
                self.patience,
                self.clock,
            )
            made = self.make_plan(manifest, journal.state, live)
            events += execute(
                made,
                manifest,
                live,
                self.client,
                journal,
                at_start=recorded.meters,
                stop=Stop(),
                parallelism=parallelism,
                lookup_timeout=self.patience,
                clock=self.clock,
            )
            journal.finish(self.lockfile)
        return events
