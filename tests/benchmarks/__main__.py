"""`python -m tests.benchmarks [--runs N]`: filters, and whole processes in turn; medians and their ratio."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.meaning import compare_matches, measure_claims
from tests.benchmarks.testing import measure_tests
from tests.support.command import COMMAND, clean_environment

LOAD = "import pathlib, sys; from ruamel.yaml import YAML; YAML(typ='safe').load(pathlib.Path(sys.argv[1]))"
WITHOUT_RULES = """
from polar_iac.cli import main, validate
validate.diagnostics = lambda manifest, infos: []
main.main()
"""
BLOCK = """\
  meter-{n}:
    name: Meter {n}
    unit: custom
    custom_label: token
    custom_multiplier: 1000
    filter:
      conjunction: and
      clauses:
        - property: name
          operator: eq
          value: event-{n}
        - conjunction: or
          clauses:
            - {{property: model, operator: like, value: gpt-4}}
            - {{property: tokens, operator: gte, value: {n}}}
    aggregation:
      func: sum
      property: tokens
    metadata:
      team: ai
      tier: 2
"""


def manifest_of(count: int) -> str:
    """A manifest of `count` meters, twenty lines each."""
    return "version: 1\nproject: bench\nmeters:\n" + "".join(BLOCK.format(n=n) for n in range(count))


def seconds(command: Sequence[str], directory: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=directory, env=clean_environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def compare(
    title: str, ours: Sequence[str], least: Sequence[str], directory: Path, runs: int, aim: float
) -> None:
    """Run the two in turn, so that a drift of the machine's speed meets both."""
    seconds(ours, directory), seconds(least, directory)
    pairs = [(seconds(ours, directory), seconds(least, directory)) for _ in range(runs)]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{title:34} {mine:8.3f} s {other:8.3f} s {ratio:8.2f} {aim:8.1f}", flush=True)


def recorded(directory: Path, count: int) -> None:
    """A lockfile that matches the manifest: an offline plan compares all and shows nothing."""
    from polar_iac.manifest import read as manifest
    from polar_iac.meter.record import Record
    from polar_iac.state import lockfile
    from polar_iac.state.lockfile import Lockfile

    meters = manifest.read(directory / "meters.yaml").meters
    records = {
        key: Record(f"{n:08x}-0000-4000-8000-000000000000", meter.spec)
        for n, (key, meter) in enumerate(meters.items())
    }
    state = Lockfile("sandbox", "1dbfc517-0bbf-4301-9ba8-555ca42b9737", "bench", records)
    lockfile.save(directory / "meters.sandbox.lock.json", state)
    assert len(json.loads((directory / "meters.sandbox.lock.json").read_text())["meters"]) == count


def measure(title: str, command: Sequence[str], directory: Path) -> None:
    """One run of what takes long: its time, and the most memory that it held."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=directory, env=clean_environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    print(f"{title:34} {time.perf_counter() - start:8.1f} s {usage.ru_maxrss / 1024:8.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each command (7)")
    parser.add_argument("--meaning", action="store_true", help="what filters mean alone, no commands")
    options = parser.parse_args()
    compare_matches(options.runs)
    measure_claims()
    if not options.meaning:
        measure_tests(options.runs)
        measure_commands(options.runs)


def measure_commands(runs: int) -> None:
    print(f"{'median of ' + str(runs) + ' runs':34} {'ours':>10} {'least':>10} {'ratio':>8} {'aim <':>8}")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        click = [sys.executable, "-c", "import click"]
        compare("--help / import click", [*COMMAND, "--help"], click, directory, runs, 1.3)
        for count in (1000, 10_000):
            (directory / "meters.yaml").write_text(manifest_of(count))
            recorded(directory, count)
            load = [sys.executable, "-c", LOAD, "meters.yaml"]
            compare(f"validate {count} / YAML load", [*COMMAND, "validate"], load, directory, runs, 1.0)
            silent = [sys.executable, "-c", WITHOUT_RULES, "validate"]
            compare(f"validate {count} / without rules", [*COMMAND, "validate"], silent, directory, runs, 1.5)
            plan = [*COMMAND, "plan", "--offline", "-e", "sandbox"]
            compare(f"offline plan {count} / YAML load", plan, load, directory, runs, 1.5)
        print(f"{'one run, against `local`':34} {'time':>10} {'memory':>12}")
        for title, command in (
            ("plan 10000 new", ["plan", "-e", "local"]),
            ("apply 10000 new", ["apply", "-e", "local", "-y", "-q"]),
            ("plan 10000 unchanged", ["plan", "-e", "local"]),
        ):
            measure(title, [*COMMAND, *command], directory)


if __name__ == "__main__":
    main()
