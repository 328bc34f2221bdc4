"""Continuous integration: the annotations, summary, outputs and links that a CI system offers a run."""
