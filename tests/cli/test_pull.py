"""`pull`: what someone changed at Polar, written into the manifest."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.build import meter
from tests.support.command import Workspace
from tests.support.organization import Organization
from tests.support.served_polar import Served

MANIFEST = """\
\ufeff# What we bill.\r
version: 1\r
project: acme\r
meters:\r
  calls:\r
    name: "API calls" # on invoices\r
    filter: &all {conjunction: and, clauses: []}\r
    aggregation: {func: count}\r
  images:\r
    name: Images\r
    filter: *all # all of them\r
    aggregation: {func: count}\r
"""


@pytest.fixture
def applied(workspace: Workspace) -> Workspace:
    (workspace.path / "meters.yaml").write_bytes(MANIFEST.encode())
    workspace.ok("apply", "-e", "sandbox", "-y")
    return workspace


def manifest_of(workspace: Workspace) -> str:
    return (workspace.path / "meters.yaml").read_bytes().decode()


def meter_id(workspace: Workspace, key: str) -> str:
    return str(workspace.lock()["meters"][key]["id"])


def test_after_a_pull_nothing_differs_and_no_other_byte_has_changed(
    applied: Workspace, organization: Organization
) -> None:
    organization.change(meter_id(applied, "calls"), name="Calls: all", unit="token")
    conditions = meter()["filter"]
    organization.change(meter_id(applied, "images"), filter=conditions)
    changed = (
        MANIFEST.replace('"API calls"', '"Calls: all"')
        .replace("{func: count}\r\n  images", "{func: count}\r\n    unit: token\r\n  images")
        .replace(
            "filter: *all # all of them\r\n",
            "filter: # all of them\r\n      conjunction: and\r\n      clauses:\r\n"
            "        - {property: name, operator: eq, value: call}\r\n",
        )
    )
    for options in (["--check"], ["--dry-run"]):
        looked = applied.reads_only("pull", "-e", "sandbox", *options, POLAR_ACCESS_TOKEN="polar_oat_ro_x")
        assert looked.returncode == (2 if options == ["--check"] else 0)
        assert '+    name: "Calls: all" # on invoices\n' in looked.stdout
        assert manifest_of(applied) == MANIFEST
    done = applied.reads_only("pull", "-e", "sandbox")
    assert (done.returncode, done.stdout) == (0, looked.stdout)
    assert "Wrote 3 changes into meters.yaml." in done.stderr
    assert manifest_of(applied) == changed
    assert json.loads(applied.ok("plan", "-e", "sandbox", "--format", "json"))["changes"] == []
    again = applied.run("pull", "-e", "sandbox", "--check")
    assert (again.returncode, again.stdout) == (0, "")
    assert "Nothing was changed at Polar since the last apply." in again.stderr


def test_only_the_keys_that_are_named_are_pulled(applied: Workspace, organization: Organization) -> None:
    for key in ("calls", "images"):
        organization.change(meter_id(applied, key), name=f"New {key}")
    applied.ok("pull", "-e", "sandbox", "images")
    assert manifest_of(applied) == MANIFEST.replace("name: Images", "name: New images")
    unknown = applied.run("pull", "-e", "sandbox", "image")
    assert (unknown.returncode, "did you mean images?" in unknown.stderr) == (1, True)


def test_what_another_environment_records_is_left_unless_named(
    applied: Workspace, organization: Organization
) -> None:
    other = json.loads((applied.path / "meters.sandbox.lock.json").read_text())
    other["environment"] = "production"
    (applied.path / "meters.production.lock.json").write_text(json.dumps(other))
    organization.change(meter_id(applied, "calls"), name="New calls")
    left = applied.ok("pull", "-e", "sandbox")
    assert left == (
        "Left alone, 1 change at Polar:\n"
        "  calls: name: the lockfile of production records another value\n"
        "To take what Polar has: polar-iac pull -e sandbox calls\n"
    )
    assert manifest_of(applied) == MANIFEST
    assert applied.run("pull", "-e", "sandbox", "--check").returncode == 2
    applied.ok("pull", "-e", "sandbox", "calls")
    assert manifest_of(applied) == MANIFEST.replace("API calls", "New calls")


def test_what_cannot_be_edited_is_an_error_at_its_place_and_the_rest_is_written(
    applied: Workspace, organization: Organization
) -> None:
    text = MANIFEST.replace("  calls:", "  calls: &calls").replace("  images:", "  images:\r\n    <<: *calls")
    (applied.path / "meters.yaml").write_bytes(text.encode())
    organization.change(meter_id(applied, "calls"), name="New calls", unit="token")
    done = applied.reads_only("pull", "-e", "sandbox")
    assert done.returncode == 1
    assert "meters.yaml:5:3: error: unit has another value at Polar: " in done.stderr
    assert "the anchor &calls" in done.stderr
    assert manifest_of(applied) == text.replace("API calls", "New calls")


def test_another_organizations_lockfile_is_refused(applied: Workspace, polar: Served) -> None:
    lock = applied.lock()
    lock["organization_id"] = None
    (applied.path / "meters.sandbox.lock.json").write_text(json.dumps(lock))
    polar.polar.reset()
    done = applied.run("pull", "-e", "sandbox", "--lookup-timeout", "0")
    assert done.returncode == 5
    assert "Polar knows none of the ids in the lockfile" in done.stderr


def test_a_manifest_that_is_not_there(workspace: Workspace) -> None:
    done = workspace.run("pull", "-e", "sandbox")
    assert (done.returncode, done.stderr) == (1, "error: meters.yaml not found (use -f FILE)\n")


def test_a_link_to_the_manifest_stays_a_link(applied: Workspace, organization: Organization) -> None:
    real = applied.path / "real.yaml"
    shutil.move(applied.path / "meters.yaml", real)
    (applied.path / "meters.yaml").symlink_to(real)
    organization.change(meter_id(applied, "calls"), name="New calls")
    applied.ok("pull", "-e", "sandbox")
    assert (applied.path / "meters.yaml").is_symlink()
    assert real.read_bytes().decode() == MANIFEST.replace("API calls", "New calls")
