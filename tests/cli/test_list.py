"""The commands for editors and scripts: `list` and `schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polar_iac.manifest.schema import schema_json
from polar_iac.meter.record import Record
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile
from tests.support.build import ORGANIZATION, PROJECT, identifier, meter, record
from tests.support.command import Workspace
from tests.support.fork_server import ForkServer

RECORDS = {
    "sandbox": {"calls": record(1, frozen=True), "llm-tokens": record(2, name="LLM tokens 中\x1b[2J")},
    "production": {"calls": record(3, archived=True), "stray": Record(identifier(4), None)},
}


@pytest.fixture
def recorded(tmp_path: Path, warmed: ForkServer) -> Workspace:
    """A directory with two lockfiles, and no token."""
    workspace = Workspace(tmp_path, {}, warmed)
    workspace.write({"calls": meter()})
    for environment, records in RECORDS.items():
        path = tmp_path / f"meters.{environment}.lock.json"
        lockfile.save(path, Lockfile(environment, ORGANIZATION, PROJECT, records))
    return workspace


def test_every_recorded_meter_is_a_line(recorded: Workspace) -> None:
    assert recorded.ok("list") == (
        f'production  calls       {identifier(3)}  archived        "API calls"\n'
        f"production  stray       {identifier(4)}  never applied\n"
        f'sandbox     calls       {identifier(1)}  active, frozen  "API calls"\n'
        f'sandbox     llm-tokens  {identifier(2)}  active          "LLM tokens 中\\u001b[2J"\n'
    )


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["-e", "sandbox"], [1, 2]),
        (["-e", "sandbox", "-e", "production", "calls"], [1, 3]),
        (["llm-tokens", "calls"], [3, 1, 2]),
    ],
)
def test_environments_and_keys_choose(recorded: Workspace, arguments: list[str], ids: list[int]) -> None:
    meters = json.loads(recorded.ok("list", *arguments, "--format", "json"))["meters"]
    assert [entry["id"] for entry in meters] == list(map(identifier, ids))


def test_json_has_what_scripts_need(recorded: Workspace) -> None:
    document: dict[str, Any] = json.loads(recorded.ok("list", "stray", "calls", "--format=json"))
    assert (document["format_version"], document["project"]) == (1, PROJECT)
    assert document["meters"][:2] == [
        {
            "environment": "production",
            "key": "calls",
            "id": identifier(3),
            "state": "archived",
            "frozen": False,
            "name": "API calls",
        },
        {
            "environment": "production",
            "key": "stray",
            "id": identifier(4),
            "state": None,
            "frozen": False,
            "name": None,
        },
    ]


def test_the_id_alone_is_for_scripts(recorded: Workspace) -> None:
    assert recorded.ok("list", "calls", "-e", "production", "--id") == f"{identifier(3)}\n"
    moved = recorded.path / "elsewhere.json"
    (recorded.path / "meters.production.lock.json").rename(moved)
    arguments = ["list", "calls", "-e", "production", "--id", "--lockfile", str(moved)]
    assert recorded.ok(*arguments) == f"{identifier(3)}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--id", "calls"], "--id prints one id"),
        (["--id", "-e", "sandbox"], "--id prints one id"),
        (["--id", "calls", "llm-tokens", "-e", "sandbox"], "--id prints one id"),
        (["--lockfile", "x"], "--lockfile names one file"),
        (["llm-token", "-e", "sandbox"], "not in the lockfile of sandbox: did you mean llm-tokens?"),
        (["stray", "-e", "sandbox", "--id"], "stray is not in the lockfile of sandbox: `plan` shows"),
        (["nothing"], "nothing is not in any lockfile"),
    ],
)
def test_what_is_not_there_is_an_error(recorded: Workspace, arguments: list[str], message: str) -> None:
    done = recorded.run("list", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_without_a_lockfile_nothing_is_listed(tmp_path: Path, warmed: ForkServer) -> None:
    workspace = Workspace(tmp_path, {}, warmed)
    workspace.write({"calls": meter()})
    done = workspace.run("list", "-e", "sandbox")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Nothing was applied yet to sandbox.\n"


def test_the_schema_is_printed_without_a_manifest(tmp_path: Path, warmed: ForkServer) -> None:
    assert Workspace(tmp_path, {}, warmed).ok("schema") == schema_json()
