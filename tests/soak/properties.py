"""The hypothesis tests of the suite, a file at a time, with all of their examples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.soak import Soak
from tests.support.command import HANG_SECONDS, clean_environment
from tests.support.examples import FULL

TESTS = Path(__file__).parent.parent
FILES = sorted(
    str(path.relative_to(TESTS))
    for path in TESTS.rglob("test_*.py")
    if "@given(" in path.read_text(encoding="utf-8")
)


def trial(seed: int, directory: Path) -> str:
    """The file whose tests have held; further rounds of the files have other examples."""
    name = FILES[seed % len(FILES)]
    options = [f"--hypothesis-profile={FULL}", f"--hypothesis-seed={seed}", "-q", "-m", "hypothesis"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", str(TESTS / name)],
        cwd=TESTS.parent,
        env=clean_environment(HYPOTHESIS_STORAGE_DIRECTORY=str(directory)),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return name


def figures(names: Sequence[str]) -> Sequence[str]:
    return [f"the properties of {', '.join(sorted(set(names)))}, {len(names)} files in all"]


SOAK = Soak("the suite's hypothesis tests with all of their examples", len(FILES), trial, figures)
