"""The embedded Polar without a server: a client of the WSGI application, and meters in it."""

from __future__ import annotations

from typing import Any

import httpx

ANY_FILTER = {"conjunction": "and", "clauses": []}
METER = {"name": "Requests", "filter": ANY_FILTER, "aggregation": {"func": "count"}}
UNKNOWN = "22222222-2222-4222-9222-222222222222"


def client(app: Any, token: str | None = "polar_oat_all") -> httpx.Client:
    """Return a client of the application, with a token or without one."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(transport=httpx.WSGITransport(app), base_url="http://polar.test/v1", headers=headers)


def create(polar: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = polar.post("/meters/", json={**METER, **fields})
    assert answer.status_code == 201, answer.text
    meter: dict[str, Any] = answer.json()
    return meter


def get(polar: httpx.Client, meter: dict[str, Any]) -> dict[str, Any]:
    answer = polar.get(f"/meters/{meter['id']}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def clause(value: Any, operator: str = "eq", name: str = "x") -> dict[str, Any]:
    return {"conjunction": "and", "clauses": [{"property": name, "operator": operator, "value": value}]}


def locs(answer: httpx.Response) -> list[list[str | int]]:
    assert answer.status_code == 422, answer.text
    return [entry["loc"] for entry in answer.json()["detail"]]


def is_broken(answer: httpx.Response) -> bool:
    """Tell whether an answer is one that Polar gives when it fails: text, and no version."""
    return (
        answer.status_code == 500
        and answer.headers["content-type"].startswith("text/plain")
        and "polar-version" not in answer.headers
    )
