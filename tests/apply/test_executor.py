"""The executor, where answers are lost, refused or late: its requests, and the state that it leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polar_iac.apply.creates import MAX_SENDS
from polar_iac.apply.events import Applied, Event, Failed, Skipped
from polar_iac.apply.executor import execute
from polar_iac.apply.jobs import Limits
from polar_iac.clock import Stop
from polar_iac.meter.marker import MARKER
from polar_iac.state import journal, lockfile
from polar_iac.state.journal import Journal
from polar_iac.state.lockfile import Lockfile
from tests.support.build import PROJECT, desired, meter, plan
from tests.support.fault_trials import REFUSED, Choose, Faulty, Request, by_rule, faulty_polar
from tests.support.served_polar import Served
from tests.support.workspace import Checkout


@contextmanager
def faulty_checkout(
    directory: Path, choose: Choose, *, lookup_timeout: float = 0.0
) -> Iterator[tuple[Faulty, Checkout]]:
    with faulty_polar(choose=choose) as faulty:
        checkout = Checkout(faulty.url, directory, lookup_timeout=lookup_timeout)
        with checkout.client:
            yield faulty, checkout


def many(count: int) -> Any:
    return desired({f"m{n:02}": meter(name=f"Meter {n}") for n in range(count)})


def undone(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Applied)]


def test_a_refused_create_leaves_nothing_to_look_for(tmp_path: Path) -> None:
    """Polar said no, so there is no such meter: no journal is left, and the next apply asks for no marker."""
    looked = list[str]()
    refuse = by_rule(REFUSED, "POST", 1)

    def choose(request: Request) -> str | None:
        if "metadata" in request.query:
            looked.append(request.query)
        return refuse(request)

    with faulty_checkout(tmp_path, choose) as (_, checkout):
        assert [type(event) for event in checkout.apply(many(1))] == [Failed]
        assert not checkout.journal.exists()
        assert [type(event) for event in checkout.apply(many(1))] == [Applied]
        assert looked == []


def test_failures_count_only_in_a_row(tmp_path: Path) -> None:
    """Seven creates that come to nothing, one that is done, seven again: none goes untried."""
    good = f"{PROJECT}/m07"

    def choose(request: Request) -> str | None:
        return "503-before" if request.method == "POST" and request.subject != good else None

    manifest = many(15)
    with faulty_checkout(tmp_path, choose) as (faulty, checkout):
        events = checkout.apply(manifest, parallelism=1)
        assert len(undone(events)) == 14
        assert not any("in a row failed" in str(event) for event in events)
        assert faulty.requests["POST"] == 14 * MAX_SENDS + 1


def test_metadata_that_others_add_between_plan_and_patch_is_counted(tmp_path: Path, polar: Served) -> None:
    """Polar takes fifty keys: the whole PATCH is left, and nobody's key is lost."""
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        checkout.apply(desired({"a": meter(metadata={"ours": 1})}))
        manifest = desired({"a": meter(metadata={"ours": 2})})
        live = checkout.client.list_meters()
        planned = checkout.plan(manifest)
        foreign = {f"k{n}": n for n in range(49)}
        checkout.client.update_meter(live[0].id, {"metadata": {**foreign, MARKER: f"{PROJECT}/a"}})
        polar.tape.clear()
        with Journal(checkout.journal, checkout.recorded()) as open_journal:
            (event,) = execute(
                planned, manifest, live, checkout.client, open_journal, at_start={}, stop=Stop()
            )
        assert isinstance(event, Failed)
        assert "51 metadata keys" in event.message
        assert polar.tape.count("PATCH") == 0


def test_a_create_that_lands_after_the_lookups_is_found_by_the_sweep(tmp_path: Path) -> None:
    """Every POST of a key is lost; the first lands when the last look for it is over."""
    landed = threading.Event()
    posts = 0

    with faulty_polar() as faulty:
        checkout = Checkout(faulty.url, tmp_path, lookup_timeout=0.0)

        def choose(request: Request) -> str | None:
            nonlocal posts
            if request.method == "POST":
                posts += 1
                return "503-before"
            if (
                posts == MAX_SENDS
                and "metadata" not in request.query
                and request.lists
                and not landed.is_set()
            ):
                landed.set()
                body = {**meter(name="Meter 0"), "metadata": {MARKER: f"{PROJECT}/m00"}}
                with truth(faulty) as there:
                    there.create_meter(body)
            return None

        faulty.choose = choose
        with checkout.client:
            events = checkout.apply(many(1))
        assert landed.is_set()
        assert [type(event) for event in events] == [Applied]
        assert set(checkout.recorded().meters) == {"m00"}


@contextmanager
def truth(faulty: Faulty) -> Iterator[Any]:
    """The Polar behind the faults."""
    import httpx

    from polar_iac.polar.client import PolarClient

    transport = httpx.WSGITransport(app=faulty.polar)
    with PolarClient("http://truth", "polar_oat_test", transport=transport) as client:
        yield client


def test_a_meter_that_does_not_show_yet_stays_to_be_judged(tmp_path: Path) -> None:
    """The sweep read a replica from before the create: `made` stays in the journal, for the next run."""
    with faulty_polar(lag=30.0) as faulty:
        checkout = Checkout(faulty.url, tmp_path)
        with checkout.client:
            assert [type(event) for event in checkout.apply(many(1))] == [Applied]
            state = checkout.recorded()
            (record,) = state.meters.values()
            assert journal.read(checkout.journal, state).created == {record.id: "m00"}
            faulty.behave()
            assert checkout.apply(many(1)) == []
            assert not checkout.journal.exists()


def test_after_a_stop_nothing_more_is_asked(tmp_path: Path, polar: Served) -> None:
    """Not even for the last look at everything: the next run does that."""
    checkout, stop = Checkout(polar.url, tmp_path), Stop()
    manifest = many(6)
    with checkout.client, Journal(checkout.journal, Lockfile("sandbox", None, PROJECT)) as open_journal:
        events = list[Event]()
        for event in execute(
            plan(manifest, organization_id=None),
            manifest,
            [],
            checkout.client,
            open_journal,
            at_start={},
            stop=stop,
            limits=Limits(1),
        ):
            events.append(event)
            stop.request("SIGINT")
        assert [type(event) for event in events] == [Applied] + [Skipped] * 5
        assert [e.method for e in polar.tape.exchanges] == ["POST"]
        assert list(open_journal.created.values()) == ["m00"]
    assert lockfile.read(checkout.lockfile, "sandbox", PROJECT).meters == {}


def test_a_lost_create_is_looked_for_after_others_are_done(tmp_path: Path) -> None:
    """`m02` was sent beside the lost `m01`, and its answer says nothing about `m01`: the look goes on."""
    looks = 0
    with faulty_polar() as faulty, truth(faulty) as there:
        checkout = Checkout(faulty.url, tmp_path, lookup_timeout=10.0)

        def choose(request: Request) -> str | None:
            nonlocal looks
            if request.method == "POST" and request.subject == f"{PROJECT}/m01":
                while b'"record","key":"m02"' not in checkout.journal.read_bytes():
                    time.sleep(0.002)  # until the other one is known to be done
                return "500-before"
            if "m01" in request.query:
                looks += 1
                if looks == 2:
                    body = {**meter(name="Meter 1"), "metadata": {MARKER: f"{PROJECT}/m01"}}
                    there.create_meter(body)
            return None

        faulty.choose = choose
        with checkout.client:
            events = checkout.apply(many(3), parallelism=2)
        assert [type(event) for event in events] == [Applied] * 3
        assert looks == 2
        assert faulty.requests["POST"] == 3


def test_changes_of_filter_and_aggregation_are_sent_before_all_others(tmp_path: Path, polar: Served) -> None:
    """Polar may freeze them at any moment. Nothing else is sent beside them, and events keep their order."""
    other = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}
    keys = ("a-archive", "c-name", "d-filter", "e-sum", "f-unarchive")
    before = {key: meter(name=f"Meter {key}") for key in keys}
    after = {
        "a-archive": meter(name="Meter a-archive", archived=True),
        "b-create": meter(name="New"),
        "c-name": meter(name="Renamed"),
        # Metadata is read before it is sent, so a create that began with it would overtake it.
        "d-filter": meter(name="Meter d-filter", filter=other, metadata={"owner": "kim"}),
        "e-sum": meter(name="Meter e-sum", aggregation={"func": "sum", "property": "tokens"}),
        "f-unarchive": meter(name="Meter f-unarchive", filter=other),
    }
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        checkout.apply(desired(before))
        checkout.apply(desired(before | {"f-unarchive": meter(name="Meter f-unarchive", archived=True)}))
        polar.tape.clear()
        events = checkout.apply(desired(after))
    assert [getattr(event, "key", None) for event in events] == sorted(after)
    assert undone(events) == []
    writes = [(e.method, e.body) for e in polar.tape.exchanges if e.method != "GET"]
    urgent = [method == "PATCH" and bool({"filter", "aggregation"} & set(body)) for method, body in writes]
    assert urgent == [True] * 3 + [False] * 3
