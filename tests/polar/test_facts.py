"""The reader of facts: what it reads, and what it says when it cannot, within its budget."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from polar_iac.clock import Clock, Stop, SystemClock
from polar_iac.facts.model import Credit, EventName, Gap, Price, Source, Usage
from polar_iac.polar.facts import FactsReader
from polar_iac.polar.facts_access import Place, open_facts
from polar_iac.polar.facts_answers import EventsPage
from tests.support.build import ORGANIZATION, identifier, meter
from tests.support.local_polar import client, create
from tests.support.served_polar import Answer, Served, Tape, answer_json, scripted, served_polar

NOW = datetime(2026, 11, 26, 13, 30, tzinfo=UTC)
TOKENS = {"POLAR_ACCESS_TOKEN": "polar_oat_ro_plan", "POLAR_FACTS_TOKEN_SANDBOX": "polar_oat_facts"}
METER = identifier(1)


class FakeClock:
    """A clock that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@contextmanager
def reader(
    url: str,
    *,
    requests: int = 60,
    seconds: float = 20.0,
    clock: Clock | None = None,
    organization_id: str | None = None,
    **variables: str,
) -> Iterator[FactsReader]:
    place = Place("sandbox", "sandbox", organization_id, lambda: Path("nowhere"))
    with open_facts(
        place,
        {**TOKENS, "POLAR_BASE_URL": url, **variables},
        requests=requests,
        seconds=seconds,
        clock=clock or SystemClock(),
        now=lambda: NOW,
    ) as opened:
        yield opened


def page(*items: Any, total: int | None = None, pages: int = 1) -> Answer:
    pagination = {"total_count": len(items) if total is None else total, "max_page": pages}
    return answer_json(200, {"items": items, "pagination": pagination})


def number_of_page(path: str) -> int:
    return int(parse_qs(urlsplit(path).query)["page"][0])


def event(number: int, customer: str | None = None, external: str | None = None, **metadata: Any) -> Any:
    """An event as the list shows it, with all of its customer."""
    person = {"id": customer, "email": "ada@example.com", "name": "Ada"} if customer else None
    return {
        "id": identifier(number),
        "timestamp": "2026-11-25T21:47:43Z",
        "name": "llm.completion",
        "source": "user",
        "customer_id": customer,
        "customer": person,
        "external_customer_id": external,
        "metadata": metadata,
    }


def product(number: int, name: str, *prices: Any, archived: bool = False) -> Any:
    return {"id": identifier(number), "name": name, "is_archived": archived, "prices": prices}


def price(number: int, meter_id: str | None = METER, *, archived: bool = False, **fields: Any) -> Any:
    metered = {"amount_type": "metered_unit", "unit_amount": "0.500000000000", "meter_id": meter_id}
    return {"id": identifier(number), "is_archived": archived, **metered, **fields}


def ingest(served: Served, *events: Any) -> None:
    answer = client(served.polar).post("/events/ingest", json={"events": events})
    assert answer.status_code == 200, answer.text


class TestUsage:
    def test_days_and_life_take_one_request_each(self) -> None:
        with served_polar() as served:
            created = create(client(served.polar), **meter())
            for moment in ("2025-03-03T10:00:00Z", "2026-11-24T23:59:59Z", "2026-11-26T00:00:00Z"):
                ingest(served, {"name": "call", "external_customer_id": "c", "timestamp": moment})
            with reader(served.url) as facts:
                usage = facts.usage(created["id"], days=3)
                assert facts.requests == 2
            assert served.tape.count("GET") == 2
        assert isinstance(usage, Usage)
        assert [(day.date, day.quantity) for day in usage.days] == [
            ("2026-11-24", 1.0),
            ("2026-11-25", 0.0),
            ("2026-11-26", 1.0),
        ]
        assert (usage.life, usage.as_of) == (3.0, "2026-11-26T13:30:00Z")

    def test_a_day_without_usage_is_looked_at_by_the_hour(self) -> None:
        """The clock says 13:30. The hour that was running 24 hours ago counts as a whole."""
        with served_polar() as served:
            created = create(client(served.polar), **meter())
            ingest(served, {"name": "call", "external_customer_id": "c", "timestamp": "2026-11-25T12:59:59Z"})
            with reader(served.url) as facts:
                assert facts.is_quiet(created["id"]) is True
                ingest(
                    served, {"name": "call", "external_customer_id": "c", "timestamp": "2026-11-25T13:00:00Z"}
                )
                assert facts.is_quiet(created["id"]) is False
                assert facts.life(created["id"]) == 2.0
                assert facts.requests == 3

    def test_the_longest_range_is_one_that_polar_takes(self) -> None:
        with served_polar() as served:
            created = create(client(served.polar), **meter())
            with reader(served.url) as facts:
                usage = facts.recent_usage(created["id"], days=1000)
        assert isinstance(usage, Usage)
        assert (len(usage.days), usage.days[0].date, usage.life) == (365, "2025-11-27", None)

    def test_a_meter_that_polar_does_not_know_is_a_gap(self) -> None:
        with served_polar() as served, reader(served.url) as facts:
            gap = facts.usage(METER)
        assert isinstance(gap, Gap)
        assert (gap.source, gap.lack) == ("usage", "failed")


class TestNames:
    def test_names_are_read_with_their_times(self) -> None:
        with served_polar() as served:
            ingest(
                served,
                {"name": "llm.call", "external_customer_id": "c", "timestamp": "2026-11-20T00:00:00Z"},
                {"name": "llm.call", "external_customer_id": "c", "timestamp": "2026-11-24T00:00:00Z"},
            )
            with reader(served.url) as facts:
                names = facts.names()
                assert facts.requests == 1
        assert names == (EventName("llm.call", "user", 2, "2026-11-20T00:00:00Z", "2026-11-24T00:00:00Z"),)

    def test_another_organizations_names_are_not_shown(self) -> None:
        with served_polar() as served:
            ingest(served, {"name": "llm.call", "external_customer_id": "c"})
            with reader(served.url, organization_id=ORGANIZATION) as facts:
                assert facts.names() == ()


class TestEvents:
    def test_a_customer_is_the_same_number_on_every_page_and_nothing_else(self) -> None:
        pages = [
            [event(1, "a-id", "c_ada", tokens=1), event(2, None, "bob"), event(3)],
            [event(4, None, "bob"), event(5, "a-id")],
        ]

        def answer(_method: str, path: str, _body: bytes) -> Answer:
            return page(*pages[number_of_page(path) - 1], total=5, pages=2)

        with scripted(answer) as (url, _), reader(url) as facts:
            read = [facts.events_page("llm.completion", "a", "b", number) for number in (1, 2)]
        found = [page_ for page_ in read if isinstance(page_, EventsPage)]
        assert [[e["customer_id"] for e in page_.events] for page_ in found] == [["1", "2", None], ["2", "1"]]
        assert found[0].total == 5
        assert found[0].ids == tuple(map(identifier, (1, 2, 3)))
        assert found[0].events[0] == {
            "name": "llm.completion",
            "source": "user",
            "timestamp": "2026-11-25T21:47:43+00:00",
            "metadata": {"tokens": 1},
            "customer_id": "1",
        }
        assert not [word for word in ("c_ada", "bob", "a-id", "example") if word in repr(found)]

    def test_a_cost_is_a_number_again(self) -> None:
        """It is stored as one, and the list shows it as text."""
        cost = {"amount": "0.25", "currency": "usd"}
        with scripted(lambda *_: page(event(1, _cost=cost))) as (url, _), reader(url) as facts:
            read = facts.events_page("llm.completion", "a", "b")
        assert isinstance(read, EventsPage)
        assert read.events[0]["metadata"] == {"_cost": {"amount": 0.25, "currency": "usd"}}

    def test_events_are_asked_for_by_name(self) -> None:
        """Never by meter: that filter counts otherwise than billing does."""
        with scripted(lambda *_: page()) as (url, tape), reader(url) as facts:
            facts.events_page("a", "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", 2, 500, newest_first=True)
        assert parse_qs(tape.exchanges[0].query) == {
            "name": ["a"],
            "start_timestamp": ["2026-11-01T00:00:00Z"],
            "end_timestamp": ["2026-11-02T00:00:00Z"],
            "sorting": ["-timestamp"],
            "page": ["2"],
            "limit": ["100"],
        }


class TestPricesAndCredits:
    def test_live_metered_prices_of_all_pages_are_read(self) -> None:
        pages = [
            [
                product(
                    10, "Pro", price(20), {"id": identifier(21), "amount_type": "fixed", "price_amount": 5}
                )
            ],
            [
                product(11, "Old", price(22), archived=True),
                product(12, "Team", price(23, archived=True), price(24, None)),
                product(10, "Pro", price(20)),  # moved to the second page meanwhile
            ],
        ]

        def answer(_method: str, path: str, _body: bytes) -> Answer:
            return page(*pages[number_of_page(path) - 1], total=4, pages=2)

        with scripted(answer) as (url, tape), reader(url) as facts:
            prices = facts.prices()
        amount = "0.500000000000"
        assert prices == (
            Price(identifier(20), METER, identifier(10), "Pro", False, amount),
            Price(identifier(22), METER, identifier(11), "Old", True, amount),
        )
        assert [(e.path, e.headers["authorization"]) for e in tape.exchanges] == [
            ("/v1/products/", "Bearer polar_oat_facts")
        ] * 2

    def test_credits_are_the_benefits_of_that_type(self) -> None:
        credit = {
            "id": identifier(30),
            "type": "meter_credit",
            "description": "Free images",
            "is_deleted": False,
            "properties": {"units": 50, "rollover": True, "meter_id": METER},
        }
        other = {"id": identifier(31), "type": "custom", "description": "Support", "properties": {}}
        with scripted(lambda *_: page(credit, other)) as (url, tape), reader(url) as facts:
            credits_ = facts.credits()
        assert credits_ == (Credit(identifier(30), METER, "Free images"),)
        assert parse_qs(tape.exchanges[0].query)["type"] == ["meter_credit"]

    def test_another_organizations_token_is_not_taken_for_one_that_sells_nothing(self) -> None:
        theirs = {**product(10, "Pro", price(20)), "organization_id": identifier(99)}
        with (
            scripted(lambda *_: page(theirs)) as (url, _),
            reader(url, organization_id=ORGANIZATION) as facts,
        ):
            gap = facts.prices()
        text = "the token in POLAR_FACTS_TOKEN_SANDBOX is of another organization"
        assert gap == Gap("products", "failed", text)

    def test_a_persons_token_shows_the_organizations_own_alone(self) -> None:
        theirs = {**product(10, "Theirs", price(20)), "organization_id": identifier(99)}
        ours = {**product(11, "Ours", price(21)), "organization_id": ORGANIZATION}
        with (
            scripted(lambda *_: page(theirs, ours)) as (url, _),
            reader(url, organization_id=ORGANIZATION) as facts,
        ):
            prices = facts.prices()
        assert not isinstance(prices, Gap)
        assert [price.product for price in prices] == ["Ours"]

    def test_a_page_without_anything_new_ends_a_list(self) -> None:
        """A proxy that ignores `page` must not use the budget up."""
        with scripted(lambda *_: page(product(10, "Pro"), pages=9)) as (url, tape), reader(url) as facts:
            assert facts.prices() == ()
        assert tape.count("GET") == 2


Ask = Callable[[FactsReader], Any]
OPERATIONS: dict[Source, Ask] = {
    "usage": lambda facts: facts.usage(METER),
    "names": lambda facts: facts.names(),
    "events": lambda facts: facts.events_page("a", "x", "y"),
    "products": lambda facts: facts.prices(),
    "benefits": lambda facts: facts.credits(),
}


def asked(answer: Callable[[str, str, bytes], Answer], **options: Any) -> tuple[dict[Source, Any], Tape]:
    """Ask for everything, and return what came of it."""
    with scripted(answer) as (url, tape), reader(url, **options) as facts:
        return {source: ask(facts) for source, ask in OPERATIONS.items()}, tape


class TestGaps:
    def test_the_first_429_is_the_last_request(self) -> None:
        gaps, tape = asked(lambda *_: (429, {"retry-after": "60"}, b""))
        assert tape.count("GET") == 1
        text = "Polar limits the rate of requests (429)"
        assert gaps == {source: Gap(source, "limited", text) for source in OPERATIONS}

    def test_each_source_without_its_scope_is_asked_for_once(self) -> None:
        with (
            served_polar() as served,
            reader(served.url, POLAR_FACTS_TOKEN_SANDBOX="polar_oat_ro_x") as facts,
        ):
            gaps = [facts.names(), facts.names()]
        scope = "the token in POLAR_FACTS_TOKEN_SANDBOX lacks the scope events:read"
        assert gaps == [Gap("names", "scope", scope)] * 2
        assert served.tape.count("GET") == 1

    def test_a_facts_token_that_polar_does_not_take_is_a_failure(self) -> None:
        with served_polar() as served:
            created = create(client(served.polar), **meter())
            with reader(served.url, POLAR_FACTS_TOKEN_SANDBOX="polar_oat_expired_x") as facts:
                gap, usage = facts.names(), facts.usage(created["id"])
        refused = (
            "Polar does not accept the token in POLAR_FACTS_TOKEN_SANDBOX: it is wrong, expired or revoked"
        )
        assert gap == Gap("names", "failed", refused)
        assert isinstance(usage, Usage)

    @pytest.mark.parametrize(
        ("token", "text"),
        [
            ("", "there is no token in POLAR_FACTS_TOKEN_SANDBOX"),
            ("polar oat", "the token in POLAR_FACTS_TOKEN_SANDBOX holds characters no token has"),
        ],
    )
    def test_without_a_facts_token_only_usage_is_asked_for(self, token: str, text: str) -> None:
        gaps, tape = asked(lambda *_: answer_json(404, {}), POLAR_FACTS_TOKEN_SANDBOX=token)
        assert {e.path for e in tape.exchanges} == {f"/v1/meters/{METER}/quantities"}
        assert [gaps[source] for source in OPERATIONS if source != "usage"] == [
            Gap(source, "scope", text) for source in OPERATIONS if source != "usage"
        ]

    def test_one_request_in_all_is_sent_again(self) -> None:
        gaps, tape = asked(lambda *_: (502, {}, b"oops"))
        assert [e.path for e in tape.exchanges] == [
            *(["/v1/meters/" + METER + "/quantities"] * 2),
            *("/v1/events/names", "/v1/events/", "/v1/products/", "/v1/benefits/"),
        ]
        assert {gap.lack for gap in gaps.values()} == {"failed"}
        assert gaps["names"].text == "GET /v1/events/names: Polar failed with status 502"
        # The text is the same for all meters, so that it is said once.
        assert gaps["usage"].text == "GET /v1/meters/ID/quantities: Polar failed with status 502"

    def test_a_request_that_is_sent_again_may_succeed(self) -> None:
        answers = iter([(500, {}, b"oops"), page()])
        with scripted(lambda *_: next(answers)) as (url, _), reader(url) as facts:
            assert facts.names() == ()
            assert facts.requests == 2

    @pytest.mark.parametrize(
        "payload",
        [b"", b"[]", b"<html>", b'{"items": [5]}', b'{"items": [{}], "pagination": {"max_page": 1}}'],
    )
    def test_no_answer_raises(self, payload: bytes) -> None:
        gaps, _ = asked(lambda *_: (200, {"content-type": "application/json"}, payload))
        assert {source: gap.lack for source, gap in gaps.items()} == dict.fromkeys(OPERATIONS, "failed")

    @pytest.mark.parametrize("quantity", ["1e400", "NaN", "-Infinity", "1e307"])
    def test_a_quantity_that_is_no_number_is_no_usage(self, quantity: str) -> None:
        payload = f'{{"quantities": [], "total": {quantity}}}'.encode()
        gaps, _ = asked(lambda *_: (200, {"content-type": "application/json"}, payload))
        assert gaps["usage"].lack == "failed"

    def test_a_name_that_was_seen_at_no_time_is_no_name(self) -> None:
        item = {"name": "a", "source": "user", "occurrences": 1, "first_seen": "", "last_seen": "soon"}
        gaps, _ = asked(lambda *_: page(item))
        assert gaps["names"].lack == "failed"

    def test_a_time_that_is_none_in_utc_is_no_time(self) -> None:
        late = "9999-12-31T23:59:59-05:00"
        name = {"name": "a", "source": "user", "occurrences": 1, "first_seen": late, "last_seen": late}
        gaps, _ = asked(lambda *_: page({**event(1), **name, "timestamp": late}))
        assert (gaps["names"].lack, gaps["events"].lack) == ("failed", "failed")

    @pytest.mark.parametrize("total", [-1, 10**30])
    def test_a_list_of_an_impossible_length_is_none(self, total: int) -> None:
        gaps, _ = asked(lambda *_: page(event(1), total=total))
        assert gaps["events"].lack == "failed"

    @pytest.mark.parametrize("value", ["NaN", "1e400", r'"\ud800"'])
    def test_what_is_no_number_or_no_text_is_no_event(self, value: str) -> None:
        listed = json.dumps(event(1, tokens="?")).replace('"?"', value)
        payload = f'{{"items": [{listed}], "pagination": {{"total_count": 1, "max_page": 1}}}}'.encode()
        gaps, _ = asked(lambda *_: (200, {"content-type": "application/json"}, payload))
        assert gaps["events"].lack == "failed"

    def test_events_that_are_listed_are_not_fewer_than_the_total(self) -> None:
        with scripted(lambda *_: page(event(1), total=0)) as (url, _), reader(url) as facts:
            found = facts.events_page("a", "2026-10-26T00:00:00Z", "2026-11-26T00:00:00Z")
        assert isinstance(found, EventsPage)
        assert found.total == 1

    def test_nobody_there_is_a_failure(self) -> None:
        with reader("http://127.0.0.1:9") as facts:
            gap = facts.names()
        assert isinstance(gap, Gap)
        assert gap.lack == "failed"


class TestBudget:
    def test_no_request_more_than_the_budget_is_sent(self) -> None:
        gaps, tape = asked(lambda *_: page(), requests=2)
        assert tape.count("GET") == 2
        assert gaps["products"] == Gap("products", "budget", "the 2 requests of --facts-requests are used up")
        gaps, _ = asked(lambda *_: page(), requests=1)
        assert gaps["names"].text == "the 1 request of --facts-requests is used up"

    def test_a_list_that_is_too_long_leaves_the_budget_to_others(self) -> None:
        """Names of events that hold an id may be many thousands."""
        gaps, tape = asked(lambda *_: page({"id": identifier(1)}, pages=11))
        text = "the list has more than 1,000 entries"
        assert [gaps[source] for source in ("names", "products", "benefits")] == [
            Gap("names", "budget", text),
            Gap("products", "budget", text),
            Gap("benefits", "budget", text),
        ]
        assert [e.path for e in tape.exchanges].count("/v1/events/names") == 1

    def test_sandbox_gets_a_fifth_of_its_limit_a_minute(self) -> None:
        text = "a fifth of Polar's limit, 20 requests a minute, is used up"
        with scripted(lambda *_: page()) as (url, tape), reader(url, clock=FakeClock()) as facts:
            got = [facts.names() for _ in range(22)]
        assert got == [()] * 20 + [Gap("names", "budget", text)] * 2
        assert tape.count("GET") == 20

    def test_with_more_time_the_rest_comes_in_the_next_minute(self) -> None:
        clock = FakeClock()
        with scripted(lambda *_: page()) as (url, tape), reader(url, clock=clock, seconds=70) as facts:
            assert [facts.names() for _ in range(22)] == [()] * 22
        assert (tape.count("GET"), clock.time) == (22, 1060.0)

    def test_a_server_that_hangs_ends_everything_in_time(self) -> None:
        woken = threading.Event()

        def answer(*_: Any) -> Answer:
            woken.wait(60)
            return page()

        with scripted(answer) as (url, _), reader(url, seconds=0.2) as facts:
            gaps = [facts.names(), facts.prices()]
            woken.set()
        text = "the 0.2 s of --facts-timeout are over"
        assert gaps == [Gap("names", "timeout", text), Gap("products", "timeout", text)]
        assert facts.requests == 1

    def test_a_run_that_ends_reads_nothing_more(self) -> None:
        stop = Stop()
        stop.request("deadline")
        with scripted(lambda *_: page()) as (url, tape), reader(url, clock=SystemClock(stop)) as facts:
            assert facts.names() == Gap("names", "timeout", "the run ends: deadline")
        assert tape.count("GET") == 0


def test_the_embedded_polar_takes_its_own_token_for_everything(tmp_path: Path) -> None:
    place = Place("local", "sandbox", None, lambda: tmp_path)
    with open_facts(place, {}, requests=5, seconds=20.0, clock=SystemClock(), now=lambda: NOW) as facts:
        assert facts.names() == ()
        assert facts.requests == 1
