"""The world of a team: a directory with a manifest and a lockfile, and an organization at Polar."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from polar_iac.local import LocalPolar
from tests.differential.truth import (
    LATER_OPERATOR,
    MARKER,
    Json,
    Meter,
    Meters,
    normal,
    read_lockfile,
    snapshot,
    typed,
)
from tests.support.build import PROJECT, manifest_text

KEYS = ("calls", "tokens", "exports", "seats", "images", "minutes")
TOKEN = "polar_oat_differential_never_to_be_seen"
LOCKFILE = "meters.sandbox.lock.json"


@dataclass
class World:
    """Everything that a history changes. `rng` is set anew for each step, so that a history with steps left
    out keeps the others.
    """

    directory: Path
    polar: LocalPolar
    dashboard: httpx.Client
    rng: random.Random
    meters: dict[str, Json] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    """The ids that `import` names, by key."""
    removed: set[str] = field(default_factory=set)
    lockfiles: list[str] = field(default_factory=list)
    """Former versions of the lockfile, as git has them."""
    made: set[str] = field(default_factory=set)
    """Ids of the meters that the command created."""
    held: list[Json] = field(default_factory=list)
    """Bodies of creates that a gateway may hold still: they were sent, neither processed nor answered, and
    the journal has to know of them."""

    @property
    def lockfile(self) -> Path:
        return self.directory / LOCKFILE

    @property
    def journal(self) -> Path:
        return self.directory / ".polar-iac" / f"{LOCKFILE}.journal"

    @property
    def live(self) -> Meters:
        return snapshot(self.polar)

    @property
    def steady(self) -> list[Meter]:
        """Every meter, in an order that is the same in two runs: ids and times are not."""

        def order(meter: Meter) -> tuple[str, bool, str]:
            return meter.marker or "", meter.active, typed({**normal(meter.document), **meter.metadata})

        return sorted(self.live.values(), key=order)

    @property
    def recorded(self) -> dict[str, Json]:
        return read_lockfile(self.lockfile_text)

    @property
    def lockfile_text(self) -> str | None:
        return self.lockfile.read_text(encoding="utf-8") if self.lockfile.exists() else None

    @property
    def journal_text(self) -> str:
        return self.journal.read_text(encoding="utf-8") if self.journal.exists() else ""

    def write_manifest(self) -> None:
        # What an edit of the meters or the moves has made a contradiction, a person would take out, too.
        self.imports = {key: meter_id for key, meter_id in self.imports.items() if key in self.meters}
        self.removed -= self.meters.keys() | self.moved.keys() | set(self.moved.values())
        top: Json = {
            "moved": [{"from": old, "to": new} for old, new in self.moved.items()],
            "import": [{"to": key, "id": {"sandbox": meter_id}} for key, meter_id in self.imports.items()],
            "removed": [{"from": key} for key in sorted(self.removed)],
        }
        text = manifest_text(self.meters, **{name: entries for name, entries in top.items() if entries})
        (self.directory / "meters.yaml").write_text(text, encoding="utf-8")

    def write_lockfile(self, entries: dict[str, Json]) -> None:
        """Edit the lockfile by hand: the entries are these, all else stays."""
        if (text := self.lockfile_text) is not None:
            document = json.loads(text) | {"meters": entries}
            edited = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
            self.lockfile.write_text(edited, encoding="utf-8")

    def keep_lockfile(self) -> None:
        """Commit the lockfile."""
        text = self.lockfile_text
        if text is not None and text not in self.lockfiles[-1:]:
            self.lockfiles.append(text)

    def create(self, body: Json) -> str:
        """Create a meter in the dashboard; its id."""
        answer = self.dashboard.post("/v1/meters/", json=body)
        return str(answer.raise_for_status().json()["id"])

    def patch(self, meter_id: str, **body: Any) -> None:
        """Change a meter in the dashboard; what Polar refuses is left as it is."""
        answer = self.dashboard.patch(f"/v1/meters/{meter_id}", json=body)
        assert answer.status_code in (200, 422), answer.text

    def outgrow(self, meter_id: str) -> None:
        """Give a meter's filter a part that only later versions know; this Polar would refuse it."""
        store = self.polar._store
        with store.write():
            row = store.find(meter_id)
            assert row is not None
            clause = {"property": "model", "operator": LATER_OPERATOR, "value": "^gpt"}
            row.document["filter"]["clauses"].append(clause)
            store.update(row.document, readable=True)

    def mark(self, meter: Meter, marker: str | None) -> None:
        """Write another ownership marker in the dashboard, or take it off."""
        self.patch(meter.id, metadata=meter.metadata | ({MARKER: marker} if marker else {}))


def marker_of(key: str) -> str:
    return f"{PROJECT}/{key}"


@contextmanager
def new_world(directory: Path, polar: LocalPolar) -> Iterator[World]:
    headers = {"Authorization": "Bearer polar_oat_person"}
    transport = httpx.WSGITransport(app=polar)
    with httpx.Client(transport=transport, base_url="http://dashboard", headers=headers) as dashboard:
        world = World(directory, polar, dashboard, random.Random(0))
        world.write_manifest()
        yield world
