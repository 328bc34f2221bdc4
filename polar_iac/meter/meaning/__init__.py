"""What a filter means: evaluated as Polar does, and explained."""

from polar_iac.meter.meaning.evaluation import Outcome, evaluate
from polar_iac.meter.meaning.explanation import ClauseReading, Reading, explain

__all__ = ["ClauseReading", "Outcome", "Reading", "evaluate", "explain"]
