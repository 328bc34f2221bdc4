"""`docs/adopting.md`: a team with sixty meters in two environments follows it, word for word."""

from __future__ import annotations

import itertools
import random
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polar_iac.local import LocalPolar, meters, store
from tests.support.command import Workspace
from tests.support.fork_server import ForkServer
from tests.support.organization import Organization
from tests.support.served_polar import Served, served_polar
from tests.support.transcript import follow, steps_of

pytestmark = pytest.mark.unmeasured  # what each command does others show

DOCUMENT = Path(__file__).parents[2] / "docs" / "adopting.md"
FEATURES = (
    *("LLM", "Search", "Images", "Video", "Audio", "Exports"),
    *("Imports", "Webhooks", "Emails", "Storage", "Builds", "Reports"),
)
MEASURES: dict[str, dict[str, Any]] = {
    "requests": {"func": "count"},
    "seconds": {"func": "sum", "property": "seconds"},
    "bytes": {"func": "sum", "property": "bytes"},
    "active users": {"func": "unique", "property": "user_id"},
    "peak load": {"func": "max", "property": "load"},
}


def clicked(feature: str, measure: str, *more: dict[str, Any]) -> dict[str, Any]:
    """A meter as Polar's dashboard makes it: its form wraps the clauses in groups, and knows no metadata."""
    clauses = [{"property": "name", "operator": "eq", "value": feature.lower()}, *more]
    groups = [{"conjunction": "or", "clauses": [clause]} for clause in clauses]
    return {
        "name": f"{feature} {measure}",
        "filter": {"conjunction": "and", "clauses": groups},
        "aggregation": MEASURES[measure],
    }


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, Served]]:
    """Production and sandbox, whose ids and times are the same in each run."""
    numbers, times = random.Random(0), itertools.count()
    ids = SimpleNamespace(uuid4=lambda: uuid.UUID(int=numbers.getrandbits(128), version=4))
    monkeypatch.setattr(meters, "uuid", ids)
    monkeypatch.setattr(store.Store, "now", lambda _: f"2026-01-02T00:00:00.{next(times):06d}Z")
    organizations = (str(ids.uuid4()) for _ in range(2))
    with (
        served_polar(LocalPolar(organization_id=next(organizations))) as production,
        served_polar(LocalPolar(organization_id=next(organizations))) as sandbox,
    ):
        yield production, sandbox


@pytest.fixture
def organizations(servers: tuple[Served, Served]) -> Iterator[tuple[Organization, Organization]]:
    """Production with sixty meters, and sandbox with the same ones, as people left them."""
    production, sandbox = map(Organization, servers)
    errors = {"property": "status", "operator": "lt", "value": 500}
    with production.client, sandbox.client:
        for feature, measure in itertools.product(FEATURES, MEASURES):
            production.make(clicked(feature, measure))
            match f"{feature} {measure}":
                case "LLM seconds":
                    sandbox.make(clicked(feature, measure) | {"name": "LLM time"})
                case "Images requests":
                    sandbox.make(clicked(feature, measure, errors))
                case "Emails requests":
                    for _ in range(2):
                        sandbox.make(clicked(feature, measure))
                case _:
                    sandbox.make(clicked(feature, measure))
        yield production, sandbox


def test_the_document_adopts_sixty_meters_in_two_environments(
    tmp_path: Path,
    servers: tuple[Served, Served],
    organizations: tuple[Organization, Organization],
    warmed: ForkServer,
) -> None:
    (tmp_path / "video").mkdir()
    environ = {"POLAR_ACCESS_TOKEN": "polar_oat_team"}
    for served, name in zip(servers, ("PRODUCTION", "SANDBOX"), strict=True):
        environ[f"POLAR_BASE_URL_{name}"] = served.url
    before = [organization.metadata() for organization in organizations]
    for served in servers:
        served.tape.clear()

    follow(DOCUMENT, Workspace(tmp_path, environ, warmed, measures=False))

    for served, organization, kept in zip(servers, organizations, before, strict=True):
        assert served.tape.count("POST") == 0
        assert organization.metadata() == kept
        changed = [set(body) - {"metadata"} for body in served.tape.sent("PATCH")]
        # In sandbox the two meters that were not as in production.
        assert [fields for fields in changed if fields] == (
            [{"filter"}, {"name"}] if organization is organizations[1] else []
        )


def test_the_adoption_takes_fewer_than_ten_commands() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = re.split("^## ", text, flags=re.MULTILINE)[1]
    commands = [step.command for step in steps_of(section)]
    assert len(commands) < 10
    assert [c for c in commands if " apply " in c] == commands[-2:]
