"""`python -m tests.soak [NAME ...]`: full counts, and figures; exit 1 when any trial failed."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from tests.soak import Attempt, Soak, attempt, soaks


def trials(name: str, seeds: Sequence[int], jobs: int, until: float) -> Iterator[Attempt]:
    """The trials of these seeds, several at a time; none starts after `until`."""
    waiting = iter(seeds)
    running: set[Future[Attempt]] = set()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(running) < jobs and time.monotonic() < until:
                if (seed := next(waiting, None)) is None:
                    break
                running.add(pool.submit(attempt, name, seed))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def run(name: str, soak: Soak[Any], seeds: Sequence[int], jobs: int, seconds: float) -> bool:
    """Run one soak and print what came of it; whether all was well."""
    began = time.monotonic()
    print(f"{name}: {soak.what}", flush=True)
    results, ended, failed = list[Any](), 0, list[int]()
    for seed, result, error in trials(name, seeds, jobs, began + seconds):
        ended += 1
        if result is not None or error is None:
            results.append(result)
        if error is not None:
            failed.append(seed)
            print(
                f"  seed {seed} FAILED; again: python -m tests.soak {name} --seed {seed}\n{error}", flush=True
            )
    taken = time.monotonic() - began
    held = f"{ended - len(failed)} of {ended} trials held"
    remaining = len(seeds) - ended
    print(f"  {held} in {taken:.0f} s" + (f"; {remaining} not begun, the time was up" if remaining else ""))
    for line in soak.figures(results) if results else ():
        print(f"  {line}")
    if failed:
        print(f"  failed: {', '.join(map(str, sorted(failed)))}")
    sys.stdout.flush()
    return not failed


def main() -> int:
    available = soaks()
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(available)}; none: all")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many trials, instead of the full count")
    parser.add_argument("--seed", type=int, metavar="N", help="this trial alone")
    parser.add_argument("--seconds", type=float, default=3600.0, metavar="N", help="bound of each soak")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="trials at a time")
    options = parser.parse_args()
    if unknown := set(options.names) - set(available):
        parser.error(f"no such soak: {', '.join(sorted(unknown))}")
    well = True
    for name in options.names or available:
        soak = available[name]
        count = soak.count if options.seeds is None else options.seeds
        seeds = range(count) if options.seed is None else [options.seed]
        well &= run(name, soak, seeds, options.jobs, options.seconds)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
