"""The number of examples that hypothesis tries: a quarter in the suite, all of them in the soak."""

from __future__ import annotations

from hypothesis import settings

SAMPLE, FULL = "polar-iac", "polar-iac-full"
"""The profiles. `conftest` registers both and loads the first; `--hypothesis-profile` names the other one."""


def examples(count: int) -> settings:
    """Settings of a test whose full count is not the usual 100."""
    usual = settings().max_examples
    return settings(max_examples=max(count * usual // 100, 1))
