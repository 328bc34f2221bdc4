"""Timings of the whole command, side by side with the least that could do the same."""
