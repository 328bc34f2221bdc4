"""Ownership marker: the metadata that says which key of which project a meter belongs to."""

from __future__ import annotations

MARKER = "polar_iac"
"""The metadata key of the ownership marker; its value is `<project>/<key>`."""
