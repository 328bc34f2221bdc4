"""Faults so frequent that one apply is rarely enough: most requests fail, many six times in a row."""

from __future__ import annotations

from functools import partial

from tests.soak import Soak
from tests.soak.faults import figures, trial

SOAK = Soak(
    "random faults at rates of 60 % to 80 %", 50, partial(trial, low=0.6, high=0.8, applies=40), figures
)
