"""Facts over HTTP: what a plan says of them, what it lacks, and how many requests it sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from polar_iac.facts import words
from polar_iac.local import LocalPolar, RateLimit, serving
from tests.support.build import meter
from tests.support.command import Workspace, on_terminal
from tests.support.local_polar import client
from tests.support.served_polar import Served

READ, WRITE, FACTS = "polar_oat_ro_plan", "polar_oat_rw_apply", "polar_oat_facts_all"
OTHER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "calls"}]}
REPLACED = "Replaced prices, by which subscriptions may still pay, cannot be seen"

pytestmark = pytest.mark.unmeasured  # every test plans and applies several times, as those of the command do


@pytest.fixture
def facts(workspace: Workspace, polar: Served) -> Workspace:
    """Three meters are there, and a token that reads all facts."""
    workspace.environ["POLAR_ACCESS_TOKEN"] = WRITE
    workspace.write({key: meter(name=f"Meter {key}") for key in ("calls", "exports", "seats")})
    workspace.ok("apply", "-e", "sandbox", "-y")
    workspace.environ["POLAR_FACTS_TOKEN_SANDBOX"] = FACTS
    polar.tape.clear()
    return workspace


def write(workspace: Workspace, **changed: dict[str, Any]) -> None:
    """Write the three meters, with other fields in some of them."""
    keys = dict.fromkeys(("calls", "exports", "seats", *changed))
    workspace.write({key: meter(name=f"Meter {key}") | changed.get(key, {}) for key in keys})


def planned(workspace: Workspace, *arguments: str, **variables: str) -> dict[str, Any]:
    text = workspace.ok("plan", "-e", "sandbox", "--format", "json", *arguments, **variables)
    document: dict[str, Any] = json.loads(text)
    return document


def change(document: dict[str, Any], key: str) -> dict[str, Any]:
    (found,) = [change for change in document["changes"] if change["key"] == key]
    return dict(found)


def note(document: dict[str, Any], key: str, kind: str) -> dict[str, Any]:
    (found,) = [note for note in change(document, key)["evidence"] if note["kind"] == kind]
    return dict(found)


def gaps(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(gap["source"], gap["lack"]) for gap in document.get("facts", {}).get("gaps", [])]


def ingest(polar: Served, *names: str) -> None:
    events = [{"name": name, "external_customer_id": "c"} for name in names]
    answer = client(polar.polar).post("/events/ingest", json={"events": events})
    assert answer.status_code == 200, answer.text


def sell(polar: httpx.Client, workspace: Workspace, key: str, *products: str) -> None:
    """Sell the units of a meter for 50 cents, in products of these names."""
    price = {
        "amount_type": "metered_unit",
        "meter_id": workspace.lock()["meters"][key]["id"],
        "unit_amount": "50",
        "price_currency": "usd",
    }
    for name in products:
        body = {"name": name, "recurring_interval": "month", "prices": [price]}
        assert polar.post("/products/", json=body).status_code == 201


def credit(polar: httpx.Client, workspace: Workspace, key: str, description: str) -> None:
    properties = {"meter_id": workspace.lock()["meters"][key]["id"], "units": 5, "rollover": False}
    body = {"type": "meter_credit", "description": description, "properties": properties}
    assert polar.post("/benefits/", json=body).status_code == 201


class TestNotes:
    def test_what_counted_is_almost_certainly_frozen(self, facts: Workspace, polar: Served) -> None:
        ingest(polar, "call", "call")
        write(facts, calls={"filter": OTHER})
        document = planned(facts)
        said = note(document, "calls", "freeze")
        day = words.day(said["data"]["last"], said["as_of"])
        tells = "probably frozen. `polar-iac probe -e sandbox calls` tells (it needs `meters:write`)"
        assert said["text"] == f"counted 2 since {day}, last {day}: {tells}"
        assert (said["source"], said["data"]["state"], said["data"]["events"]) == ("usage", "likely", 2)
        assert "counted 2 since" in facts.ok("plan", "-e", "sandbox")

    def test_what_counted_nothing_is_probably_open(self, facts: Workspace) -> None:
        write(facts, calls={"filter": OTHER})
        assert note(planned(facts), "calls", "freeze")["text"] == (
            "counted 0 since 2023: Polar will probably accept this, unless a credit has frozen the meter; "
            "`polar-iac probe -e sandbox calls` tells"
        )

    def test_a_name_that_no_event_has_and_one_that_freezes_at_once(
        self, facts: Workspace, polar: Served
    ) -> None:
        ingest(polar, "audio.call", "call")
        misspelled = {"property": "name", "operator": "eq", "value": "audio_call"}
        write(facts, audio={"filter": {"conjunction": "and", "clauses": [misspelled]}}, more={})
        document = planned(facts)
        unseen = note(document, "audio", "unseen")
        day = words.day(unseen["data"]["nearest"]["last"], unseen["as_of"])
        assert unseen["text"] == f"no event is named `audio_call`; seen: `audio.call`, 1, last {day}"
        assert note(document, "more", "freeze")["text"] == (
            "likely frozen at once: 1 event named `call` exists, and one that matches freezes filter and "
            "aggregation"
        )

    def test_what_customers_read_names_who_reads_it(self, facts: Workspace, polar: Served) -> None:
        sell(client(polar.polar), facts, "calls", "Pro")
        write(facts, calls={"unit": "custom", "custom_label": "call", "custom_multiplier": 1000})
        assert note(planned(facts), "calls", "attached")["text"] == (
            "product Pro ($0.50 / call) uses this meter. Shown as $500.00 per 1,000 calls; charged $0.50 a "
            "call, as before"
        )


@pytest.fixture
def attached(facts: Workspace, polar: Served) -> Workspace:
    """The manifest archives `exports`, which two products bill by, and of which a benefit credits units."""
    sell(client(polar.polar), facts, "exports", "Pro", "Team")
    credit(client(polar.polar), facts, "exports", "Free exports")
    write(facts, exports={"archived": True}, seats={"name": "Renamed"})
    polar.tape.clear()
    return facts


REASON = (
    "cannot be archived: products Pro ($0.50 / unit) and Team, and benefit Free exports use it; remove them "
    f"first. {REPLACED}."
)


class TestArchives:
    def test_an_archive_says_what_the_meter_counted_of_late(self, attached: Workspace, polar: Served) -> None:
        ingest(polar, "call", "call")
        said = note(planned(attached, "--facts", "usage"), "exports", "usage")
        day = words.day(said["data"]["last"], said["as_of"])
        assert said["text"] == f"counted 2 in the last 30 days, last {day}: archived, it counts no more"

    def test_an_archive_that_polar_will_refuse_is_blocked(self, attached: Workspace) -> None:
        document = planned(attached)
        found = change(document, "exports")
        assert (found["action"], found["cause"], found["reason"]) == ("blocked", "attached", REASON)
        assert document["digest"] == planned(attached, "--facts", "none")["digest"]

    def test_an_apply_that_sees_it_never_sends_it(self, attached: Workspace, polar: Served) -> None:
        done = attached.run("apply", "-e", "sandbox", "-y")
        assert done.returncode == 1
        assert "`exports` is blocked: cannot be archived: products Pro" in done.stdout
        assert polar.tape.sent("PATCH") == [{"name": "Renamed"}]

    def test_a_review_with_facts_is_applied_by_digest_without_them(
        self, attached: Workspace, polar: Served
    ) -> None:
        """The token of the apply sees neither products nor benefits: Polar refuses the archive."""
        digest = planned(attached, POLAR_ACCESS_TOKEN=READ)["digest"]
        polar.tape.clear()
        done = attached.run("apply", "-e", "sandbox", "-y", "--digest", digest, POLAR_FACTS_TOKEN_SANDBOX="")
        assert done.returncode == 1
        sent = sorted(polar.tape.sent("PATCH"), key=str)
        assert sent == [{"is_archived": True}, {"name": "Renamed"}]
        assert {e.path for e in polar.tape.exchanges if e.method == "GET"} == {"/v1/meters/"}

    def test_a_change_that_was_reviewed_with_facts_is_made_without_them(
        self, facts: Workspace, polar: Served
    ) -> None:
        write(facts, calls={"filter": OTHER}, new={})
        document = planned(facts, POLAR_ACCESS_TOKEN=READ)
        assert note(document, "calls", "freeze")["data"]["state"] == "open"
        digest = ["--digest", document["digest"]]
        facts.ok("apply", "-e", "sandbox", "-y", *digest, POLAR_FACTS_TOKEN_SANDBOX="")
        assert (polar.tape.count("PATCH"), polar.tape.count("POST")) == (1, 1)

    def test_what_a_plan_file_shows_as_blocked_is_skipped(self, attached: Workspace, polar: Served) -> None:
        attached.ok("plan", "-e", "sandbox", "--out", "plan.json", POLAR_ACCESS_TOKEN=READ)
        done = attached.run("apply", "plan.json", "-y", POLAR_FACTS_TOKEN_SANDBOX="")
        assert (done.returncode, polar.tape.sent("PATCH")) == (1, [{"name": "Renamed"}])
        assert "`exports` is blocked: cannot be archived: products Pro" in done.stdout
        again = attached.run("apply", "plan.json", "-y", POLAR_FACTS_TOKEN_SANDBOX="")
        assert (again.returncode, polar.tape.count("PATCH")) == (1, 1)
        assert "Already applied" in again.stdout

    def test_what_facts_block_by_now_is_skipped(self, facts: Workspace, polar: Served) -> None:
        """The review saw that nothing uses the meter. Since then it is sold."""
        write(facts, exports={"archived": True})
        facts.ok("plan", "-e", "sandbox", "--out", "plan.json")
        sell(client(polar.polar), facts, "exports", "Pro")
        done = facts.run("apply", "plan.json", "-y")
        assert (done.returncode, polar.tape.count("PATCH")) == (1, 0)
        assert "cannot be archived: product Pro ($0.50 / unit) uses it; remove it first" in done.stdout

    def test_whoever_is_asked_sees_the_facts_and_is_asked_about_the_rest(
        self, attached: Workspace, polar: Served
    ) -> None:
        ingest(polar, "call")
        write(attached, exports={"archived": True}, seats={"filter": OTHER})
        code, output = on_terminal(attached, "apply", "-e", "sandbox", "--no-color", answer="y\n")
        assert code == 1, output
        words_ = " ".join(output.split())
        assert "Polar will almost certainly refuse this" in words_
        assert "blocked: cannot be archived: products Pro" in words_
        assert "Apply this change to sandbox?" in words_
        assert "is_archived" not in str(polar.tape.sent("PATCH"))

    def test_what_is_blocked_by_facts_is_no_change(self, attached: Workspace) -> None:
        """Without facts it would be two changes."""
        assert attached.run("apply", "-e", "sandbox", "-y", "--max-changes", "1").returncode == 1
        assert (
            attached.run("apply", "-e", "sandbox", "-y", "--max-changes", "0", "--facts", "none").returncode
            == 5
        )


class TestRequests:
    def test_a_plan_without_changes_sends_nothing_more(self, facts: Workspace, polar: Served) -> None:
        facts.ok("plan", "-e", "sandbox")
        assert [e.path for e in polar.tape.exchanges] == ["/v1/meters/"]

    @pytest.mark.parametrize("arguments", [("--facts", "none"), ("--offline",)])
    def test_nothing_is_asked_for_that_nobody_wants(
        self, facts: Workspace, polar: Served, arguments: tuple[str, ...]
    ) -> None:
        write(facts, calls={"filter": OTHER}, new={})
        document = planned(facts, *arguments)
        assert {e.path for e in polar.tape.exchanges} <= {"/v1/meters/"}
        assert "facts" not in document

    def test_usage_alone_needs_no_other_token(self, facts: Workspace) -> None:
        write(facts, calls={"filter": OTHER}, new={})
        document = planned(facts, "--facts", "usage", POLAR_FACTS_TOKEN_SANDBOX="")
        assert document["facts"] == {"requests": 2, "gaps": []}
        assert note(document, "calls", "freeze")["data"]["state"] == "open"

    def test_each_changed_meter_takes_few_requests(self, facts: Workspace, polar: Served) -> None:
        """Three for all of them, and at most two for each: the pages of events come on top."""
        write(facts, calls={"filter": OTHER}, exports={"archived": True}, seats={"filter": OTHER}, new={})
        document = planned(facts)
        asked = [e.path for e in polar.tape.exchanges if e.path not in ("/v1/meters/", "/v1/events/")]
        assert sorted(asked) == sorted(
            [
                *("/v1/products/", "/v1/benefits/", "/v1/events/names"),
                *(
                    f"/v1/meters/{change(document, key)['id']}/quantities"
                    for key in ("calls", "calls", "exports", "seats", "seats")
                ),
            ]
        )

    def test_never_more_than_the_budget(self, facts: Workspace, polar: Served) -> None:
        write(facts, calls={"filter": OTHER}, exports={"archived": True}, seats={"filter": OTHER}, new={})
        document = planned(facts, "--facts-requests", "4")
        assert len(polar.tape.exchanges) == 1 + 4
        assert document["facts"]["requests"] == 4
        (gap,) = document["facts"]["gaps"]
        assert (gap["source"], gap["lack"], gap["keys"]) == ("usage", "budget", ["calls", "seats", "exports"])


class TestGaps:
    @pytest.mark.parametrize(
        ("token", "missing"),
        [
            ("", ["benefits", "names", "products"]),
            ("polar_oat_er_x", ["benefits", "products"]),
            ("polar_oat_pr_x", ["benefits", "names"]),
            ("polar_oat_br_x", ["names", "products"]),
        ],
    )
    def test_each_missing_scope_is_in_the_json_and_said_with_v_alone(
        self, facts: Workspace, token: str, missing: list[str]
    ) -> None:
        write(facts, calls={"filter": OTHER}, exports={"archived": True}, new={})
        document = planned(facts, POLAR_FACTS_TOKEN_SANDBOX=token)
        found = {source: lack for source, lack in gaps(document) if source != "events"}
        assert found == dict.fromkeys(missing, "scope")
        assert note(document, "calls", "freeze")["source"] == "usage"
        quiet = facts.run("plan", "-e", "sandbox", POLAR_FACTS_TOKEN_SANDBOX=token)
        verbose = facts.run("plan", "-e", "sandbox", "-v", POLAR_FACTS_TOKEN_SANDBOX=token)
        assert "POLAR_FACTS_TOKEN_SANDBOX" not in quiet.stdout + quiet.stderr
        assert verbose.stderr.count("POLAR_FACTS_TOKEN_SANDBOX") >= len(missing)
        assert quiet.returncode == verbose.returncode == 0

    def test_an_expired_token_is_no_missing_scope(self, facts: Workspace) -> None:
        """Somebody meant the facts to be there, so the reviewer is told that they are not."""
        write(facts, calls={"filter": OTHER})
        document = planned(facts, POLAR_FACTS_TOKEN_SANDBOX="polar_oat_expired_x")
        assert dict(gaps(document)) == dict.fromkeys(["benefits", "names", "products"], "failed")
        done = facts.run("plan", "-e", "sandbox", POLAR_FACTS_TOKEN_SANDBOX="polar_oat_expired_x")
        assert done.returncode == 0
        said = " ".join(done.stdout.split())
        assert "the token in POLAR_FACTS_TOKEN_SANDBOX: it is wrong, expired or revoked" in said

    @pytest.mark.parametrize(
        ("status", "lack"), [("429 Too Many Requests", "limited"), ("502 Bad Gateway", "failed")]
    )
    def test_a_plan_is_shown_although_polar_answers_nothing_else(
        self, facts: Workspace, polar: Served, status: str, lack: str
    ) -> None:
        write(facts, calls={"filter": OTHER}, exports={"archived": True}, new={})
        with failing(polar.polar, lambda start: start(status, [("content-length", "0")])) as url:
            document = planned(facts, POLAR_BASE_URL=url)
        assert {change["key"]: change["action"] for change in document["changes"]} == {
            "calls": "update",
            "exports": "archive",
            "new": "create",
        }
        assert {found for _, found in gaps(document)} == {lack}
        assert note(document, "calls", "freeze")["data"]["state"] == "unknown"

    def test_a_plan_is_shown_although_polar_hangs(self, facts: Workspace, polar: Served) -> None:
        write(facts, calls={"filter": OTHER}, new={})
        woken = threading.Event()
        with failing(polar.polar, lambda _: woken.wait(60)) as url:
            document = planned(facts, "--facts-timeout", "0.2", POLAR_BASE_URL=url)
            woken.set()
        assert {found for _, found in gaps(document)} == {"timeout"}
        assert document["facts"]["requests"] == 1

    def test_facts_take_nothing_from_a_limit_that_is_used_up(self, facts: Workspace, polar: Served) -> None:
        """The list of meters was the last request that Polar takes. One more gets a 429, and that is all."""
        write(facts, calls={"filter": OTHER}, exports={"archived": True})
        polar.polar._rate_limit = RateLimit(1)
        document = planned(facts)
        assert [e.status for e in polar.tape.exchanges] == [200, 429]
        assert {found for _, found in gaps(document)} == {"limited"}


@contextmanager
def failing(polar: LocalPolar, fail: Callable[[Any], object]) -> Iterator[str]:
    """Serve the meters of a Polar. Whatever else is asked for is answered by `fail`."""

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/v1/meters/":
            return polar(environ, start)
        fail(start)
        return []

    with serving(app) as url:
        yield url
