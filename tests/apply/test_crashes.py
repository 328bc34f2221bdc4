"""Invariants 4 and 6: kill -9 at every boundary and at random times, signals, and two runs at once.

The soaks `kills`, `moments` and `races` run the full count of what is sampled here.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from polar_iac.local import serving
from polar_iac.polar.client import PolarClient
from tests.soak.crashes import LAG
from tests.support import crash_trials as crashes
from tests.support.build import meter
from tests.support.command import HANG_SECONDS
from tests.support.crash_trials import Scene
from tests.support.fault_trials import faulty_polar
from tests.support.fork_server import ForkServer
from tests.support.served_polar import served_polar

pytestmark = pytest.mark.unmeasured  # hundreds of runs, many of them killed: what they do others show


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with served_polar() as served, PolarClient(served.url, "polar_oat_truth") as truth:
        yield Scene(served.polar, served.url, truth)


def test_the_scene_converges_without_a_kill(scene: Scene, warmed: ForkServer, tmp_path: Path) -> None:
    """Without a kill the expected state is reached, and there are boundaries to kill at."""
    foreign = scene.furnish(tmp_path)
    ended = warmed.run(tmp_path, scene.environ, *crashes.APPLY)
    assert ended.code == 0, ended.output
    assert ended.boundaries > 50
    scene.check(tmp_path, foreign)


@pytest.fixture(scope="module")
def lagging_scene(scene: Scene) -> Iterator[Scene]:
    """The same, but what the command reads is behind the truth; less than it looks for what it misses."""
    with faulty_polar(scene.polar, lag=LAG) as faulty:
        yield Scene(scene.polar, faulty.url, scene.truth, lag=LAG)


@pytest.mark.parametrize("forget", [False, True], ids=["goes on", "lockfile and journal lost"])
@pytest.mark.parametrize("lag", ["scene", "lagging_scene"], ids=["at once", "under lag"])
def test_a_kill_at_every_boundary_is_recovered_from(
    request: pytest.FixtureRequest, warmed: ForkServer, tmp_path: Path, lag: str, forget: bool
) -> None:
    """At least 65 boundaries, the four ways by turns; the soak `kills` meets each boundary in each way."""
    scene: Scene = request.getfixturevalue(lag)
    first = 1 + forget + 2 * (lag == "lagging_scene")
    for boundary in range(first, 1000, 4):
        if crashes.killed_at(scene, warmed, tmp_path, boundary, forget=forget) == 0:
            assert boundary > 65
            return
    raise AssertionError("there was always one more boundary")


@pytest.fixture(scope="module")
def slow_scene() -> Iterator[Scene]:
    with crashes.slow_scene() as scene:
        yield scene


@pytest.mark.parametrize("forget", [False, True], ids=["goes on", "lockfile and journal lost"])
def test_a_kill_of_the_real_command_at_random_times_is_recovered_from(
    slow_scene: Scene, warmed: ForkServer, tmp_path: Path, forget: bool
) -> None:
    """Five times each; a run that ended before its kill does not count."""
    rng, killed = random.Random(3), 0
    for _ in range(60):
        code = crashes.killed_after(slow_scene, warmed, tmp_path, rng.uniform(0.2, 0.6), forget=forget)
        killed += code == -signal.SIGKILL
        if killed == 5:
            return
    raise AssertionError(f"only {killed} runs were killed")


def test_another_organizations_meter_does_not_end_the_recovery(
    scene: Scene, warmed: ForkServer, tmp_path: Path
) -> None:
    """A run died after its POST; the next has a token of an organization with a meter of the same marker."""
    for boundary in range(1, 200):
        foreign = scene.furnish(tmp_path)
        warmed.run(tmp_path, scene.environ, *crashes.APPLY, kill_at=boundary)
        journal = tmp_path / ".polar-iac" / f"{crashes.LOCK}.journal"
        whole = journal.read_bytes().rpartition(b"\n")[0] if journal.exists() else b""
        if b'"effect":"create"' in whole:
            break
    before = journal.read_bytes()
    with served_polar() as other, PolarClient(other.url, "polar_oat_truth") as truth:
        for key in ("new-1", "new-2", "new-3"):
            truth.create_meter(meter(metadata={"polar_iac": f"acme/{key}"}))
        done = warmed.run(tmp_path, other.environ(), *crashes.APPLY)
    assert done.code == 5, done.output
    assert journal.read_bytes() == before[: before.rindex(b"\n") + 1], "something of theirs is recorded"
    scene.recover(warmed, tmp_path)
    scene.check(tmp_path, foreign)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_time_is_recovered_from(
    slow_scene: Scene, warmed: ForkServer, tmp_path: Path, number: int
) -> None:
    """Four times each; a run that ended before its signal does not count."""
    rng, stopped = random.Random(number), 0
    for _ in range(60):
        code = crashes.stopped_after(slow_scene, warmed, tmp_path, rng.uniform(0, 0.2), number)
        stopped += code == 128 + number
        if stopped == 4:
            return
    raise AssertionError(f"only {stopped} runs were stopped")


def test_two_runs_at_once_on_two_machines_leave_one_meter_per_marker(
    slow_scene: Scene, warmed: ForkServer, tmp_path: Path
) -> None:
    """Until three of at most fifteen made second meters: two runs that never met would show nothing."""
    rng, met = random.Random(1), 0
    for _ in range(15):
        met += crashes.raced(slow_scene, warmed, tmp_path, rng).archived > 0
        if met == 3:
            return
    raise AssertionError(f"only {met} races met")


@dataclass
class Door:
    """Before a Polar: while it is closed, requests wait at it."""

    app: Any
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        assert self.opened.wait(HANG_SECONDS)
        return self.app(environ, start_response)


@pytest.fixture
def guarded(scene: Scene) -> Iterator[tuple[Scene, Door]]:
    """The scene behind a closed door, which the tests' own look at the truth does not use."""
    door = Door(scene.polar)
    with serving(door) as url:
        yield Scene(scene.polar, url, scene.truth), door
        door.opened.set()


def test_two_runs_on_one_machine_wait_for_each_other(
    guarded: tuple[Scene, Door], warmed: ForkServer, tmp_path: Path
) -> None:
    """The second waits for the first, and finds nothing to do; or says who is at work."""
    scene, door = guarded
    foreign = scene.furnish(tmp_path)
    options = [arg for arg in crashes.APPLY if arg != "-q"]
    first = warmed.start(tmp_path, scene.environ, *options)
    warmed.reach(first)  # its first request: it has the lock
    late = warmed.run(tmp_path, scene.environ, *options, "--lock-timeout", "0")
    assert late.code == 1
    assert re.search(
        r"error: meters\.sandbox\.lock\.json is locked by another run \(pid \d+ .*\): try again", late.output
    )
    second = warmed.start(tmp_path, scene.environ, *options)
    warmed.say(second, "waiting for another run")
    door.opened.set()
    ended, waited = warmed.wait(first), warmed.wait(second)
    assert (ended.code, waited.code) == (0, 0)
    message = rf"waiting for another run \(pid {first} on \S+, since .* UTC\)"
    assert re.search(message, waited.output)
    assert "another run" not in ended.output
    assert "No changes" in waited.output
    scene.check(tmp_path, foreign)


def test_a_second_ctrl_c_quits_at_once(scene: Scene, warmed: ForkServer, tmp_path: Path) -> None:
    """While an answer is still awaited. The next apply looks for what may have been done."""
    arrived, over = threading.Event(), threading.Event()

    def stuck(environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] != "GET" and not over.is_set():
            arrived.set()
            assert over.wait(HANG_SECONDS)
            start_response("503 Service Unavailable", [("content-length", "0")])
            return []
        return scene.polar(environ, start_response)

    with serving(stuck) as url:
        behind = Scene(scene.polar, url, scene.truth)
        foreign = behind.furnish(tmp_path)
        options = [arg for arg in crashes.APPLY if arg != "-q"]
        try:
            pid = warmed.start(tmp_path, behind.environ, *options)
            assert arrived.wait(HANG_SECONDS)
            os.kill(pid, signal.SIGINT)
            warmed.say(pid, "press Ctrl-C again to quit now")
            os.kill(pid, signal.SIGINT)
            ended = warmed.wait(pid)
        finally:
            over.set()
        assert ended.code == 130, ended.output
        assert "The next apply continues from here" not in ended.output
        assert "Traceback" not in ended.output
        behind.recover(warmed, tmp_path)
        behind.check(tmp_path, foreign)


def test_a_deadline_stops_after_the_requests_in_flight(
    slow_scene: Scene, warmed: ForkServer, tmp_path: Path
) -> None:
    foreign = slow_scene.furnish(tmp_path)
    ended = warmed.run(
        tmp_path, slow_scene.environ, *crashes.APPLY, "--parallelism", "1", "--deadline", "0.2"
    )
    assert ended.code == 1
    assert "not done" in ended.output
    slow_scene.recover(warmed, tmp_path)
    slow_scene.check(tmp_path, foreign)
