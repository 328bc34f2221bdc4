"""`check`: the real command, over HTTP, against an embedded Polar that tells another time."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from polar_iac.local import LocalPolar
from polar_iac.seeding.read import load
from polar_iac.seeding.sow import sow
from tests.support.build import meter
from tests.support.command import Workspace
from tests.support.dated_polar import DatedPolar
from tests.support.fork_server import ForkServer
from tests.support.served_polar import Served, served_polar

FACTS = {"POLAR_FACTS_TOKEN_SANDBOX": "polar_oat_facts_1", "POLAR_ACCESS_TOKEN": "polar_oat_ro_1"}
TOKEN = "the token in POLAR_FACTS_TOKEN_SANDBOX"
LIMITED = "(Polar limits the rate of requests (429))"
NO_TOKEN = "there is no token in POLAR_FACTS_TOKEN_SANDBOX"


@pytest.fixture
def dated() -> DatedPolar:
    return DatedPolar()


@pytest.fixture
def polar(dated: DatedPolar) -> Iterator[Served]:
    with served_polar(dated) as served:
        try:
            yield served
        finally:
            dated.released.set()


@pytest.fixture
def workspace(tmp_path: Path, polar: Served, warmed: ForkServer, measures: bool) -> Workspace:
    """A directory with two meters that were applied: of completions, and of exports."""
    made = Workspace(tmp_path, polar.environ(), warmed, polar.tape, measures)
    made.write({"llm-tokens": named("llm.completion"), "exports": named("export")})
    made.ok("apply", "-e", "sandbox", "-y")
    return made


def named(name: str, **fields: Any) -> dict[str, Any]:
    clause = {"property": "name", "operator": "eq", "value": name}
    return meter(name=f"Meter of {name}", filter={"conjunction": "and", "clauses": [clause]}, **fields)


def id_of(workspace: Workspace, key: str) -> str:
    return str(workspace.lock()["meters"][key]["id"])


def check(workspace: Workspace, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return workspace.reads_only("check", "-e", "sandbox", *arguments, **(FACTS | variables))


def body(done: subprocess.CompletedProcess[str], environment: str = "sandbox") -> str:
    """What is printed below the heading."""
    heading, _, rest = done.stdout.partition("\n\n")
    assert heading.startswith(f"meters.yaml → {environment}")
    return rest


def healthy(dated: DatedPolar) -> None:
    """Both meters count each day, the last time within the last 24 hours."""
    dated.ingest("export", *range(3, 10))
    dated.ingest("llm.completion", *range(3, 10))


def test_a_renamed_event(workspace: Workspace, dated: DatedPolar) -> None:
    dated.ingest("llm.completion", *range(4, 12), count=3)
    dated.ingest("llm.completions", 3, count=4)
    dated.ingest("page.view", 3, count=9)
    dated.sell(id_of(workspace, "llm-tokens"), "Pro", "Team")
    workspace.write(
        {"llm-tokens": named("llm.completion"), "exports": named("export")},
        checks={"uncounted": {"ignore": ["page.view"]}, "idle": {"ignore": ["exports"]}},
    )
    done = check(workspace)
    assert done.returncode == 3
    assert done.stderr == ""
    stopped = f"! llm-tokens       counted 3 a day until {dated.shown(4)}, nothing since."
    renamed = f"! llm.completions  4 events since {dated.shown(3)}, counted by no meter."
    width = max(len(stopped), len(renamed)) + 3
    assert body(done) == (
        f"{stopped:{width}}Price on: Pro, Team\n"
        f"{renamed:{width}}Nearest: llm.completion (llm-tokens)\n"
        "\n"
        "Check: 2 things are wrong. 2 meters were looked at.\n"
    )


def test_nothing_is_wrong_while_meters_count(workspace: Workspace, dated: DatedPolar) -> None:
    """Nobody pays by them, so that their silence would be none either."""
    healthy(dated)
    done = check(workspace)
    assert (done.returncode, body(done)) == (0, "Check: nothing is wrong. 2 meters were looked at.\n")


def test_a_meter_that_never_counted(workspace: Workspace, dated: DatedPolar) -> None:
    dated.ingest("llm.completion", 3)
    dated.sell(id_of(workspace, "exports"), "Pro")
    done = check(workspace)
    assert done.returncode == 3
    assert body(done).splitlines()[0] == (
        f"! exports  counted nothing since it was created on {dated.shown(2)}.   "
        "No event is named export. Price on: Pro"
    )


def test_an_archived_meter_under_a_live_price(workspace: Workspace, dated: DatedPolar) -> None:
    """Polar takes a new price on an archived meter, which bills nothing."""
    healthy(dated)
    dated.change(f"/meters/{id_of(workspace, 'exports')}", is_archived=True)
    workspace.write({"llm-tokens": named("llm.completion"), "exports": named("export", archived=True)})
    workspace.ok("apply", "-e", "sandbox", "-y")
    dated.sell(id_of(workspace, "exports"), "Pro")
    workspace.write(
        {"llm-tokens": named("llm.completion"), "exports": named("export", archived=True)},
        checks={"uncounted": {"ignore": ["export"]}},
    )
    done = check(workspace)
    assert done.returncode == 3
    assert body(done).splitlines()[0] == (
        f"! exports  archived on {dated.shown(2)}: it counts and bills nothing.   Price on: Pro"
    )


def test_an_archive_that_waits_and_that_polar_will_refuse(workspace: Workspace, dated: DatedPolar) -> None:
    healthy(dated)
    dated.sell(id_of(workspace, "exports"), "Pro")
    workspace.write(
        {"llm-tokens": named("llm.completion"), "exports": named("export", archived=True)},
        checks={"idle": {"ignore": ["exports"]}},
    )
    done = check(workspace)
    assert done.returncode == 3
    assert body(done).splitlines()[0] == (
        "! exports  blocked: products or benefits use it, and it cannot be archived.   "
        "See: polar-iac plan -e sandbox"
    )


def test_blocked_keys_and_drift(workspace: Workspace, dated: DatedPolar) -> None:
    healthy(dated)
    workspace.write({"llm-tokens": named("llm.completion"), "exports": named("other")})
    assert workspace.run("apply", "-e", "sandbox", "-y").returncode == 1  # it is frozen, and recorded so
    dated.change(f"/meters/{id_of(workspace, 'llm-tokens')}", name="Changed")
    done = check(workspace)
    assert done.returncode == 3
    assert body(done) == (
        "! exports     blocked: it is frozen, and the manifest has another filter or aggregation.   "
        "See: polar-iac plan -e sandbox\n"
        "! llm-tokens  changed at Polar since the last apply: name.   See: polar-iac drift -e sandbox\n"
        "\n"
        "Check: 2 things are wrong. 2 meters were looked at.\n"
    )


def test_what_waits_to_be_applied_is_no_finding(workspace: Workspace, dated: DatedPolar) -> None:
    """A filter that waits for its merge: an event that has its name is known, and none was read."""
    healthy(dated)
    workspace.write({"llm-tokens": named("export"), "exports": named("export")})
    done = check(workspace)
    assert (done.returncode, body(done)) == (0, "Check: nothing is wrong. 2 meters were looked at.\n")


@pytest.mark.unmeasured
@pytest.mark.parametrize(("hour", "code"), [(14, 3), (10, 0)])
def test_a_day_of_silence_is_seen_by_the_hour(
    workspace: Workspace, dated: DatedPolar, hour: int, code: int
) -> None:
    """It counted yesterday at noon, which was 26 hours ago, or 22."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    dated.today = noon
    dated.ingest("export", *range(1, 9))
    dated.sell(id_of(workspace, "exports"), "Pro")
    dated.today = noon.replace(hour=hour)
    done = check(workspace)
    assert (done.returncode, f"until {dated.shown(1)}, nothing since." in done.stdout) == (code, code == 3)


def test_the_page_about_it_offline(tmp_path: Path, warmed: ForkServer) -> None:
    """Every block of `docs/checking.md` that a reader can try."""
    page = (Path(__file__).parents[2] / "docs" / "checking.md").read_text(encoding="utf-8")
    _, _, offline = page.partition("## Try it offline")
    manifest, seed, _, shown = re.findall(r"^```\w+\n(.*?)^```", offline, re.DOTALL | re.MULTILINE)
    (tmp_path / "meters.yaml").write_text(manifest, encoding="utf-8")
    reader = Workspace(tmp_path, {}, warmed)
    reader.ok("apply", "-e", "local", "-y")
    with closing(LocalPolar(tmp_path / ".polar-iac" / "local.sqlite")) as local:
        sow(local, load(seed.encode()), datetime.now(UTC))
    done = reader.run("check", "-e", "local")
    assert done.returncode == 3
    days = re.compile(r" until \w{3} \d+(?:, \d{4})?,| since \w{3} \d+(?:, \d{4})?,| +(?=Price|Nearest)")
    assert days.sub("…", body(done, "local")).startswith(days.sub("…", shown))


# What cannot be read


def test_without_the_facts_token_usage_is_checked(
    workspace: Workspace, dated: DatedPolar, polar: Served
) -> None:
    dated.ingest("export", 3)
    dated.ingest("llm.completion", 4)
    done = check(workspace, POLAR_FACTS_TOKEN_SANDBOX="")
    assert done.returncode == 3
    assert body(done) == (
        f"! exports     counted 1 a day until {dated.shown(3)}, nothing since.   Prices are not known.\n"
        f"! llm-tokens  counted 1 a day until {dated.shown(4)}, nothing since.   Prices are not known.\n"
        "\n"
        f"not checked: prices and event names ({NO_TOKEN})\n"
        "Check: 2 things are wrong. 2 meters were looked at.\n"
    )
    workspace.write(
        {"llm-tokens": named("llm.completion"), "exports": named("export")},
        checks={"idle": {"ignore": ["exports", "llm-tokens"]}},
    )
    ignored = check(workspace, POLAR_FACTS_TOKEN_SANDBOX="")
    assert ignored.returncode == 0
    assert "Check: nothing is wrong in what could be read." in ignored.stdout
    assert polar.tape.exchanges[-1].path == "/v1/meters/"  # what they count is not asked


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("token", "missing"),
    [
        ("polar_oat_er_1", "prices (the token in POLAR_FACTS_TOKEN_SANDBOX lacks the scope products:read)"),
        (
            "polar_oat_pr_1",
            "event names (the token in POLAR_FACTS_TOKEN_SANDBOX lacks the scope events:read)",
        ),
        (
            "polar_oat_expired_1",
            f"prices and event names (Polar does not accept {TOKEN}: it is wrong, expired or revoked)",
        ),
    ],
)
def test_a_missing_scope(workspace: Workspace, dated: DatedPolar, token: str, missing: str) -> None:
    dated.ingest("llm.completions", 3)
    dated.ingest("export", 4)
    dated.ingest("llm.completion", 4)
    dated.sell(id_of(workspace, "exports"), "Pro")
    done = check(workspace, POLAR_FACTS_TOKEN_SANDBOX=token)
    assert done.returncode == 3
    assert f"\nnot checked: {missing}\n" in done.stdout
    assert ("Price on: Pro" in done.stdout) == (token == "polar_oat_pr_1")
    assert ("! llm.completions" in done.stdout) == (token == "polar_oat_er_1")
    assert "! exports" in done.stdout


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("failing", "missing", "code"),
    [
        ({"/events/names": 500}, "event names (GET ", 0),
        ({"/products/": 404}, "prices (GET ", 3),  # so nobody knows that the two meters may be silent
        ({"/quantities": 500}, "what exports and llm-tokens count (GET /v1/meters/ID/quantities: ", 0),
        ({"/products/": 429}, f"prices, event names and what exports and llm-tokens count {LIMITED}\n", 0),
        ({"/quantities": 429}, f"what exports and llm-tokens count {LIMITED}\n", 0),
    ],
)
def test_an_endpoint_that_fails_or_limits_hides_only_what_it_has(
    workspace: Workspace, dated: DatedPolar, failing: dict[str, int | str], missing: str, code: int
) -> None:
    healthy(dated)
    dated.failing = failing
    done = check(workspace)
    assert f"\n\nnot checked: {missing}" in done.stdout
    assert done.stdout.count("not checked") == 1
    assert (done.returncode, done.stderr) == (code, "")


def test_an_endpoint_that_hangs_ends_in_time(workspace: Workspace, dated: DatedPolar) -> None:
    dated.failing = {"/products/": "hang"}
    dated.change(f"/meters/{id_of(workspace, 'exports')}", name="Changed")
    done = check(workspace, "--facts-timeout", "0.5")
    assert done.returncode == 3
    assert "! exports  changed at Polar" in done.stdout
    assert (
        "not checked: prices, event names and what exports and llm-tokens count "
        "(the 0.5 s of --facts-timeout are over)\n"
    ) in done.stdout


def test_meters_beyond_the_budget_are_named_those_on_a_price_come_first(
    workspace: Workspace, dated: DatedPolar, polar: Served
) -> None:
    healthy(dated)
    dated.sell(id_of(workspace, "llm-tokens"), "Pro")
    before = polar.tape.count("GET")
    listed = len([e for e in polar.tape.exchanges if e.path == "/v1/meters/"])
    done = check(workspace, "--facts-requests", "3")
    assert (
        "not checked: what exports counts (the 3 requests of --facts-requests are used up)\n" in done.stdout
    )
    lists = len([e for e in polar.tape.exchanges if e.path == "/v1/meters/"]) - listed
    assert polar.tape.count("GET") - before == 3 + lists


def test_a_facts_token_of_another_organization_hides_nothing(workspace: Workspace, dated: DatedPolar) -> None:
    """It shows no event and no product, so that no meter would have a price."""
    dated.ingest("export", 3)
    nothing = json.dumps({"items": [], "pagination": {"total_count": 0, "max_page": 0}})
    dated.failing = {"/events/names": nothing, "/products/": nothing}
    done = check(workspace)
    assert done.returncode == 3
    assert f"! exports     counted 1 a day until {dated.shown(3)}, nothing since.   Prices are" in done.stdout
    assert "not checked: prices and event names (the facts token shows no event, although" in done.stdout


def test_a_token_that_may_not_read_meters_is_an_error(workspace: Workspace) -> None:
    done = check(workspace, POLAR_ACCESS_TOKEN="polar_oat_er_1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "meters:read" in done.stderr


# The command


def test_json_and_reports(workspace: Workspace, dated: DatedPolar) -> None:
    dated.ingest("export", 3)
    dated.ingest("llm.completion", 3)
    (pro,) = dated.sell(id_of(workspace, "exports"), "Pro")
    done = check(workspace, "--format", "json", "--report", "markdown=check.md", "--report", "text=check.txt")
    (found,) = json.loads(done.stdout)["check"]
    assert found["environment"] == "sandbox"
    assert (found["watched"], found["not_checked"]) == (2, [])
    (stopped,) = found["findings"]
    assert (stopped["kind"], stopped["key"], stopped["source"]["file"]) == (
        "stopped",
        "exports",
        "meters.yaml",
    )
    assert stopped["data"]["products"][0]["id"] == pro
    assert "**`exports`** counted 1 a day" in (workspace.path / "check.md").read_text(encoding="utf-8")
    again = check(workspace, "--report", "text=check.txt")
    assert (workspace.path / "check.txt").read_text(encoding="utf-8") == again.stdout
    refused = check(workspace, "--report", "text=meters.yaml")
    assert (refused.returncode, "is neither a plan nor a report" in refused.stderr) == (1, True)


def test_an_environment_that_cannot_be_read_hides_no_other(workspace: Workspace) -> None:
    done = check(workspace, "-e", "production", POLAR_ACCESS_TOKEN_PRODUCTION="no token")
    assert done.returncode == 1
    assert "! exports" in done.stdout
    assert "Not read: production." in done.stderr
    both = check(workspace, "-e", "production", "--lockfile", "x.lock.json")
    assert (both.returncode, "--lockfile names one file" in both.stderr) == (1, True)


def test_in_github_actions_it_is_in_the_summary_and_annotated(
    workspace: Workspace, dated: DatedPolar
) -> None:
    healthy(dated)
    dated.change(f"/meters/{id_of(workspace, 'exports')}", name="Changed")
    summary = workspace.path / "summary.md"
    done = check(workspace, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert "::warning file=meters.yaml,line=" in done.stderr
    assert "exports: changed at Polar since the last apply: name." in done.stderr
    assert "### Polar meters: 1 thing wrong · sandbox" in summary.read_text(encoding="utf-8")
