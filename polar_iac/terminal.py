"""The person at the other end: what is printed while something runs, what is asked, and how it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import click

from polar_iac.reports import for_log
from polar_iac.waiting import Stop

STOPPED = {"SIGINT": 130, "SIGTERM": 143}
"""Exit codes by the reason of a stop."""


def print_result(text: str) -> None:
    """Results, on stdout. That nobody reads them any more (`| head`) is no reason to stop half-way."""
    try:
        click.echo(for_log(text, os.environ), nl=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def confirm(environment: str) -> None:
    """Ask whether to apply; production is typed in full. Raises click.Abort on a no."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here, without a terminal: approve with -y")
    if environment == "production":
        answer = click.prompt("This changes what customers are billed. Type `production` to apply", err=True)
        if answer.strip() != "production":
            raise click.Abort
    else:
        click.confirm(f"Apply this to {environment}?", abort=True, err=True)


class Progress:
    """What a terminal shows of anything longer than a second: how many of how many, rate, time left, and
    why it waits. A log gets a line for each wait; nothing of either with `quiet`."""

    def __init__(self, title: str, quiet: bool) -> None:
        from tqdm import tqdm

        self._quiet = quiet
        shown = sys.stderr.isatty() and not quiet
        self._bar: tqdm[Any] = tqdm(
            desc=title, disable=not shown, delay=1, file=sys.stderr, leave=False, dynamic_ncols=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def expect(self, total: int) -> None:
        """So many results are to come."""
        self._bar.reset(total)

    def reach(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def print(self, text: str) -> None:
        """A result, above the bar."""
        self._bar.clear()
        print_result(text)
        self._bar.set_postfix_str("", refresh=False)
        self._bar.update()

    def wait(self, seconds: float) -> None:
        """Polar limits the rate; called from any thread."""
        told = f"rate limited, going on in {seconds:.0f} s"
        if not self._bar.disable:
            self._bar.set_postfix_str(told)
        elif not self._quiet:
            click.echo(told, err=True)


@contextmanager
def stopped_by_signals(stop: Stop, quiet: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in order: what is under way is recorded. A second one leaves at once."""

    def handle(number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        if stop.reason is not None:
            os._exit(STOPPED[name])
        stop.request(name)
        if not quiet:
            os.write(2, b"stopping: what is under way is recorded first (again to leave at once)\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_deadline(stop: Stop, seconds: float | None) -> Iterator[None]:
    """Request a stop after so many seconds; None: never."""
    timer = threading.Timer(seconds or 0, stop.request, ["the deadline has come"])
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
