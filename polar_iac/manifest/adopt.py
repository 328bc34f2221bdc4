"""Import of live meters: which key each gets, which ones need a person, and the manifest with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from polar_iac.errors import DiagnosticError
from polar_iac.manifest import read
from polar_iac.manifest.keys import keys_for
from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.manifest.write import block, declaration
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.spec import MeterSpec
from polar_iac.yaml import write
from polar_iac.yaml.edit import Editor

Likeness = Literal["name", "meaning", "several", "elsewhere"]


@dataclass(frozen=True)
class NearMiss:
    """A meter that resembles keys of the manifest, so that nobody can tell whether it is one of them.

    `likeness` says how: only the name is the same, only filter and aggregation are, or both are, and there
    are several such keys or meters, or the keys are declared for other environments only. `new_key` is the
    one that it would get as another meter.
    """

    meter: LiveMeter
    likeness: Likeness
    keys: tuple[str, ...]
    new_key: str


@dataclass(frozen=True)
class Adoption:
    """The outcome of an import. `new` and `known` are the meters by key; `known` keys are declared already.

    `left_out` are the meters that a manifest cannot declare, each with the reason.
    """

    new: Mapping[str, LiveMeter] = field(default_factory=dict)
    known: Mapping[str, LiveMeter] = field(default_factory=dict)
    near: Sequence[NearMiss] = ()
    left_out: Sequence[tuple[LiveMeter, str]] = ()

    @property
    def imported(self) -> Mapping[str, LiveMeter]:
        return {**self.known, **self.new}


@dataclass(frozen=True)
class Surroundings:
    """Facts that decide about an import: the manifest, the keys in the lockfile, the live meters."""

    manifest: Manifest
    environment: str
    recorded: Mapping[str, str]
    """Ids by the keys of the lockfile."""
    live: Sequence[LiveMeter]

    @property
    def is_elsewhere(self) -> bool:
        """True if Polar knows no id that is recorded or imported: it is likely another organization."""
        ids = {*self.recorded.values(), *self._imported.values()}
        return bool(ids) and not any(meter.id in ids for meter in self.live)

    @property
    def unowned(self) -> list[LiveMeter]:
        """Meters that no manifest owns, oldest first, archived ones too."""
        known = {*self.recorded.values(), *self._imported.values()}
        unowned = [m for m in self.live if m.marker is None and m.id not in known]
        return sorted(unowned, key=lambda m: (m.created_at, m.id))

    @property
    def _imported(self) -> Mapping[str, str]:
        return {key: id_ for key, (id_, _) in self.manifest.imported(self.environment).items()}

    @property
    def ids(self) -> Mapping[str, str]:
        """Ids of the keys that have a meter here: recorded, imported, or found by its marker."""
        renamed = {move.source: move.target for move in self.manifest.moved}
        marked = {
            m.owner.key: m.id for m in self.live if m.owner and m.owner.project == self.manifest.project
        }
        ids = {**marked, **self.recorded, **self._imported}
        return {**ids, **{renamed[key]: ids[key] for key in renamed if key in ids}}

    @property
    def keys(self) -> Mapping[str, str]:
        """Keys that the unowned meters would get, by id."""
        return keys_for(self.unowned, {*self.manifest.meters, *self.gone, *self.ids})

    @property
    def gone(self) -> frozenset[str]:
        """Keys that cannot be declared, since `moved` or `removed` names them."""
        moved = (move.source for move in self.manifest.moved)
        return frozenset((*moved, *(entry.key for entry in self.manifest.removed)))

    def owner(self, meter: LiveMeter) -> str:
        """Say whose a meter is that is not unowned."""
        key = next((key for key, id_ in self.ids.items() if id_ == meter.id), None)
        if key is not None:
            return f"it is `{key}` of this manifest"
        return f"it bears the marker {meter.marker}; take it out there first, with `removed`"

    @property
    def open_specs(self) -> Mapping[str, MeterSpec]:
        """Meters that are declared for this environment, and have no id here."""
        ids, here = self.ids, self.manifest.in_environment(self.environment)
        return {key: spec for key, spec in here.specs.items() if key not in ids}

    @property
    def elsewhere(self) -> Mapping[str, DesiredMeter]:
        """Meters that are declared for other environments only."""
        here = self.manifest.in_environment(self.environment).meters
        return {key: meter for key, meter in self.manifest.meters.items() if key not in here}


def adopt(around: Surroundings, chosen: Collection[LiveMeter], key: str | None = None) -> Adoption:
    """Decide about the chosen meters. `key` is the key that a person gave to the only one of them."""
    new, known = dict[str, LiveMeter](), dict[str, LiveMeter]()
    near, left_out = list[NearMiss](), list[tuple[LiveMeter, str]]()
    keys, declared, open_keys = around.keys, around.open_specs, _OpenKeys(around)
    for meter in chosen:
        if meter.spec is None:
            left_out.append((meter, "it has parts that this version does not know: update polar-iac"))
            continue
        own_key = key or keys[meter.id]
        alike = None if key else open_keys.resembling(meter.spec)
        if key in declared:
            known[own_key] = meter
        elif alike is None:
            new[own_key] = meter
        elif alike[0] == "same":
            known[alike[1][0]] = meter
        else:
            near.append(NearMiss(meter, alike[0], alike[1], own_key))
    specs = {own_key: meter.spec for own_key, meter in new.items() if meter.spec}
    for own_key, reason in _undeclarable(specs, around.manifest.project).items():
        left_out.append((new.pop(own_key), reason))
    return Adoption(new, known, tuple(near), tuple(left_out))


class _OpenKeys:
    """Declared meters that have no id here, by what an unowned meter may have in common with them.

    Those of other environments only are never the same meter, but a second one like them is probably a
    mistake.
    """

    def __init__(self, around: Surroundings) -> None:
        self.same: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
        self.names: dict[str, list[str]] = defaultdict(list)
        self.meanings: dict[str, list[str]] = defaultdict(list)
        for key, spec in around.open_specs.items():
            self.same[_identity(spec)].append(key)
            self.names[spec.name].append(key)
            self.meanings[spec.billing].append(key)
        self.elsewhere: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
        for key, meter in around.elsewhere.items():
            self.elsewhere[_identity(meter.spec)].append(key)
        self.unowned_alike = Counter(_identity(meter.spec) for meter in around.unowned if meter.spec)

    def resembling(self, spec: MeterSpec) -> tuple[Likeness | Literal["same"], tuple[str, ...]] | None:
        """Return the keys whose meter this may be, and how it resembles them, or None."""
        identity = _identity(spec)
        if same := self.same.get(identity):
            alone = len(same) == 1 and self.unowned_alike[identity] == 1
            return ("same" if alone else "several"), tuple(same)
        if elsewhere := self.elsewhere.get(identity):
            return "elsewhere", tuple(elsewhere)
        if names := self.names.get(spec.name):
            return "name", tuple(names)
        meanings = self.meanings.get(identity[1])
        return ("meaning", tuple(meanings)) if meanings else None


def _identity(spec: MeterSpec) -> tuple[str, str, bool]:
    return spec.name, spec.billing, spec.archived


def _undeclarable(specs: Mapping[str, MeterSpec], project: str) -> dict[str, str]:
    """Return why a manifest cannot declare some of these meters as they are, by key."""
    blocks = "".join(block(key, spec) for key, spec in specs.items())
    meters = f"meters:\n{blocks}" if blocks else "meters: {}\n"
    text = f"version: 1\nproject: {write.scalar(project)}\n{meters}"
    try:
        read_back = read.load(text.encode(), "the block").specs
    except DiagnosticError as error:
        if len(specs) == 1:
            return dict.fromkeys(specs, error.diagnostics[0].message)
        # One by one, to find those that are wrong.
        return {k: why for key in specs for k, why in _undeclarable({key: specs[key]}, project).items()}
    return {key: "a manifest cannot say exactly what it is" for key in specs if read_back[key] != specs[key]}


def new_manifest(project: str) -> Manifest:
    """Return a manifest without meters, for a file that is not there yet."""
    return Manifest("", project, {}, (), {})


def with_imports(source: bytes | None, manifest: Manifest, environment: str, adoption: Adoption) -> bytes:
    """Return the manifest's text with what is imported. None makes a new one.

    Raises DiagnosticError where the text cannot be edited, or would not be a valid manifest.
    """
    blocks = {key: declaration(meter.spec) for key, meter in adoption.new.items() if meter.spec}
    ids = {key: meter.id for key, meter in adoption.imported.items()}
    if source is None:
        text = _created(manifest.project, blocks, _entries(ids, environment)).encode()
    else:
        editor = Editor(source, manifest.file)
        _add_entries(editor, ids, environment)
        if blocks:
            editor.add(("meters",), blocks)
        text = editor.finish()
    read.load(text, manifest.file or "meters.yaml")
    return text


def _entries(ids: Mapping[str, str], environment: str) -> list[dict[str, Any]]:
    return [write.OneLine(to=key, id={environment: id_}) for key, id_ in ids.items()]


def _add_entries(editor: Editor, ids: Mapping[str, str], environment: str) -> None:
    """Add each id to the entry of its key, or in an entry of its own."""
    entries = editor.data.get("import")
    there: dict[str, int] = {}
    for number, entry in enumerate(entries or []):
        there.setdefault(entry["to"], number)
    for key, id_ in ids.items():
        if key in there:
            editor.set(("import", there[key], "id", environment), id_)
    added = _entries({key: id_ for key, id_ in ids.items() if key not in there}, environment)
    if added and entries:
        editor.append(("import",), added)
    elif added:
        editor.add((), {"import": added}, before="meters")


def _created(project: str, blocks: Mapping[str, Any], entries: Sequence[Any]) -> str:
    head = ["version: 1", f"project: {write.scalar(project)}"]
    imports = ["", *write.entry("import", entries, 0)] if entries else []
    meters = ["", "meters:", *write.spaced(blocks, write.STEP)] if blocks else ["", "meters: {}"]
    return "\n".join([*head, *imports, *meters]) + "\n"
