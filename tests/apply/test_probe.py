"""The probe in this process: what it takes for an answer, and what it leaves on disk however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from polar_iac.apply.probe import Probed, Refused, Subject, probe_meters, subjects_of
from polar_iac.apply.session import ApplySession
from polar_iac.clock import Stop, SystemClock
from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import LiveMeter
from polar_iac.polar.client import PolarClient
from polar_iac.polar.errors import ApiError
from polar_iac.state.journal import Journal, read
from tests.support.build import ORGANIZATION, desired, identifier, live, meter
from tests.support.served_polar import Answer, answer_json, scripted, served_polar
from tests.support.workspace import Checkout

METER = {
    **meter(name="Calls", metadata={"polar_iac": "acme/calls"}),
    "created_at": "2026-01-01T00:00:00.000001Z",
    "id": identifier(1),
    "organization_id": ORGANIZATION,
}
FORBIDDEN = {"type": "forbidden", "loc": ["body", "filter"], "msg": "already aggregating", "input": None}


def refusal(*entries: dict[str, Any]) -> Answer:
    return answer_json(422, {"error": "PolarRequestValidationError", "detail": entries})


def asked(answer: Answer) -> bool:
    """The client's word for an answer. Whatever it is, Polar was asked once."""
    with (
        scripted(lambda *_: answer) as (url, tape),
        PolarClient(url, "polar_oat_test") as client,
    ):
        try:
            return client.is_frozen(live(1, name="Calls"))
        finally:
            assert [(e.method, e.body) for e in tape.exchanges] == [("PATCH", {"filter": None})]


@pytest.mark.parametrize(("answer", "frozen"), [(answer_json(200, METER), False), (refusal(FORBIDDEN), True)])
def test_the_two_answers_that_are_known(answer: Answer, frozen: bool) -> None:
    assert asked(answer) is frozen


@pytest.mark.parametrize(
    "answer",
    [
        refusal(),
        refusal(FORBIDDEN, FORBIDDEN),
        refusal({**FORBIDDEN, "type": "missing"}),
        refusal({**FORBIDDEN, "loc": ["body", "aggregation"]}),
        answer_json(201, METER),
        answer_json(200, {**METER, "id": identifier(2)}),
        answer_json(200, {**METER, "filter": {"conjunction": "and", "clauses": []}}),
        answer_json(200, {}),
        (204, {}, b""),
        answer_json(404, {"error": "ResourceNotFound", "detail": "Not found"}),
        (500, {"content-type": "text/plain"}, b"Internal Server Error"),
        (503, {}, b""),
    ],
)
def test_any_other_answer_is_an_error_and_is_not_asked_for_again(answer: Answer) -> None:
    with pytest.raises(ApiError):
        asked(answer)


def test_a_rate_limit_is_waited_out() -> None:
    answers = iter([(429, {"retry-after": "0"}, b""), refusal(FORBIDDEN)])
    with scripted(lambda *_: next(answers)) as (url, tape), PolarClient(url, "polar_oat_test") as client:
        assert client.is_frozen(live(1, name="Calls"))
        assert tape.sent("PATCH") == [{"filter": None}] * 2


KEYS = ("calls", "images", "seats")
MANIFEST = desired({key: meter(name=f"Meter {key}") for key in KEYS})


@contextmanager
def probing(
    checkout: Checkout, manifest: Manifest = MANIFEST
) -> Iterator[tuple[ApplySession, list[Subject]]]:
    """A session over an open journal, and the meters that it asks about."""
    recorded = checkout.recorded()
    with Journal(checkout.journal, recorded) as journal:
        session = ApplySession(manifest, recorded, checkout.lockfile, journal, limits=checkout.limits)
        found = session.read_live(checkout.client)
        subjects, left = subjects_of(session.plan(found), manifest.meters, journal.meters, found, ())
        assert left == []
        yield session, subjects


@contextmanager
def applied(directory: Path) -> Iterator[Checkout]:
    """Three applied meters, all frozen at Polar."""
    with served_polar() as served:
        checkout = Checkout(served.url, directory)
        with checkout.client:
            checkout.apply(MANIFEST)
            for record in checkout.recorded().meters.values():
                served.polar.freeze(record.id)
            yield checkout


def frozen(checkout: Checkout) -> list[str]:
    """The keys that lockfile and journal together say are frozen."""
    return [
        key for key, record in read(checkout.journal, checkout.recorded()).meters.items() if record.frozen
    ]


def test_a_crash_loses_no_answer(tmp_path: Path) -> None:
    """The first answer is on disk when it is known, and the next apply brings it into the lockfile."""
    with applied(tmp_path) as checkout:
        with probing(checkout) as (session, subjects):
            steps = probe_meters(session, subjects, checkout.client)
            next(steps)
            assert [record.frozen for record in checkout.recorded().meters.values()] == [False] * 3
            assert frozen(checkout) == ["calls"]
            steps.close()  # type: ignore[attr-defined]  # it is a generator
        checkout.apply(MANIFEST)
        assert not checkout.journal.exists()
        assert [key for key, record in checkout.recorded().meters.items() if record.frozen] == ["calls"]


def test_an_unknown_answer_ends_it_and_keeps_what_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with applied(tmp_path) as checkout, probing(checkout) as (session, subjects):
        ask = checkout.client.is_frozen

        def answer(of: LiveMeter) -> bool:
            if of.name == "Meter images":
                raise ApiError("Polar said something else")
            return ask(of)

        monkeypatch.setattr(checkout.client, "is_frozen", answer)
        first, second = probe_meters(session, subjects, checkout.client)
        assert isinstance(first, Probed)
        assert second == Refused("images", subjects[1].meter.id, "Polar said something else")
        assert [key for key, record in checkout.recorded().meters.items() if record.frozen] == ["calls"]
        assert not checkout.journal.exists()


def test_a_stop_ends_it_and_keeps_what_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    with applied(tmp_path) as checkout, probing(checkout) as (session, subjects):
        monkeypatch.setattr(checkout.client, "_clock", SystemClock(stop))
        steps = probe_meters(session, subjects, checkout.client)
        next(steps)
        stop.request("SIGINT")
        assert list(steps) == []
        assert frozen(checkout) == ["calls"]
        assert not checkout.journal.exists()
