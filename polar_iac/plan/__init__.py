"""The plan as a value, and the decision table that makes it from desired, recorded and live state."""
