"""`python -m tests.differential SEED [...]`: play a history, and leave out what its flag does not need."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.differential.histories import STEPS, FlaggedError, Outcome, play
from tests.support.fork_server import ForkServer, fork_server


def _played(seed: int, warmed: ForkServer, without: frozenset[int]) -> Outcome:
    with tempfile.TemporaryDirectory() as directory:
        return play(seed, Path(directory), warmed, without=without)


def reduced(seed: int, warmed: ForkServer) -> Outcome:
    """The outcome of a history, with as few steps as show the same kind of flag."""
    outcome = _played(seed, warmed, frozenset())
    kinds = {flag.kind for flag in outcome.flags}
    without = frozenset(range(outcome.counts["steps"], STEPS))
    for number in reversed(range(outcome.counts["steps"])) if kinds else ():
        shorter = _played(seed, warmed, without | {number})
        if kinds & {flag.kind for flag in shorter.flags}:
            outcome, without = shorter, without | {number}
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("seeds", nargs="+", type=int, metavar="SEED")
    flagged = False
    with fork_server() as warmed:
        for seed in parser.parse_args().seeds:
            outcome = reduced(seed, warmed)
            flagged |= bool(outcome.flags)
            print(f"seed {seed}: {FlaggedError(outcome) if outcome.flags else 'no flag'}", flush=True)
    return int(flagged)


if __name__ == "__main__":
    sys.exit(main())
