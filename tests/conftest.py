"""Fixtures that several tests share."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from tests.support.command import Workspace, measured
from tests.support.examples import FULL, SAMPLE
from tests.support.fork_server import ForkServer, shared_fork_server
from tests.support.organization import Organization
from tests.support.served_polar import Served, served_polar
from tests.support.shared import ALIVE, DIRECTORY

# How long an example takes says more of the machine than of what is tested.
settings.register_profile(
    FULL,
    deadline=None,
    max_examples=100,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
settings.register_profile(SAMPLE, settings.get_profile(FULL), max_examples=25)
settings.load_profile(SAMPLE)

_SHARED = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_ALIVE = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "unmeasured: measure no coverage in this test, nor in the commands that it runs. What it"
        " goes through hundreds of times, others show; measured, it takes three times as long.",
    )
    config.addinivalue_line(
        "markers",
        "slow: takes many seconds. Such tests begin first, since at the end one would keep a worker alone;"
        ' `-m "not slow"` leaves them out.',
    )
    if not hasattr(config, "workerinput"):  # workers inherit the directory of the run that starts them
        config.stash[_SHARED] = tempfile.TemporaryDirectory(prefix="polar-iac-tests-")
        os.environ[DIRECTORY] = config.stash[_SHARED].name
        alive = Path(config.stash[_SHARED].name) / ALIVE
        os.mkfifo(alive)
        config.stash[_ALIVE] = os.open(alive, os.O_RDWR)


def pytest_unconfigure(config: pytest.Config) -> None:
    if directory := config.stash.get(_SHARED, None):
        os.close(config.stash[_ALIVE])
        directory.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.function):
            item.add_marker(pytest.mark.unmeasured)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@contextmanager
def _untraced() -> Iterator[None]:
    """Take the trace function away: a worker has two coverages, and pytest-cov's `no_cover` pauses one."""
    traces = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        threading.settrace(traces[1])
        sys.settrace(traces[0])


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_collection() -> Generator[None, object, object]:
    """Measure no imports: the measured fork server measures them all, and each worker takes twice as long."""
    with _untraced():
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Measure nothing in the process that only hands the tests out to workers."""
    if not session.config.pluginmanager.hasplugin("dsession"):
        return (yield)
    with _untraced():
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Fixtures of unmeasured tests are set up without a trace, too: a server's threads keep theirs."""
    if item.get_closest_marker("unmeasured") is None:
        return (yield)
    with _untraced():
        return (yield)


@pytest.fixture
def polar() -> Iterator[Served]:
    """An embedded Polar on loopback, empty."""
    with served_polar() as served:
        yield served


@pytest.fixture
def organization(polar: Served) -> Iterator[Organization]:
    """The meters of `polar`, past the tool."""
    made = Organization(polar)
    with made.client:
        yield made


@pytest.fixture(scope="session")
def measured_fork_server() -> Iterator[ForkServer]:
    with shared_fork_server("measured", **measured()) as running:
        yield running


@pytest.fixture(scope="session")
def unmeasured_fork_server() -> Iterator[ForkServer]:
    with shared_fork_server("unmeasured") as running:
        yield running


@pytest.fixture
def measures(request: pytest.FixtureRequest) -> bool:
    """True if the commands that a test runs measure their coverage."""
    return request.node.get_closest_marker("unmeasured") is None


@pytest.fixture
def warmed(request: pytest.FixtureRequest, measures: bool) -> ForkServer:
    """Forks the command."""
    running: ForkServer = request.getfixturevalue(
        "measured_fork_server" if measures else "unmeasured_fork_server"
    )
    return running


@pytest.fixture
def workspace(tmp_path: Path, polar: Served, warmed: ForkServer, measures: bool) -> Workspace:
    """A directory whose sandbox is `polar`."""
    return Workspace(tmp_path, polar.environ(), warmed, polar.tape, measures)
