"""`probe`: the real command, over HTTP."""

from __future__ import annotations

import json

import pytest

from tests.support.build import meter
from tests.support.command import Workspace, on_terminal
from tests.support.served_polar import Served, served_polar

PROBE = {"filter": None}
OTHER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}


def database(polar: Served) -> list[str]:
    """Every row that the embedded Polar holds."""
    return list(polar.polar._store._db.iterdump())


@pytest.fixture
def applied(workspace: Workspace, polar: Served) -> Workspace:
    """Three applied meters, of which Polar has frozen one, and one in the manifest that waits."""
    meters = {key: meter(name=f"Meter {key}") for key in ("calls", "images", "seats")}
    workspace.write(meters)
    workspace.ok("apply", "-e", "sandbox", "-y")
    polar.polar.freeze(workspace.lock()["meters"]["images"]["id"])
    workspace.write(meters | {"waits": meter()})
    polar.tape.clear()
    return workspace


def test_what_is_frozen_is_recorded_and_no_meter_is_changed(applied: Workspace, polar: Served) -> None:
    before, lock = database(polar), applied.lock()
    ids = {key: entry["id"] for key, entry in lock["meters"].items()}
    shown = applied.ok("probe", "-e", "sandbox", "-y")
    assert shown == (
        f"meters.yaml → sandbox · organization {lock['organization_id'][:8]}\n"
        "\n"
        f"  not frozen  calls   {ids['calls']}\n"
        f"  frozen      images  {ids['images']}  recorded now\n"
        f"  not frozen  seats   {ids['seats']}\n"
        "\n"
        "Asked about 3 meters: 1 frozen, 2 not. 1 meter newly recorded in meters.sandbox.lock.json.\n"
        "Not frozen is true of this moment: Polar bills every 15 minutes, and that may freeze a meter.\n"
    )
    assert database(polar) == before
    assert [(e.method, e.body) for e in polar.tape.exchanges if e.method != "GET"] == [("PATCH", PROBE)] * 3
    lock["meters"]["images"]["frozen"] = True
    assert applied.lock() == lock
    assert not list((applied.path / ".polar-iac").glob("*.journal"))


def test_a_meter_that_is_known_to_be_frozen_is_never_sent_a_filter(applied: Workspace, polar: Served) -> None:
    applied.ok("probe", "-e", "sandbox", "-y", "images")
    applied.write({key: meter(name=f"Meter {key}", filter=OTHER) for key in ("calls", "images", "seats")})
    polar.tape.clear()
    assert "Polar refuses a filter change (frozen)" in applied.ok("plan", "-e", "sandbox")
    assert applied.run("apply", "-e", "sandbox", "-y").returncode == 1
    frozen = applied.lock()["meters"]["images"]["id"]
    assert [e.path for e in polar.tape.exchanges if e.method == "PATCH" and frozen in e.path] == []
    assert polar.tape.count("PATCH") == 2


def test_keys_choose_and_json_has_what_scripts_need(applied: Workspace, polar: Served) -> None:
    document = json.loads(applied.ok("probe", "-e", "sandbox", "-y", "seats", "images", "--format", "json"))
    assert polar.tape.count("PATCH") == 2
    lock = applied.lock()
    times = [entry.pop("as_of") for entry in document["meters"]]
    assert all(time.endswith("Z") for time in times)
    assert document == {
        "format_version": 1,
        "environment": "sandbox",
        "organization_id": lock["organization_id"],
        "project": "acme",
        "manifest": "meters.yaml",
        "lockfile": "meters.sandbox.lock.json",
        "meters": [
            {
                "key": key,
                "id": lock["meters"][key]["id"],
                "name": f"Meter {key}",
                "frozen": key == "images",
                "was_frozen": False,
            }
            for key in ("images", "seats")
        ],
        "left": [],
        "unasked": [],
        "error": None,
    }


def test_a_record_that_says_frozen_keeps_it(applied: Workspace) -> None:
    path = applied.path / "meters.sandbox.lock.json"
    lock = applied.lock()
    lock["meters"]["calls"]["frozen"] = True
    path.write_text(json.dumps(lock, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    before = path.read_bytes()
    shown = applied.ok("probe", "-e", "sandbox", "-y", "calls")
    assert (
        f"  not frozen  calls  {lock['meters']['calls']['id']}  the lockfile says frozen, and keeps it"
        in shown
    )
    assert "Nothing is known to end freezing." in shown
    assert path.read_bytes() == before


def test_keys_that_cannot_be_asked_about(applied: Workspace, polar: Served) -> None:
    unknown = applied.reads_only("probe", "-e", "sandbox", "-y", "image")
    assert (unknown.returncode, "did you mean images?" in unknown.stderr) == (1, True)
    waiting = applied.reads_only("probe", "-e", "sandbox", "-y", "waits")
    assert (waiting.returncode, "waits is not recorded for sandbox: apply it first" in waiting.stderr) == (
        1,
        True,
    )
    # The marker says that this record is another key's.
    lock = applied.lock()
    polar.polar._store._db.execute(
        "UPDATE meter SET document = replace(document, 'acme/calls', 'acme/pages')"
    )
    unclear = applied.run("probe", "-e", "sandbox", "-y")
    assert unclear.returncode == 1
    assert "not asked   calls: " in unclear.stdout
    assert lock["meters"]["calls"]["id"] not in str([e.path for e in polar.tape.exchanges])
    assert polar.tape.count("PATCH") == 2


def test_a_renamed_key_is_asked_about_and_stays_where_it_is_recorded(applied: Workspace) -> None:
    applied.write({"pictures": meter(name="Meter images")}, moved=[{"from": "images", "to": "pictures"}])
    assert "  frozen      pictures  " in applied.ok("probe", "-e", "sandbox", "-y", "pictures")
    lock = applied.lock()["meters"]
    assert (lock["images"]["frozen"], "pictures" in lock) == (True, False)


def test_nothing_recorded_is_nothing_to_ask(workspace: Workspace) -> None:
    workspace.write({"calls": meter()})
    done = workspace.reads_only("probe", "-e", "sandbox")
    assert (done.returncode, "Nothing to ask" in done.stdout) == (0, True)
    assert not (workspace.path / "meters.sandbox.lock.json").exists()


@pytest.mark.unmeasured
def test_it_asks_before_it_writes(applied: Workspace, polar: Served) -> None:
    without = applied.reads_only("probe", "-e", "sandbox")
    assert (without.returncode, "pass -y" in without.stderr) == (1, True)
    code, shown = on_terminal(applied, "probe", "-e", "sandbox", answer="y\n")
    assert code == 0
    assert "Polar gets 3 PATCHes without effect, one for each meter. Probe sandbox? [y/N]" in shown
    assert polar.tape.count("PATCH") == 3


@pytest.mark.unmeasured
def test_on_a_production_server_the_name_is_typed(workspace: Workspace, polar: Served) -> None:
    """A `y` is not enough."""
    workspace.environ |= {
        "POLAR_BASE_URL_EU_WEST": polar.url,
        "POLAR_ACCESS_TOKEN_EU_WEST": "polar_oat_test",
    }
    workspace.write({"calls": meter()}, environments={"eu-west": {"server": "production"}})
    workspace.ok("apply", "-e", "eu-west", "-y")
    code, shown = on_terminal(workspace, "probe", "-e", "eu-west", answer="y\n")
    assert "Type `eu-west` to probe" in shown
    assert (code, polar.tape.count("PATCH")) == (1, 0)


def test_a_token_that_may_not_write_stops_it(applied: Workspace, polar: Served) -> None:
    done = applied.run("probe", "-e", "sandbox", "-y", POLAR_ACCESS_TOKEN="polar_oat_ro_1")
    assert done.returncode == 1
    assert "`calls` (" in done.stderr
    assert "it lacks the scope meters:write" in done.stderr
    assert "\n\nEnded early, with answers about 0 of 3 meters: 0 frozen, 0 not.\n" in done.stdout
    assert polar.tape.count("PATCH") == 1


def test_another_organizations_token_is_refused(applied: Workspace) -> None:
    with served_polar() as other:
        made = Workspace(applied.path / "other", other.environ(), applied.warmed)
        made.path.mkdir()
        made.write({"else": meter()})
        made.ok("apply", "-e", "sandbox", "-y")
        other.tape.clear()
        assert applied.run("probe", "-e", "sandbox", "-y", POLAR_BASE_URL=other.url).returncode == 5
        assert other.tape.writes() == []


def test_an_archived_meter_that_is_known_to_be_frozen_is_sent_no_filter_either(
    applied: Workspace, polar: Served
) -> None:
    applied.write({"images": meter(name="Meter images", archived=True)})
    applied.ok("apply", "-e", "sandbox", "-y", "--target", "images")
    applied.ok("probe", "-e", "sandbox", "-y")
    applied.write({"images": meter(name="Meter images", filter=OTHER)})
    polar.tape.clear()
    done = applied.run("apply", "-e", "sandbox", "-y", "--target", "images")
    assert (done.returncode, polar.tape.writes()) == (1, [])
    assert "and it stays archived" in " ".join(done.stdout.split())
    applied.write({"images": meter(name="Meter images")})
    applied.ok("apply", "-e", "sandbox", "-y", "--target", "images")
    assert polar.tape.sent("PATCH") == [{"is_archived": False}]
