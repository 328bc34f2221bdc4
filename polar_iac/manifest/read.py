"""Manifest parser: turns YAML text into desired meters, with a position for every value.

Refuses, before anything is sent, whatever Polar would reject, or accept and then fail on.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from polar_iac import ENVIRONMENTS
from polar_iac.errors import PolarIacError
from polar_iac.files import open_file
from polar_iac.manifest.check_settings import read_checks
from polar_iac.manifest.declared_events import read_events
from polar_iac.manifest.environments import check_imports, read_environments, read_environments_of
from polar_iac.manifest.lint_settings import read_lint
from polar_iac.manifest.meters import MeterReader
from polar_iac.manifest.model import (
    CheckSettings,
    DesiredMeter,
    Import,
    LintSettings,
    Manifest,
    Move,
    Removed,
)
from polar_iac.manifest.moves import read_moves
from polar_iac.manifest.node_reader import NodeReader, describe, quotes_hint
from polar_iac.manifest.ownership import read_imports, read_removed
from polar_iac.meter.declared import DeclaredEvents
from polar_iac.yaml import tree
from polar_iac.yaml.messages import MAX_BYTES
from polar_iac.yaml.parse import parse

_TOP = (
    *("version", "project", "environments", "lint", "checks", "events"),
    *("import", "moved", "removed", "meters", "x-…"),
)


def read(path: Path) -> Manifest:
    """Read the manifest file at `path`.

    Raises DiagnosticError with every problem found, PolarIacError when the file cannot be read.
    """
    try:
        with open_file(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolarIacError(f"{path} not found (use -f FILE)") from None
    except IsADirectoryError:
        raise PolarIacError(f"{path} is a directory (use -f FILE)") from None
    except OSError as error:
        raise PolarIacError(f"cannot read {path}: {error.strerror}") from None
    return load(data, str(path))


def load(text: bytes, file: str) -> Manifest:
    """Parse the manifest in `text`. Raises DiagnosticError with every problem found."""
    collecting = gc.isenabled()
    gc.disable()  # A tree has no cycles; the collector would only walk it repeatedly while it grows.
    try:
        reader = NodeReader(parse(text, file))
        manifest = _manifest(reader)
        reader.finish()
    finally:
        if collecting:
            gc.enable()
    return manifest


def _manifest(reader: NodeReader) -> Manifest:
    document = reader.document
    root = document.root
    project = ""
    organizations: dict[str, str] = {}
    servers: dict[str, str] = {}
    imports: tuple[Import, ...] = ()
    moved: tuple[Move, ...] = ()
    removed: tuple[Removed, ...] = ()
    meters: dict[str, DesiredMeter] = {}
    lint = LintSettings()
    checks = CheckSettings()
    events: DeclaredEvents = {}
    if isinstance(root, tree.Map):
        entries = root.entries
        reader.keys(root, _TOP, ("version", "project", "meters"), root)
        if "version" in entries:
            _version(reader, entries["version"])
        if "project" in entries:
            project = reader.slug(entries["project"], "project")
        if "environments" in entries:
            organizations, servers = read_environments(reader, entries["environments"])
        environments = (*ENVIRONMENTS, *servers)
        if "lint" in entries:
            lint = read_lint(reader, entries["lint"])
        checks = read_checks(reader, entries.get("checks"), entries.get("meters"))
        if "events" in entries:
            events = read_events(reader, entries["events"])
        if "moved" in entries:
            moved = read_moves(reader, entries["moved"], entries.get("meters"))
        if "removed" in entries:
            removed = read_removed(reader, entries["removed"], entries.get("meters"), moved)
        if "import" in entries:
            gone = {move.source: move.target for move in moved} | {entry.key: None for entry in removed}
            imports = read_imports(reader, entries["import"], entries.get("meters"), gone, environments)
        if "meters" in entries:
            meters = _meters(reader, entries["meters"], project, environments)
        check_imports(reader, imports, meters)
    elif isinstance(root, tree.Scalar) and root.value is None:
        reader.fault(root, "the manifest is empty: begin it with `version: 1`")
    else:
        reader.fault(root, f"a manifest is a map that begins with `version: 1`, got {describe(root)}")
    return Manifest(
        document.file,
        project,
        organizations,
        moved,
        meters,
        imports,
        removed,
        servers=servers,
        lint=lint,
        checks=checks,
        events=events,
        document=document,
    )


def _version(reader: NodeReader, node: tree.Node) -> None:
    value = node.value if isinstance(node, tree.Scalar) else None
    # `type() is`, because `True == 1` in Python: `version: true` must not pass.
    if type(value) is not int:
        hint = quotes_hint(node, int)
        reader.fault(node, f"version must be the number 1, got {describe(node)}{hint}")
    elif value != 1:
        reader.fault(node, f"this polar-iac reads version 1 only, got {describe(node)}")


def _meters(
    reader: NodeReader, node: tree.Node, project: str, environments: Sequence[str]
) -> dict[str, DesiredMeter]:
    desired: dict[str, DesiredMeter] = {}
    if isinstance(node, tree.Scalar) and node.value is None:
        reader.fault(node, "meters is empty: write `meters: {}` if there are none")
        return desired
    meters = reader.map(node, "meters", "api-calls: {name: …, filter: …, aggregation: …}")
    if meters is None:
        return desired
    # Also read the entries of duplicate keys, so that their problems are reported in the same run.
    for key, entry in [*((key, meters.entries[key.text]) for key in meters.keys), *meters.repeated]:
        reader.slug(key, "a meter's key")
        value = reader.map(entry, "a meter", "{name: …, filter: …, aggregation: …}")
        if value is not None:
            spec, ignored = MeterReader(reader, key, project).read(value)
            span = reader.document.span_of(key)
            own = value.entries.get("environments")
            exists_in = None if own is None else read_environments_of(reader, own, environments)
            desired[key.text] = DesiredMeter(key.text, spec, ignored, span, exists_in)
    return desired
