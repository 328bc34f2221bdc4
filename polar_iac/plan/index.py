"""Recorded and live state of a plan, after `moved` has renamed keys in both, indexed for the decisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import Manifest, Move
from polar_iac.meter.live import LiveMeter, Made
from polar_iac.meter.marker import OwnershipMarker
from polar_iac.meter.record import Record


@dataclass(frozen=True)
class State:
    """Recorded and live state after `moved` has renamed keys in both, indexed for the decisions."""

    recorded: Mapping[str, Record]
    by_id: Mapping[str, LiveMeter]
    bearers: Mapping[str, Sequence[LiveMeter]]
    """Meters by the key in their marker, wherever they are recorded."""
    owner: Mapping[str, str]
    """Recorded key of each meter id."""
    others: Sequence[LiveMeter]
    """Active meters that do not belong to this project and that `import` does not name, by id."""
    record_was: Mapping[str, str]
    """Former keys of records that `moved` renamed, by new key."""
    marker_was: Mapping[str, str]
    """Markers in Polar of meters whose marker `moved` renamed, by meter id."""
    made: Made
    imports: Mapping[str, tuple[str, SourceSpan]]
    """Meter ids that `import` names in this environment, and where, by key."""
    removed: Mapping[str, SourceSpan]
    """Keys that `removed` names, and where."""
    project: str
    environment: str
    refreshed: bool

    @cached_property
    def unowned(self) -> Sequence[LiveMeter]:
        """Meters of `others` that no project has marked."""
        return [meter for meter in self.others if meter.marker is None]

    @cached_property
    def others_by_billing(self) -> Mapping[str, Sequence[LiveMeter]]:
        """Meters of `others` by what they count, but for those with unknown parts."""
        return _grouped((meter.spec.billing, meter) for meter in self.others if meter.spec)

    @cached_property
    def others_by_name(self) -> Mapping[str, Sequence[LiveMeter]]:
        return _grouped((meter.name, meter) for meter in self.others)

    @cached_property
    def claims(self) -> Mapping[str, str]:
        """Meter ids that `import` names for a key that has no record, and that key.

        Example: `old` was deleted from the manifest, and `import` names its meter for `new`. That is a rename
        without `moved`: if `old` were forgotten, the next plan would take the meter over.
        """
        return {meter_id: key for key, (meter_id, _) in self.imports.items() if key not in self.recorded}

    @cached_property
    def any_record_live(self) -> bool:
        return any(record.id in self.by_id for record in self.recorded.values())

    @cached_property
    def any_import_live(self) -> bool:
        return any(meter_id in self.by_id for meter_id, _ in self.imports.values())

    def marker(self, key: str) -> str:
        return str(OwnershipMarker(self.project, key))

    def recorded_elsewhere(self, meter: LiveMeter, key: str) -> str | None:
        """Return the other key under which a meter is recorded, or None."""
        owner = self.owner.get(meter.id, key)
        return None if owner == key else owner

    def key_in(self, meter: LiveMeter) -> str | None:
        """Return the key that a meter's marker names, if it is of this project."""
        return _key_in(self.project, meter)

    def imported(self, key: str) -> str | None:
        """Return the meter id that `import` names for a key in this environment, or None."""
        return self.imports[key][0] if key in self.imports else None


def _grouped(meters: Iterable[tuple[str, LiveMeter]]) -> Mapping[str, Sequence[LiveMeter]]:
    groups: dict[str, list[LiveMeter]] = defaultdict(list)
    for group, meter in meters:
        groups[group].append(meter)
    return groups


def index_state(
    manifest: Manifest,
    recorded: Mapping[str, Record],
    live: Sequence[LiveMeter] | None,
    made: Made,
    environment: str,
) -> State:
    """Apply `moved` to the lockfile and the markers, and index the result."""
    project = manifest.project
    paths = _paths(manifest.moved)
    # A move to a key that no longer exists is outdated: the meter keeps its last name.
    new_key = {old: path[-1] for old, path in paths.items() if path[-1] in manifest.meters}
    records, record_was = dict(recorded), {}
    # The meter's most recent name comes first, so it wins when two names were recorded.
    for old, new in new_key.items():
        if old in records and new not in records:
            records[new] = records.pop(old)
            record_was[new] = old
    refreshed = live is not None
    if live is None:
        live = [_as_recorded(r, OwnershipMarker(project, key)) for key, r in records.items() if r.spec]

    owner = {record.id: key for key, record in records.items()}
    imports = manifest.imported(environment)
    named = {meter_id for meter_id, _ in imports.values()}
    bearers: dict[str, list[LiveMeter]] = defaultdict(list)
    others: list[LiveMeter] = []
    by_id, marker_was = {}, {}
    for meter in sorted(live, key=lambda m: (m.created_at, m.id)):
        marked = _key_in(project, meter)
        key = marked and _key_today(marked, owner.get(meter.id), paths, new_key)
        if key and meter.marker and key != marked:
            marker_was[meter.id] = meter.marker
            meter = meter.marked(str(OwnershipMarker(project, key)))
        by_id[meter.id] = meter
        if key:
            bearers[key].append(meter)
        elif meter.id not in owner and meter.id not in named and not meter.archived:
            others.append(meter)
    return State(
        recorded=records,
        by_id=by_id,
        bearers=bearers,
        owner=owner,
        others=sorted(others, key=lambda m: m.id),
        record_was=record_was,
        marker_was=marker_was,
        made=made,
        imports=imports,
        removed={entry.key: entry.span for entry in manifest.removed},
        project=project,
        environment=environment,
        refreshed=refreshed,
    )


def _paths(moves: Sequence[Move]) -> dict[str, list[str]]:
    """Return, for each former key, all keys up to the current one.

    Keys nearest to their destination come first.
    """
    step = {move.source: move.target for move in moves}
    paths = {}
    for source in step:
        path = [source]
        while path[-1] in step:
            path.append(step[path[-1]])
        paths[source] = path
    return {source: paths[source] for source in sorted(paths, key=lambda s: (len(paths[s]), s))}


def _key_today(
    marked: str, owner: str | None, paths: Mapping[str, Sequence[str]], new_key: Mapping[str, str]
) -> str:
    """Return the key that a marker means after `moved`.

    The recorded key wins if it is on the path of moves. Example, after `moved: a to b`: a meter marked `a`
    belongs to `b` if it is recorded under `b` or not at all. If it is still recorded under `a`, because `b`
    already has a meter, it belongs to `a`.
    """
    if owner is not None and owner in (marked, *paths.get(marked, ())):
        return owner
    return new_key.get(marked, marked)


def _as_recorded(record: Record, marker: OwnershipMarker) -> LiveMeter:
    """Return a meter as it would be live if nobody had changed it since it was recorded."""
    archived_at = "" if record.spec and record.spec.archived else None
    return LiveMeter(record.id, "", "", archived_at, str(marker), record.spec)


def _key_in(project: str, meter: LiveMeter) -> str | None:
    """Return the key that a meter's marker names, if it is of this project."""
    owner = meter.owner
    return owner.key if owner and owner.project == project else None
