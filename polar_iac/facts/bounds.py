"""Lower bound for a total, from a sample of its parts. It assumes nothing about their distribution.

The parts are not negative. For a supposed mean `m` and a stake `s` from 0 to 1, each part `x` multiplies a
capital by `1 + s·(x/m − 1)`. If the mean is `m` or less, the expected capital is at most 1, whatever the
distribution: so a capital of 40 or more has a chance of at most 1 in 40. The bound is the smallest mean that
is not refuted in this way. It holds for parts drawn with or without replacement: by Maclaurin's inequality,
the mean of all products of some numbers is at most the power of their mean. A customer with 60 % of the
usage, a burst, or a value a million times the usual may make it low but not wrong.

Known as betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_STAKES = (1.0, 0.6, 0.35, 0.2, 0.1, 0.05)
"""Stakes whose capitals are averaged. Large stakes suit similar parts, and small ones suit heavy tails."""
_STEPS = 40
"""Halvings of the interval in which the bound is searched for."""


def lower_mean(parts: Sequence[float], risk: float) -> float:
    """Return a lower bound for the mean of all parts, wrong with a chance of at most `risk`.

    `parts` are a random sample, none of them negative. A bound of 0 carries no information.
    """
    low, high = 0.0, sum(parts) / len(parts) if parts else 0.0
    for _ in range(_STEPS if high > 0 else 0):
        middle = (low + high) / 2
        if not middle:  # below the smallest double
            break
        if _capital(parts, middle) < 1 / risk:
            high = middle
        else:
            low = middle
    return low


def _capital(parts: Sequence[float], mean: float) -> float:
    return sum(_grown(stake, parts, mean) for stake in _STAKES) / len(_STAKES)


def _grown(stake: float, parts: Sequence[float], mean: float) -> float:
    """Return the final capital for a start of 1. With everything staked, a part of 0 loses all of it."""
    log = 0.0
    for part in parts:
        factor = 1 + stake * (part / mean - 1)
        if factor <= 0:
            return 0.0
        log += math.log(factor)
    return math.exp(min(log, _LARGEST))


_LARGEST = 700.0
"""Logarithm at which a capital is capped. The largest double is only a little above."""
