"""Terminal interaction: width, progress, prompts, and stopping a run."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

import click

from polar_iac.ci.host import host_for
from polar_iac.cli.output import plain, print_message, print_result
from polar_iac.clock import Stop
from polar_iac.errors import ExitCode
from polar_iac.report.wording import WIDTH, agree

if TYPE_CHECKING:
    from tqdm import tqdm

STOPPED = {"SIGINT": ExitCode.INTERRUPTED, "SIGTERM": ExitCode.TERMINATED}
"""Exit codes by the reason for stopping."""


def columns(stream: TextIO) -> int:
    """Return the number of columns for text on a stream. A narrow terminal has fewer than a log."""
    return min(shutil.get_terminal_size().columns, WIDTH) if stream.isatty() else WIDTH


def require_terminal() -> None:
    """Raise click.UsageError when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask on: pass -y to approve")


def confirm(environment: str, server: str, changes: int, *, bills: bool) -> None:
    """Ask whether to apply. On a production server the environment's name must be typed in full.

    `bills` is False where the changes write or take off ownership markers and nothing else.
    Raises click.Abort on a no.
    """
    these = "this change" if changes == 1 else f"these {changes} changes"
    verb, what = ("affect", "what customers are billed") if bills else ("write", "ownership markers only")
    statement = f"{these.capitalize()} {verb}{'s' * (changes == 1)} {what}."
    _approve(
        environment, server, f"{statement} Type `{environment}` to apply", f"Apply {these} to {environment}?"
    )


def confirm_probe(environment: str, server: str, meters: int) -> None:
    """Ask whether to probe so many meters, as `confirm` asks whether to apply. Raises click.Abort on a no."""
    patches = f"Polar gets {meters:,} {agree(meters, 'PATCH', 'PATCHes')} without effect, one for each meter."
    _approve(
        environment,
        server,
        f"{patches} Type `{environment}` to probe",
        f"{patches} Probe {environment}?",
    )


def _approve(environment: str, server: str, typed: str, asked: str) -> None:
    """Ask the question `asked`, or on a production server `typed`, which takes the environment's name."""
    require_terminal()
    try:
        if server == "production":
            agreed = click.prompt(typed, err=True).strip() == environment
        else:
            agreed = click.confirm(asked, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):
            click.echo(err=True)
            raise KeyboardInterrupt from None
        raise
    if not agreed:
        raise click.Abort


class Progress:
    """Progress display for anything longer than a second: count, total, rate, time left, and waits.

    A log gets one line for each wait. With `quiet`, nothing is shown.
    """

    _DELAY = 1.0

    def __init__(self, title: str, quiet: bool) -> None:
        self._title, self.quiet = title, quiet
        self._has_bar = sys.stderr.isatty() and not quiet
        self._bar: tqdm[Any] | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def expect(self, total: int) -> None:
        """Set the number of results to expect."""
        if not self._has_bar or not total:
            return
        # Here, because only a run on a terminal has a bar, and tqdm takes longer to import than click.
        from tqdm import tqdm

        self._began = time.monotonic()
        self._bar = tqdm(
            desc=self._title, total=total, delay=self._DELAY, file=sys.stderr, leave=False, dynamic_ncols=True
        )

    def reach(self, done: int, total: int) -> None:
        if self._bar is None:
            self.expect(total)
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def print(self, text: str) -> None:
        """Print a result above the progress bar."""
        if self._bar is None:
            print_result(text)
            return
        self._bar.clear()
        print_result(text)
        self._bar.set_postfix_str("", refresh=False)
        self._bar.update()
        if time.monotonic() - self._began > self._DELAY:
            self._bar.refresh()

    def wait(self, seconds: float) -> None:
        """Show that Polar limits the rate. May be called from any thread."""
        self._notify(f"rate limited, continuing in {seconds:.0f} s")

    def retry(self, why: str) -> None:
        """Show that a request failed and is sent again. May be called from any thread."""
        self._notify(f"{why}; trying again")

    def _notify(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(plain(text, host_for(os.environ)))
        elif not self.quiet:
            print_message(text)


@contextmanager
def stopped_by_signals(stop: Stop, quiet: bool) -> Iterator[None]:
    """Stop the run cleanly on Ctrl-C and SIGTERM: work in progress is recorded.

    A second signal exits at once.
    """

    def handle(number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        if stop.reason is not None:
            os._exit(STOPPED[name])
        stop.request(name)
        if not quiet:
            with suppress(OSError):
                os.write(2, b"stopping after the requests in flight; press Ctrl-C again to quit now\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_deadline(stop: Stop, seconds: float | None) -> Iterator[None]:
    """Request a stop after `seconds` seconds; None means never."""
    timer = threading.Timer(seconds or 0, stop.request, ["the deadline has passed"])
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
