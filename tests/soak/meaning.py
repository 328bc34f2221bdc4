"""Claims about random filters, which random events try to refute: ten million pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.soak import Soak
from tests.support.claim_trials import Tally, refute

BATCH = 100
"""Pairs of filters in a trial."""
EVENTS = 100
"""Events for each of them; each event meets two filters."""


def trial(seed: int, _directory: Path) -> Tally:
    """A hundred pairs of filters, each with a hundred events; how often each claim was made."""
    return sum((refute(seed * BATCH + number, EVENTS) for number in range(BATCH)), Counter())


def figures(tallies: Sequence[Tally]) -> Sequence[str]:
    total: Tally = sum(tallies, Counter())
    names = sorted({name.partition(" ")[0] for name in total} - {"pairs"})
    lines = [f"{total['pairs']:,} pairs of filter and event, none of which refutes a claim"]
    for name in names:
        answers = {answer: total[f"{name} {answer}"] for answer in ("True", "False", "None")}
        share = answers["None"] / sum(answers.values())
        lines.append(f"{name}: {answers['True']:,} true, {answers['False']:,} false, {share:.2%} unknown")
    return lines


SOAK = Soak("claims about random filters, which random events try to refute", 500, trial, figures)
