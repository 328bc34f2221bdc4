"""Ownership marker: the metadata that says which key of which project a meter belongs to."""

from __future__ import annotations

from dataclasses import dataclass

MARKER = "polar_iac"
"""The metadata key of the ownership marker; its value is `<project>/<key>`."""


@dataclass(frozen=True, slots=True)
class OwnershipMarker:
    """A key of a project. As text, it is `<project>/<key>`."""

    project: str
    key: str

    @classmethod
    def parse(cls, text: str | None) -> OwnershipMarker | None:
        """Return the marker that a text is, or None for any other text, which other tools may have written.

        Formatting the result gives the same text again.
        """
        # A key has no slash, but another tool's text may. Example: `a/b/c` is the key `b/c`, which no
        # manifest can declare.
        project, slash, key = (text or "").partition("/")
        return cls(project, key) if slash and key else None

    def __str__(self) -> str:
        return f"{self.project}/{self.key}"
