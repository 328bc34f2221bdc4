"""A directory with a lockfile, and the steps of the command without its words, in this process."""

from __future__ import annotations

import threading
from pathlib import Path

from polar_iac import lockfile
from polar_iac.api import PolarClient
from polar_iac.journal import Journal, path_for
from polar_iac.lockfile import Lockfile
from polar_iac.manifest import Manifest
from polar_iac.plan import Event, Plan
from polar_iac.planner import make_plan
from polar_iac.run import Run, look
from polar_iac.waiting import Stop, SystemClock
from tests.build import PROJECT

PLANNING = threading.Lock()
"""Tests run several rooms in threads of one process, where Python 3.11 may fail to parse for deepdiff."""


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

    def plan(self, manifest: Manifest) -> Plan:
        """What `plan --allow-archive` shows."""
        recorded = self.recorded()
        live, organization = look(
            manifest,
            recorded,
            recorded.meters,
            self.client,
            patience=self.patience,
            clock=self.clock,
            on_page=lambda _done, _of: None,
        )
        with PLANNING:
            return make_plan(
                manifest,
                recorded.meters,
                live,
                environment="sandbox",
                organization_id=organization,
                allow_archive=True,
            )

    def apply(self, manifest: Manifest, parallelism: int = 4) -> list[Event]:
        """Everything that `apply` does but for locking, asking and printing."""
        recorded = self.recorded()
        with Journal(self.journal, recorded) as journal:
            run = Run(manifest, recorded, self.lockfile, self.client, journal, self.patience, self.clock)
            live, events = run.refresh()
            with PLANNING:
                plan = run.plan(live, allow_archive=True)
            return [*events, *run.carry_out(plan, live, stop=Stop(), parallelism=parallelism)]
