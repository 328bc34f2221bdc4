"""A sample of the fuzzing; `python -m tests.soak fuzz` does the full count."""

from __future__ import annotations

import pytest

from tests.support import fuzz_targets as fuzz


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_mutated_inputs_raise_only_our_own_errors(name: str) -> None:
    fuzz.fuzz(name, range(200))


def test_an_unexpected_exception_fails_the_fuzzing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> None:
        raise RecursionError

    monkeypatch.setitem(fuzz.TARGETS, "manifest", (b"x", broken))
    with pytest.raises(AssertionError, match="manifest, seed 0: RecursionError"):
        fuzz.fuzz("manifest", range(1))
