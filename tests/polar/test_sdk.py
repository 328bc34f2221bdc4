"""The official SDK against the embedded Polar: it reads every answer with its own models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from polar.base import PolarClientError, PolarRateLimitError
from polar.v2026_04 import Polar
from polar.v2026_04.errors import HTTPValidationError, ResourceNotFound

from polar_iac.local import LocalPolar, RateLimit, serving


@pytest.fixture
def app() -> Iterator[LocalPolar]:
    with closing(LocalPolar()) as app:
        yield app


@pytest.fixture
def polar(app: LocalPolar) -> Iterator[Polar]:
    with serving(app) as url, Polar("polar_oat_sdk", base_url=url) as polar:
        yield polar


def test_the_sdk_creates_reads_updates_and_archives_a_meter(app: LocalPolar, polar: Polar) -> None:
    created = polar.meters.create(
        name="AI tokens",
        filter={
            "conjunction": "or",
            "clauses": [
                {"property": "metadata.model", "operator": "like", "value": "gpt"},
                {"conjunction": "and", "clauses": [{"property": "n", "operator": "gte", "value": 10}]},
            ],
        },
        aggregation={"func": "sum", "property": "tokens"},
        unit="custom",
        custom_label="1K tokens",
        custom_multiplier=1000,
        metadata={"env": "prod", "tier": 3, "ratio": 0.5, "beta": False},
    )
    assert created.organization_id == app.organization_id
    assert created.metadata == {"env": "prod", "tier": 3, "ratio": 0.5, "beta": False}
    assert polar.meters.get(created.id) == created

    renamed = polar.meters.update(created.id, name="Tokens", unit="token")
    assert (renamed.name, renamed.unit, renamed.custom_label) == ("Tokens", "token", "1K tokens")
    assert renamed.filter == created.filter

    archived = polar.meters.update(created.id, is_archived=True)
    assert archived.archived_at is not None
    assert polar.meters.list(is_archived=False).items == []
    assert [m.id for m in polar.meters.list(metadata={"env": "prod"}).items] == [created.id]
    assert polar.meters.update(created.id, is_archived=False).archived_at is None


def test_the_sdk_reads_every_page(polar: Polar) -> None:
    filter_: dict[str, object] = {"conjunction": "and", "clauses": []}
    names = [f"Meter {i:02}" for i in range(25)]
    for name in names:
        polar.meters.create(name=name, filter=filter_, aggregation={"func": "count"})  # type: ignore[arg-type]
    assert [m.name for m in polar.meters.iter_list(limit=10, sorting=["created_at"])] == names
    assert polar.meters.list(limit=10).pagination.max_page == 3


def test_the_sdk_raises_typed_errors(polar: Polar) -> None:
    with pytest.raises(ResourceNotFound) as missing:
        polar.meters.get("22222222-2222-4222-9222-222222222222")
    assert missing.value.error.detail == "Not found"

    with pytest.raises(HTTPValidationError) as invalid:
        polar.meters.create(
            name="ab", filter={"conjunction": "and", "clauses": []}, aggregation={"func": "count"}
        )
    (entry,) = invalid.value.error.detail or []
    assert (entry.type, entry.loc) == ("string_too_short", ["body", "name"])

    with pytest.raises(PolarClientError) as forbidden:
        polar.meters.list(request_access_token="polar_oat_noscope_1")
    assert forbidden.value.status_code == 403


def test_the_sdk_understands_the_rate_limit() -> None:
    with (
        closing(LocalPolar(rate_limit=RateLimit(2))) as app,
        serving(app) as url,
        Polar("polar_oat_sdk", base_url=url) as polar,
    ):
        polar.meters.list()
        polar.meters.list()
        with pytest.raises(PolarRateLimitError) as limited:
            polar.meters.list()
    assert limited.value.retry_after == 60


def test_the_sdk_ingests_events_and_reads_quantities(polar: Polar) -> None:
    calls = polar.meters.create(
        name="Calls",
        filter={"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "call"}]},
        aggregation={"func": "sum", "property": "_cost.amount"},
    )
    event: dict[str, Any] = {
        "name": "call",
        "external_customer_id": "alice",
        "timestamp": "2025-03-03T12:00:00Z",
    }
    cost = {"_cost": {"amount": "0.25", "currency": "usd"}, "cached": False, "tokens": 10}
    batch: Any = [{**event, "external_id": "e1", "metadata": cost}, {**event, "external_id": "e1"}, event]
    ingested = polar.events.ingest(events=batch)
    assert (ingested.inserted, ingested.duplicates) == (2, 1)

    day: Any = {"start_timestamp": "2025-03-03T00:00:00Z", "end_timestamp": "2025-03-04T00:00:00Z"}
    counted = polar.meters.quantities(calls.id, interval="day", **day)
    assert [bucket.quantity for bucket in counted.quantities] == [0.25, 0.0]
    assert counted.total == 0.25

    # Not `list` and `get`: the SDK takes seconds to build its models of all kinds of events.
    (name,) = polar.events.list_names().items
    assert (name.name, name.occurrences) == ("call", 2)

    with pytest.raises(HTTPValidationError) as frozen:
        polar.meters.update(calls.id, filter={"conjunction": "and", "clauses": []})
    (entry,) = frozen.value.error.detail or []
    assert (entry.type, entry.loc) == ("forbidden", ["body", "filter"])
    with pytest.raises(HTTPValidationError) as nested:
        polar.events.ingest(events=cast("Any", [{**event, "metadata": {"usage": {"tokens": 1}}}]))
    assert (nested.value.error.detail or [])[0].loc[:3] == ["body", "events", 0]
