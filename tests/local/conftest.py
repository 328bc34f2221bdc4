"""Fixtures of the tests of the embedded Polar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from polar_iac.local import LocalPolar


@pytest.fixture
def app() -> Iterator[LocalPolar]:
    with closing(LocalPolar()) as app:
        yield app
