"""The command `serve`, as the SDK and curl use it: a subprocess on loopback."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.command import COMMAND, HANG_SECONDS, clean_environment, measured

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
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *options],
        cwd=tmp_path,
        env=clean_environment(**measured()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert url is not None
        token = {"authorization": "Bearer polar_oat_secret"}
        with httpx.Client(base_url=f"{url[0]}/v1", timeout=HANG_SECONDS) as polar:
            polar.get("/meters/?query=%1B", headers=token)
            polar.post("/meters/", json={})
            polar.get("/meters/", headers={**token, "polar-version": "2020-01"})
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=HANG_SECONDS)
        finally:
            process.kill()
    assert errors == f"{shown}interrupted\n"
