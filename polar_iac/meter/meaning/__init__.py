"""Meaning of filters: evaluated as Polar does, explained, and decided without any event."""

from polar_iac.meter.meaning.claims import (
    always,
    bill_alike,
    count_alike,
    difference,
    equivalent,
    find,
    implies,
    ingestible_difference,
    ingestible_witness,
    never,
    overlap,
    witness,
)
from polar_iac.meter.meaning.evaluation import Meter, Outcome, compile_meter, evaluate
from polar_iac.meter.meaning.explanation import ClauseReading, Reading, explain
from polar_iac.meter.meaning.search import Finding

__all__ = [
    "ClauseReading",
    "Finding",
    "Meter",
    "Outcome",
    "Reading",
    "always",
    "bill_alike",
    "compile_meter",
    "count_alike",
    "difference",
    "equivalent",
    "evaluate",
    "explain",
    "find",
    "implies",
    "ingestible_difference",
    "ingestible_witness",
    "never",
    "overlap",
    "witness",
]
