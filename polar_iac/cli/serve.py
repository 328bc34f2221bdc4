"""The command `serve`."""

from __future__ import annotations

import sys
import threading

import click

from polar_iac.cli.error_boundary import command
from polar_iac.cli.options import Options
from polar_iac.errors import ExitCode
from polar_iac.files import state_directory
from polar_iac.local import LocalPolar, serving
from polar_iac.polar.environments import LOCAL_DATABASE, LOCAL_TOKEN


@command
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8010,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
def serve(common: Options, port: int) -> ExitCode:
    """Serve the embedded Polar on loopback, until interrupted.

    It is the Polar of the environment `local`.
    """
    server = LocalPolar(state_directory(common.file) / LOCAL_DATABASE)
    try:
        with serving(server, port) as base_url:
            click.echo(f"Embedded Polar on {base_url} (stop it with Ctrl-C). For example:")
            click.echo(
                f"  POLAR_BASE_URL={base_url} POLAR_ACCESS_TOKEN={LOCAL_TOKEN} "
                "polar-iac plan -e sandbox --lockfile trial.lock.json"
            )
            sys.stdout.flush()
            threading.Event().wait()
    finally:
        server.close()
    return ExitCode.OK
