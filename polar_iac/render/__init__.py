"""Values to text, one module per format. Nothing here does IO or talks to Polar."""

WIDTH = 100
"""Columns of text, where a terminal has not fewer."""
