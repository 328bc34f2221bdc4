"""The command `serve`."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from polar_iac.cli.error_boundary import command
from polar_iac.cli.options import Options
from polar_iac.errors import ExitCode
from polar_iac.files import state_directory
from polar_iac.local import LocalPolar, serving
from polar_iac.polar.environments import LOCAL_DATABASE, LOCAL_TOKEN
from polar_iac.sanitize import printable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)


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
        with serving(_logging(server), port) as base_url:
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


def _logging(app: WSGIApplication) -> WSGIApplication:
    """Return the application with a log of its requests, which -v shows. It has no headers, so no token."""

    def logging_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            _log.info("%s", printable(f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}: {status}"))
            return start_response(status, headers, *rest)

        return app(environ, start)

    return logging_app
