"""Sessions with Polar, from the options of a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from polar_iac.apply.executor import Limits
from polar_iac.apply.session import Session, plan_for, read_live
from polar_iac.cli.inputs import Inputs, Selection
from polar_iac.cli.options import Connection
from polar_iac.cli.terminal import Progress
from polar_iac.clock import Clock
from polar_iac.plan.model import Plan
from polar_iac.polar.client import PolarClient
from polar_iac.polar.environments import connect, pinned_organization
from polar_iac.state import journal


def plan_once(
    inputs: Inputs,
    selection: Selection,
    connection: Connection | None,
    clock: Clock,
    progress: Progress,
) -> Plan:
    """Plan, and write nothing, neither to Polar nor to disk. None plans against the lockfile alone."""
    state = journal.read(journal.path_for(inputs.lockfile_path), inputs.lockfile)
    observed = None
    if connection is not None:
        with _connect(inputs, connection, clock, progress) as client:
            observed = read_live(
                inputs.manifest,
                inputs.lockfile,
                state,
                client,
                limits=Limits(lookup_timeout=connection.lookup_timeout),
                clock=clock,
                on_page=progress.reach,
            )
    return plan_for(
        inputs.manifest,
        inputs.lockfile,
        state,
        observed,
        lockfile=inputs.lockfile_path,
        targets=selection.targets,
        allow_archive=selection.allow_archive,
    )


@contextmanager
def open_session(
    inputs: Inputs,
    connection: Connection,
    *,
    parallelism: int,
    resend_after: float,
    clock: Clock,
    progress: Progress,
) -> Iterator[Session]:
    """Open the client and the journal of an apply."""
    path, recorded = inputs.lockfile_path, inputs.lockfile
    with (
        _connect(inputs, connection, clock, progress) as client,
        journal.Journal(journal.path_for(path), recorded) as opened,
    ):
        limits = Limits(parallelism, connection.lookup_timeout, resend_after)
        yield Session(inputs.manifest, recorded, path, client, opened, limits, clock)


def _connect(
    inputs: Inputs, connection: Connection, clock: Clock, progress: Progress
) -> AbstractContextManager[PolarClient]:
    return connect(
        inputs.lockfile.environment,
        os.environ,
        pinned_organization(inputs.manifest, inputs.lockfile),
        inputs.lockfile_path,
        clock=clock,
        on_wait=progress.wait,
        on_retry=progress.retry,
        timeout=connection.timeout,
        allow_http=connection.allow_http,
    )
