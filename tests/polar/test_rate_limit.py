"""An apply of any size finishes under Polar's limits, at the speed they allow. Time is virtual."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from polar_iac.apply.events import Applied
from polar_iac.apply.executor import execute
from polar_iac.apply.jobs import Limits
from polar_iac.clock import Stop, StoppedError, SystemClock
from polar_iac.files import state_directory
from polar_iac.local import LocalPolar, RateLimit
from polar_iac.polar.client import PolarClient
from polar_iac.state.journal import Journal, path_for
from polar_iac.state.lockfile import Lockfile
from tests.support.build import PROJECT, desired, identifier, meter, plan
from tests.support.served_polar import scripted

pytestmark = pytest.mark.unmeasured  # hundreds of creates through the same lines


class VirtualClock:
    """Time that jumps to the next moment somebody waits for, once nobody has anything else to do.

    It jumps when all `workers` sleep, or when nothing has asked for the time for a few milliseconds.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._now = 0.0
        self._wakes: list[float] = []
        self._changed = threading.Condition()
        self._touched = time.monotonic()

    def now(self) -> float:
        with self._changed:
            self._touched = time.monotonic()
            return self._now

    def sleep(self, seconds: float) -> None:
        with self._changed:
            self._touched = time.monotonic()
            wake = self._now + seconds
            self._wakes.append(wake)
            if len(self._wakes) == self._workers:
                self._jump()
            self._changed.wait_for(lambda: self._now >= wake)
            self._wakes.remove(wake)
            self._touched = time.monotonic()

    def _jump(self) -> None:
        self._now = max(self._now, min(self._wakes))
        self._touched = time.monotonic()
        self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[None]:
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.002):
                with self._changed:
                    if self._wakes and time.monotonic() - self._touched > 0.008:
                        self._jump()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("parallelism", [1, 4])
def test_hundreds_of_creates_keep_to_a_hundred_a_minute(tmp_path: Path, parallelism: int) -> None:
    clock = VirtualClock(parallelism)
    waits: list[float] = []
    limited = RateLimit(100, 60.0, clock.now)
    with (
        closing(LocalPolar(rate_limit=limited)) as polar,
        clock.running(),
        PolarClient(
            "http://localhost",
            "polar_oat_x",
            transport=httpx.WSGITransport(app=polar),
            clock=clock,
            on_wait=waits.append,
        ) as client,
    ):
        manifest = desired({f"m{n}": meter(name=f"Meter {n}") for n in range(300)})
        lock = tmp_path / "lock.json"
        state_directory(lock)
        with Journal(path_for(lock), Lockfile("sandbox", None, PROJECT)) as journal:
            events = list(
                execute(
                    plan(manifest, organization_id=None),
                    manifest,
                    [],
                    client,
                    journal,
                    at_start={},
                    stop=Stop(),
                    limits=Limits(parallelism),
                    clock=clock,
                )
            )
            assert len(journal.meters) == 300
        assert all(isinstance(event, Applied) for event in events)
        assert len(events) == 300
    # 300 POSTs and the pages of the sweep: three windows to wait for.
    assert 2 * 60 < clock.now() <= 3 * 60 * 1.15
    assert waits
    assert all(0 <= wait <= 62 for wait in waits)


ASKED: dict[str, Callable[[PolarClient], Any]] = {
    "GET": lambda client: client.list_meters(),
    "POST": lambda client: client.create_meter(meter()),
    "PATCH": lambda client: client.update_meter(identifier(1), {"name": "New"}),
}


@pytest.mark.parametrize("method", ASKED)
def test_a_stop_ends_the_wait_for_a_limit_that_never_ends(method: str) -> None:
    """The stop comes during the third wait; nothing is sent after it."""
    stop, waits = Stop(), list[float]()

    class Hasty(SystemClock):
        """Every wait is over at once, but the one during which the stop comes: that one would be long."""

        def __init__(self) -> None:
            super().__init__(stop)
            self.time = 0.0

        def now(self) -> float:
            return self.time

        def sleep(self, seconds: float) -> None:
            if seconds and tape.count(method) == 3:
                stop.request("SIGINT")
            self.time += seconds
            super().sleep(60.0 if stop.reason else 0.0)

    with (
        scripted(lambda *_: (429, {"retry-after": "60"}, b"")) as (url, tape),
        PolarClient(url, "polar_oat_t", clock=Hasty(), on_wait=waits.append) as client,
        pytest.raises(StoppedError, match="SIGINT"),
    ):
        ASKED[method](client)
    assert tape.count(method) == 3
    assert waits
