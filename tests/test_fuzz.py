"""A sample of the fuzzing; `python -m tests.soak fuzz` does the full count."""

from __future__ import annotations

import pytest

from tests.support import fuzz_targets as fuzz


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_mutated_inputs(name: str) -> None:
    fuzz.fuzz(name, range(200))


def test_it_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> None:
        raise RecursionError

    monkeypatch.setitem(fuzz.TARGETS, "manifest", (b"x", broken))
    with pytest.raises(AssertionError, match="manifest, seed 0: RecursionError"):
        fuzz.fuzz("manifest", range(1))
