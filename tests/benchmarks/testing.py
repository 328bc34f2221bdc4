"""Tests of meters: the command over 1,000 tests of 10 events, in CPU seconds beyond its start-up."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.command import COMMAND, clean_environment

TESTS, EVENTS = 1_000, 10
MANIFEST = """\
version: 1
project: bench
meters:
  llm-tokens:
    name: LLM tokens
    filter:
      conjunction: and
      clauses:
        - {property: name, operator: eq, value: llm.completion}
        - conjunction: or
          clauses:
            - {property: tokens, operator: gte, value: 500}
            - {property: model, operator: like, value: gpt-4}
    aggregation: {func: sum, property: tokens}
"""
TEST = """\
  - name: test {number}
    meter: llm-tokens
    given:
"""
EVENT = "      - {{name: llm.completion, customer: c{of}, metadata: {{tokens: {tokens}, cached: false}}}}\n"


def file_of_tests(count: int) -> str:
    """Tests that pass, of which a part of the events counts."""
    tokens = [100 * number for number in range(EVENTS)]
    events = "".join(EVENT.format(of=n % 3, tokens=number) for n, number in enumerate(tokens))
    total = sum(number for number in tokens if number >= 500)
    written = (f"{TEST.format(number=n)}{events}    expect: {{total: {total}}}\n" for n in range(count))
    return "version: 1\ntests:\n" + "".join(written)


def cpu_seconds(command: Sequence[str], directory: Path) -> float:
    process = subprocess.Popen(command, cwd=directory, env=clean_environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def measure_tests(runs: int) -> None:
    """Run all tests, and one, in turn: one is the start-up."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "meters.yaml").write_text(MANIFEST)
        for file, count in (("all.yaml", TESTS), ("one.yaml", 1)):
            (directory / file).write_text(file_of_tests(count))
        files = ("all.yaml", "one.yaml")
        rounds = [[cpu_seconds([*COMMAND, "test", file], directory) for file in files] for _ in range(runs)]
    whole, start = (statistics.median(side) for side in zip(*rounds, strict=True))
    beyond = statistics.median(a - b for a, b in rounds)
    title = f"{TESTS:,} tests of {EVENTS} events, CPU"
    print(f"{title:34} {'whole':>10} {'start-up':>10} {'beyond':>10} {'aim <':>8}")
    print(f"{'test':34} {whole:8.3f} s {start:8.3f} s {beyond:8.3f} s {1.0:6.1f} s", flush=True)
