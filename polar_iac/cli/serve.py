"""The command `serve`."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polar_iac.cli.error_boundary import command
from polar_iac.cli.options import File, Options
from polar_iac.cli.output import print_message
from polar_iac.errors import ExitCode
from polar_iac.files import state_directory
from polar_iac.local import LocalPolar, serving
from polar_iac.local.admin import AdministeredPolar
from polar_iac.polar.environments import LOCAL_DATABASE, LOCAL_TOKEN
from polar_iac.report.wording import listed, quantity
from polar_iac.sanitize import printable
from polar_iac.seeding.read import read_seed
from polar_iac.seeding.sow import sow_once

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
@click.option(
    "--billing-interval",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Run billing, which freezes meters, at this interval in seconds instead of after each ingest.",
)
@click.option(
    "--admin",
    is_flag=True,
    help="Serve POST /__admin/{reset,customer,credit,bill,settle} for tests. Billing then waits for `bill`.",
)
@click.option(
    "--seed",
    type=File(),
    metavar="FILE",
    help="First fill the embedded Polar with the meters, events, products and customers of this file.",
)
def serve(
    common: Options, port: int, billing_interval: float | None, admin: bool, seed: Path | None
) -> ExitCode:
    """Serve the embedded Polar on loopback, until interrupted.

    It serves the environment `local`. A seed file is sown only once.
    """
    polar = LocalPolar(
        state_directory(common.file) / LOCAL_DATABASE, bills_at_once=billing_interval is None and not admin
    )
    server = AdministeredPolar(polar) if admin else polar
    try:
        if seed is not None:
            print_message(_sow(polar, seed))
        with serving(_logging(server), port) as base_url, _billing(server, billing_interval):
            click.echo(f"Embedded Polar on {base_url} (stop it with Ctrl-C). For example:")
            click.echo(
                f"  POLAR_BASE_URL={base_url} POLAR_ACCESS_TOKEN={LOCAL_TOKEN} "
                "polar-iac plan -e sandbox --lockfile trial.lock.json"
            )
            sys.stdout.flush()
            threading.Event().wait()
    finally:
        server.close()
        polar.close()
    return ExitCode.OK


def _sow(polar: LocalPolar, path: Path) -> str:
    """Seed the embedded Polar, once, and return the message about it."""
    sown = sow_once(polar, read_seed(path), datetime.now(UTC))
    if sown is None:
        return f"{path} is in the embedded Polar already."
    made = {
        "meter": len(sown.meters),
        "customer": len(sown.customers),
        "benefit": len(sown.benefits),
        "product": len(sown.products),
        "event": sown.events,
    }
    return f"Seeded from {path}: {listed([quantity(n, name) for name, n in made.items() if n]) or 'nothing'}."


@contextmanager
def _billing(server: AdministeredPolar | LocalPolar, seconds: float | None) -> Iterator[None]:
    """Run billing at an interval in seconds, in the background, or not at all for None."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(seconds):
            server.bill()

    thread = threading.Thread(target=run, name="polar-iac-billing", daemon=True)
    if seconds is not None:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if seconds is not None:
            thread.join()


def _logging(app: WSGIApplication) -> WSGIApplication:
    """Return the application with a log of its requests, which -v shows. It has no headers, so no token."""

    def logging_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            _log.info("%s", printable(f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}: {status}"))
            return start_response(status, headers, *rest)

        return app(environ, start)

    return logging_app
