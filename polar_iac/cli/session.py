"""Sessions with Polar, from the options of a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from polar_iac.apply.jobs import Limits
from polar_iac.apply.session import ApplySession, LiveMeters, Session, pinned_organization
from polar_iac.cli import options
from polar_iac.cli.inputs import Inputs, Selection
from polar_iac.cli.options import Connection
from polar_iac.cli.terminal import Progress
from polar_iac.clock import Clock
from polar_iac.errors import RefusedError
from polar_iac.files import state_directory, state_path
from polar_iac.plan.drift import Drift, find_drift
from polar_iac.plan.model import Plan
from polar_iac.state import journal

if TYPE_CHECKING:
    from polar_iac.polar.client import PolarClient


def plan_once(
    inputs: Inputs,
    selection: Selection,
    connection: Connection | None,
    facts: options.Facts,
    clock: Clock,
    progress: Progress,
) -> Plan:
    """Plan, and write nothing, neither to Polar nor to disk. None plans against the lockfile alone."""
    session = _reading_session(inputs, selection, connection, clock)
    if connection is None:
        return session.plan(None)
    with _connect(inputs, connection, clock, progress) as client:
        plan = session.plan(session.read_live(client, progress.reach))
        if not plan.changes:
            return plan
        # Here, so that a plan without changes does not wait for it.
        from polar_iac.cli.facts import FactsSource

        return FactsSource(inputs, connection, facts, client, clock).planned(plan)


def drift_once(
    inputs: Inputs, selection: Selection, connection: Connection, clock: Clock, progress: Progress
) -> Drift:
    """Find the drift of one environment, and write nothing, neither to Polar nor to disk."""
    with open_reader(inputs, selection, connection, clock, progress) as (session, live, _):
        return drift_of(inputs, session, live)


def drift_of(inputs: Inputs, session: Session, live: LiveMeters) -> Drift:
    """Return the drift of meters that are read already."""
    recorded, environment = session.state.meters, inputs.lockfile.environment
    made = session.state.made(live.meters)
    manifest = inputs.manifest.in_environment(environment)
    meters = find_drift(manifest, recorded, live.meters, environment=environment, made=made)
    return Drift(
        environment,
        live.organization_id,
        inputs.manifest.project,
        meters,
        compared=len(recorded),
        manifest=inputs.manifest.file,
        lockfile=str(inputs.lockfile_path),
    )


def _reading_session(
    inputs: Inputs, selection: Selection, connection: Connection | None, clock: Clock
) -> Session:
    """Return a session that only reads: its journal is read, and not opened."""
    path, lockfile = inputs.lockfile_path, inputs.lockfile
    return Session(
        inputs.manifest,
        lockfile,
        path,
        journal.read(journal.path_for(path), lockfile),
        selection.targets,
        selection.allow_archive,
        Limits(lookup_timeout=connection.lookup_timeout) if connection else Limits(),
        clock,
        inputs.others,
    )


@contextmanager
def open_reader(
    inputs: Inputs, selection: Selection, connection: Connection, clock: Clock, progress: Progress
) -> Iterator[tuple[Session, LiveMeters, PolarClient]]:
    """Open the client of a command that only reads, and read every meter."""
    session = _reading_session(inputs, selection, connection, clock)
    with _connect(inputs, connection, clock, progress) as client:
        yield session, session.read_live(client, progress.reach), client


@contextmanager
def open_session(
    inputs: Inputs,
    selection: Selection,
    connection: Connection,
    *,
    parallelism: int,
    resend_after: float,
    clock: Clock,
    progress: Progress,
) -> Iterator[tuple[ApplySession, PolarClient]]:
    """Open the client and the journal of an apply."""
    path, lockfile = inputs.lockfile_path, inputs.lockfile
    with (
        _connect(inputs, connection, clock, progress) as client,
        journal.Journal(journal.path_for(path), lockfile) as state,
    ):
        limits = Limits(parallelism, connection.lookup_timeout, resend_after)
        session = ApplySession(
            inputs.manifest,
            lockfile,
            path,
            state,
            selection.targets,
            selection.allow_archive,
            limits,
            clock,
            inputs.others,
        )
        yield session, client


def _connect(
    inputs: Inputs, connection: Connection, clock: Clock, progress: Progress
) -> AbstractContextManager[PolarClient]:
    # Here, so that an offline plan does not wait for the HTTP client.
    from polar_iac.polar.environments import LOCAL_DATABASE, connect

    if inputs.lockfile.environment == "local":
        _check_database(inputs, state_path(inputs.lockfile_path) / LOCAL_DATABASE)
    return connect(
        inputs.lockfile.environment,
        inputs.manifest.server(inputs.lockfile.environment),
        os.environ,
        pinned_organization(inputs.manifest, inputs.lockfile),
        lambda: state_directory(inputs.lockfile_path),
        clock=clock,
        on_wait=progress.wait,
        on_retry=progress.retry,
        timeout=connection.timeout,
        allow_http=connection.allow_http,
    )


def _check_database(inputs: Inputs, database: Path) -> None:
    """Raise RefusedError when the lockfile of `local` records meters, and their database is gone."""
    if inputs.lockfile.meters and not database.exists():
        raise RefusedError(
            f"the database of `local` is missing ({database}), and with it the meters that "
            f"{inputs.lockfile_path} records: remove that file to begin anew, or restore the database"
        )
