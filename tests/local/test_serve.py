"""The command `serve`, as the SDK and curl use it: a subprocess on loopback."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.support.command import HANG_SECONDS, serve_command

TRIES = 50_000
"""Times to ask whether billing has run. No machine is so slow that it needs as many."""

UNKNOWN_VERSION = "Polar-Version 2020-01 is unknown; known are 2026-04, 2026-10, 2027-01\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (
            ["-v"],
            "GET /v1/meters/?query=%1B: 200 OK\n"
            "POST /v1/meters/: 401 Unauthorized\n"
            f"{UNKNOWN_VERSION}GET /v1/meters/: 404 Not Found\n",
        ),
        ([], UNKNOWN_VERSION),
    ],
)
def test_verbose_shows_each_request(tmp_path: Path, options: list[str], shown: str) -> None:
    token = {"authorization": "Bearer polar_oat_secret"}
    with (
        serve_command(tmp_path, *options) as running,
        httpx.Client(base_url=f"{running.url}/v1", timeout=HANG_SECONDS) as polar,
    ):
        polar.get("/meters/?query=%1B", headers=token)
        polar.post("/meters/", json={})
        polar.get("/meters/", headers={**token, "polar-version": "2020-01"})
    assert running.errors == f"{shown}interrupted\n"


@pytest.mark.parametrize(
    "options", [["--billing-interval", "0.05"], ["--admin", "--billing-interval", "0.05"]]
)
def test_billing_runs_at_an_interval(tmp_path: Path, options: list[str]) -> None:
    meter = {
        "name": "Calls",
        "filter": {"conjunction": "and", "clauses": []},
        "aggregation": {"func": "count"},
    }
    event = {"name": "call", "external_customer_id": "alice"}
    with serve_command(tmp_path, *options) as running:
        client = httpx.Client(
            base_url=f"{running.url}/v1",
            headers={"authorization": "Bearer polar_oat_x"},
            timeout=HANG_SECONDS,
        )
        with client as polar:
            path = f"/meters/{polar.post('/meters/', json=meter).json()['id']}"
            assert polar.patch(path, json={"filter": None}).status_code == 200
            polar.post("/events/ingest", json={"events": [event]})
            for _ in range(TRIES):
                if polar.patch(path, json={"filter": None}).status_code != 200:
                    break
                time.sleep(0.01)
            else:
                pytest.fail("billing at an interval froze nothing")
    assert running.errors == "interrupted\n"
