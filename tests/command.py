"""The real command in a subprocess, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.build import manifest_text

if TYPE_CHECKING:
    from tests.zygote import Zygote

# Without its bytecode the command would be compiled anew for each of hundreds of runs.
_LEFT_OUT = ("NO_COLOR", "FORCE_COLOR", "PYTHONDONTWRITEBYTECODE")

COMMAND = [sys.executable, "-m", "polar_iac"]


_MEASURES = "COVERAGE_PROCESS_"


def measured() -> dict[str, str]:
    """The variables with which a Python process measures its coverage, where this one is measured. It takes
    a tenth of a second, so that only those have them that show something new."""
    return {name: value for name, value in os.environ.items() if name.startswith(_MEASURES)}


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything of Polar's or GitHub's, and with `variables`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POLAR_", "GITHUB_", _MEASURES)) and name not in _LEFT_OUT
    }
    return {**kept, "PYTHONWARNINGS": "error", **variables}


@dataclass
class Workspace:
    """A directory with a manifest. `environ` holds what the command sees besides."""

    path: Path
    environ: dict[str, str]
    warmed: Zygote | None = None
    """Forks the command instead of starting Python anew: the same process from `main` on, sooner there."""

    def write(self, meters: Mapping[str, Any], **top: Any) -> None:
        (self.path / "meters.yaml").write_text(manifest_text(meters, **top), encoding="utf-8")

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        if self.warmed:
            ended = self.warmed.run(self.path, self.environ | variables, *arguments)
            return subprocess.CompletedProcess(arguments, ended.code, ended.stdout, ended.stderr)
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.path,
            env=clean_environment(**(self.environ | variables)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: str, **variables: str) -> str:
        """The output of a command that must succeed."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lock(self, environment: str = "sandbox") -> dict[str, Any]:
        text = (self.path / f"meters.{environment}.lock.json").read_text(encoding="utf-8")
        return dict(json.loads(text))
