"""Saved plans that are not valid: the message names the value that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import polar_iac.plan
from polar_iac.errors import PolarIacError
from polar_iac.facts.model import Facts, Gap, Price
from polar_iac.plan.document import plan_json
from polar_iac.plan.facts import with_facts
from polar_iac.plan.read_document import plan_from_document
from tests.support.build import desired, live, meter, plan, record

MISSING = object()
AS_OF = "2026-11-26T13:30:00Z"
SCHEMA = json.loads((Path(polar_iac.plan.__file__).parent / "plan.schema.json").read_text())


def document() -> Any:
    manifest = desired({"calls": meter(name="Renamed"), "new": meter(name="New")})
    return json.loads(plan_json(plan(manifest, {"calls": record(1)}, [live(1)])))


def replaced(path: str, value: Any) -> Any:
    """The document with another value at a path."""
    data = inner = document()
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        inner = inner[part]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format_version", MISSING, "`format_version` is missing"),
        ("changes.0.cause", MISSING, "`changes.0.cause` is missing"),
        ("notes", MISSING, "`notes` is missing"),
        ("project", 5, "`project` must be a text"),
        ("refreshed", "false", "`refreshed` must be true or false"),
        ("refreshed", 0, "`refreshed` must be true or false"),
        ("environment", "../staging", "`environment` must be the name of an environment"),
        ("organization_id", "x", "`organization_id` must be a UUID"),
        ("changes", {}, "`changes` must be a list"),
        ("changes.1", None, "`changes.1` must be an object"),
        ("changes.0.before", {"name": "x"}, "`changes.0.before` must be a meter"),
        ("changes.0.action", "destroy", "`changes.0.action` must be 'create', 'update'"),
        ("changes.0.fields.0.impact", "none", "`changes.0.fields.0.impact` must be 'billing', 'invoice'"),
        ("changes.0.source.line", 1.0, "`changes.0.source.line` must be a whole number"),
        ("changes.0.source.line", True, "`changes.0.source.line` must be a whole number"),
        ("summary.unchanged", "1", "`summary.unchanged` must be a whole number"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(PolarIacError) as error:
        plan_from_document(replaced(path, value))
    assert str(error.value).startswith(f"not a plan file of polar-iac: {message}")


@pytest.mark.parametrize("version", [True, 1.0, "2", 3, None])
def test_only_known_formats_are_read(version: Any) -> None:
    with pytest.raises(
        PolarIacError, match=r"this plan file has format version .*, and this polar-iac reads 2"
    ):
        plan_from_document(replaced("format_version", version))


def test_half_a_character_is_read_as_it_was_written() -> None:
    assert plan_from_document(replaced("changes.0.reason", "\ud83d")).changes[0].reason == "\ud83d"


def test_unknown_keys_are_ignored() -> None:
    assert plan_from_document({**document(), "later": {}}) == plan_from_document(document())


def test_facts_that_were_missing_and_archives_that_facts_block_are_read_as_they_were_written() -> None:
    """Such an archive keeps its digest: the facts of a review and of its apply may differ."""
    manifest = desired({"calls": meter(archived=True)})
    decided = plan(manifest, {"calls": record(1)}, [live(1)])
    price = Price("price", live(1).id, "product", "Pro", False, "50")
    gaps = [Gap("usage", "budget", "the 60 requests are used up", ("calls",))]
    planned = with_facts(decided, Facts(prices=[price], credits=[], gaps=gaps, requests=60, as_of=AS_OF))
    assert [(change.action, change.cause) for change in planned.changes] == [("blocked", "attached")]
    assert (planned.digest, planned.wanted) == (decided.digest, 0)
    data = json.loads(plan_json(planned))
    jsonschema.validate(data, SCHEMA)
    read = plan_from_document(data)
    assert (read.facts_requests, read.facts_gaps, read.digest) == (60, tuple(gaps), decided.digest)
    assert plan_json(read) == plan_json(planned)


def test_only_an_archive_is_blocked_by_what_is_attached() -> None:
    """Its digest is that of an archive: a changed file cannot take an update out of an apply in this way."""
    data = document()
    assert data["changes"][0]["action"] == "update"
    data["changes"][0] |= {"action": "blocked", "cause": "attached"}
    data["summary"] |= {"update": 0, "blocked": 1}
    with pytest.raises(PolarIacError, match="the digest of `calls` does not match it"):
        plan_from_document(data)
