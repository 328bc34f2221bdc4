"""A directory with a lockfile, and the steps of the command without its words, in this process."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import httpx

from polar_iac.apply.events import Event
from polar_iac.apply.jobs import Limits
from polar_iac.apply.session import ApplySession, Session
from polar_iac.clock import Stop, SystemClock
from polar_iac.files import state_directory
from polar_iac.manifest.model import Manifest
from polar_iac.plan.model import Plan
from polar_iac.polar.client import PolarClient
from polar_iac.polar.retry import RetryPolicy
from polar_iac.state import journal, lockfile
from polar_iac.state.journal import Journal, path_for
from polar_iac.state.lockfile import Lockfile
from tests.support.build import PROJECT

PLANNING = threading.Lock()
"""Tests run several checkouts in threads of one process, where Python 3.11 may fail to parse for deepdiff."""


class _Wire(httpx.HTTPTransport):
    """The way to Polar, which notes what goes over it."""

    def __init__(self) -> None:
        super().__init__(verify=False)  # Polar is on this machine, without TLS
        self.methods: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.methods.append(request.method)
        return super().handle_request(request)


class Checkout:
    """A checkout on one machine, as the command sees it. Archiving unlisted meters is allowed."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        timeout: float = 30.0,
        retry_wait: float = 0.001,
        lookup_timeout: float = 0.0,
        resend_after: float = 0.0,
    ) -> None:
        self.clock = SystemClock()
        self.wire = _Wire()
        self.client = PolarClient(
            url,
            "polar_oat_test",
            transport=self.wire,
            timeout=timeout,
            retry=RetryPolicy(first_wait=retry_wait),
            clock=self.clock,
        )
        self.limits = Limits(lookup_timeout=lookup_timeout, resend_after=resend_after)
        self.lockfile = directory / "meters.sandbox.lock.json"
        self.journal = path_for(self.lockfile)
        state_directory(self.lockfile)

    def recorded(self) -> Lockfile:
        return lockfile.read(self.lockfile, "sandbox", PROJECT)

    def plan(self, manifest: Manifest) -> Plan:
        """Plan as `plan --allow-archive` does. It sends GETs only."""
        sent_before = len(self.wire.methods)
        recorded = self.recorded()
        state = journal.read(self.journal, recorded)
        session = Session(
            manifest,
            recorded,
            self.lockfile,
            state,
            allow_archive=True,
            limits=self.limits,
            clock=self.clock,
        )
        live = session.read_live(self.client)
        assert set(self.wire.methods[sent_before:]) == {"GET"}
        with PLANNING:
            return session.plan(live)

    def apply(self, manifest: Manifest, parallelism: int = 4, *, stop: Stop | None = None) -> list[Event]:
        """Everything that `apply` does but for locking, asking and printing."""
        recorded = self.recorded()
        limits = replace(self.limits, parallelism=parallelism)
        with Journal(self.journal, recorded) as open_journal:
            session = ApplySession(
                manifest,
                recorded,
                self.lockfile,
                open_journal,
                allow_archive=True,
                limits=limits,
                clock=self.clock,
            )
            live = session.read_live(self.client)
            with PLANNING:
                plan = session.plan(live)
            return list(session.execute(plan, live, self.client, stop=stop or Stop()))
