"""Fixtures that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.command import Workspace, measured
from tests.serve import Served, served_polar
from tests.zygote import Zygote, zygote

# How long an example takes says more of the machine than of what is tested.
settings.register_profile(
    "polar-iac",
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
settings.load_profile("polar-iac")


@pytest.fixture
def polar() -> Iterator[Served]:
    """An embedded Polar on loopback, empty."""
    with served_polar() as served:
        yield served


@pytest.fixture(scope="session")
def warmed() -> Iterator[Zygote]:
    with zygote(**measured()) as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path, polar: Served, warmed: Zygote) -> Workspace:
    """A directory whose sandbox is `polar`."""
    return Workspace(tmp_path, polar.environ(), warmed)
