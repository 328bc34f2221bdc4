"""Renderers from values to text, one module per format. They do no IO and never talk to Polar."""

WIDTH = 100
"""Columns of text, unless the terminal has fewer."""
