"""The manifest as a value, with a position for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.meter.spec import MeterSpec
from polar_iac.yaml import tree


@dataclass(frozen=True)
class Move:
    """A renamed key. The meter stays the same."""

    source: str
    target: str
    span: SourceSpan


@dataclass(frozen=True)
class DesiredMeter:
    """One meter of the manifest. `span` is the position of its key."""

    key: str
    spec: MeterSpec
    ignore_changes: frozenset[str]
    span: SourceSpan


@dataclass(frozen=True)
class Manifest:
    """A complete and valid manifest. `organizations` holds an id for each environment that pins one."""

    file: str
    project: str
    organizations: Mapping[str, str]
    moved: tuple[Move, ...]
    meters: Mapping[str, DesiredMeter]
    document: tree.Document = field(default_factory=lambda: tree.Document("", ""), repr=False, compare=False)

    @property
    def specs(self) -> Mapping[str, MeterSpec]:
        return {key: meter.spec for key, meter in self.meters.items()}

    def span(self, key: str, path: Sequence[str | int] = ()) -> SourceSpan:
        """Return the position of `path` below `meters.<key>`, or of its nearest existing parent."""
        return self.document.at(("meters", key, *path))

    def diagnose(self, key: str, path: Sequence[str | int], message: str) -> Diagnostic:
        return self.document.diagnose_span(self.span(key, path), message)
