"""The manifest as a value, with a position for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from polar_iac import ENVIRONMENTS
from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.meter.declared import DeclaredEvents
from polar_iac.meter.spec import MeterSpec
from polar_iac.yaml import tree


@dataclass(frozen=True)
class Move:
    """A renamed key. The meter stays the same."""

    source: str
    target: str
    span: SourceSpan


@dataclass(frozen=True)
class Import:
    """An entry of `import`: a live meter to take over, under a declared key.

    `ids` holds the Polar id by environment, in lower case, and `id_spans` the position of each.
    """

    key: str
    ids: Mapping[str, str]
    span: SourceSpan
    id_spans: Mapping[str, SourceSpan]


@dataclass(frozen=True)
class Removed:
    """An entry of `removed`: a key that is managed no more, while its meter stays at Polar as it is."""

    key: str
    span: SourceSpan


@dataclass(frozen=True)
class DesiredMeter:
    """One meter of the manifest. `span` is the position of its key.

    `environments` are those in which the meter exists; None means all of them.
    """

    key: str
    spec: MeterSpec
    ignore_changes: frozenset[str]
    span: SourceSpan
    environments: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LintSettings:
    """Block `lint`: names of the rules that are ignored everywhere, and if warnings fail `validate`."""

    ignore: frozenset[str] = frozenset()
    strict: bool = False


@dataclass(frozen=True)
class CheckSettings:
    """Block `checks`: what `check` leaves out.

    `uncounted` holds event names that no meter needs to count, `idle` keys of meters that may count nothing.
    """

    uncounted: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Manifest:
    """A complete and valid manifest.

    `organizations` holds an id for each environment that pins one, and `servers` the server of each that the
    manifest defines. `elsewhere` holds what `in_environment` left out, by each key that a meter has had.
    """

    file: str
    project: str
    organizations: Mapping[str, str]
    moved: tuple[Move, ...]
    meters: Mapping[str, DesiredMeter]
    imports: tuple[Import, ...] = ()
    removed: tuple[Removed, ...] = ()
    servers: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, DesiredMeter] = field(default_factory=dict)
    lint: LintSettings = LintSettings()
    checks: CheckSettings = CheckSettings()
    events: DeclaredEvents = field(default_factory=dict)
    document: tree.Document = field(default_factory=lambda: tree.Document("", ""), repr=False, compare=False)

    @property
    def specs(self) -> Mapping[str, MeterSpec]:
        return {key: meter.spec for key, meter in self.meters.items()}

    @property
    def environments(self) -> tuple[str, ...]:
        """Names of the environments that a run can be for."""
        return (*ENVIRONMENTS, *self.servers)

    def server(self, environment: str) -> str:
        """Return the server of an environment: `production`, `sandbox`, or the embedded `local`."""
        return self.servers.get(environment, environment)

    def in_environment(self, environment: str) -> Manifest:
        """Return the manifest without the meters that do not exist in an environment."""
        left_out = {
            key: meter
            for key, meter in self.meters.items()
            if meter.environments is not None and environment not in meter.environments
        }
        if not left_out:
            return self
        target = {move.source: move.target for move in self.moved}
        elsewhere = dict(left_out)
        for former in target:
            key = former
            while key in target:
                key = target[key]
            if key in left_out:
                elsewhere[former] = left_out[key]
        return replace(
            self,
            meters={key: meter for key, meter in self.meters.items() if key not in left_out},
            elsewhere=elsewhere,
        )

    def imported(self, environment: str) -> Mapping[str, tuple[str, SourceSpan]]:
        """Return, by key, the id that `import` names in an environment, and its position."""
        return {
            entry.key: (entry.ids[environment], entry.id_spans[environment])
            for entry in self.imports
            if environment in entry.ids
        }

    def span(self, key: str, path: Sequence[str | int] = ()) -> SourceSpan:
        """Return the position of `path` below `meters.<key>`, or of its nearest existing parent."""
        return self.document.at(("meters", key, *path))

    def diagnose(self, key: str, path: Sequence[str | int], message: str) -> Diagnostic:
        return self.document.diagnose_span(self.span(key, path), message)
