"""The embedded Polar against recorded exchanges with the real server, every word of them."""

from __future__ import annotations

import importlib.util
import json
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from polar_iac.local import LocalPolar, serving
from polar_iac.local.admin import AdministeredPolar
from polar_iac.local.organizations import NAME

WIRE = Path(__file__).parents[3] / "shared" / "wire"
REPLAY = WIRE / "replay.py"


def recorded(name: str) -> list[dict[str, Any]]:
    path = WIRE / name
    # The one organization of the recordings is named as ours is; all else of it is compared.
    return json.loads(path.read_text("utf-8").replace("Rec A", NAME)) if path.exists() else []


SCENARIOS = recorded("sample.json")
AROUND = recorded("events-sample.json")
LEFT_OUT = {
    "events-filter-json": "`filter` is read by the analytics store alone, where absent numbers are 0",
}
"""Scenarios that are not replayed, and why. That store reads `meter_id` too, but agrees in the one here."""

TOKENS = {
    "rw": "polar_oat_all",
    "ro": "polar_oat_ro_1",
    "wo": "polar_oat_wo_1",
    "expired": "polar_oat_expired_1",
    "no_meters": "polar_oat_noscope_1",
    "pat": "polar_pat_1",
}
STRICT = Namespace(
    reset_cmd="reset",
    admin_cmd="admin",
    no_headers=False,
    lenient=False,
    lenient_unions=False,
    all=True,
    max_retry=0,  # nothing lags here
)

pytestmark = pytest.mark.skipif(not SCENARIOS or not REPLAY.exists(), reason="no recorded exchanges here")


@pytest.fixture(scope="module")
def replay_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("replay", REPLAY)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def replay(replay_module: ModuleType) -> Iterator[Any]:
    """The replay of a scenario, its commands done in this process."""
    with closing(LocalPolar()) as app, serving(app) as url:

        class Replay(replay_module.Replay):  # type: ignore[name-defined, misc]
            def command(self, name: str, *arguments: str) -> None:
                if name == "reset":
                    app.reset()
                else:
                    action, meter_id = arguments
                    getattr(app, action)(meter_id)

        done = Replay(replay_module.Client(url, TOKENS), STRICT)
        done.globals["ORG"] = app.organization_id
        yield done


@pytest.fixture(scope="module")
def administered(replay_module: ModuleType) -> Iterator[Any]:
    """The replay of a scenario against an embedded Polar with its administration, which it asks over HTTP."""
    with (
        closing(LocalPolar()) as app,
        closing(AdministeredPolar(app)) as administered,
        serving(administered) as url,
        httpx.Client(base_url=url) as admin,
    ):

        class Replay(replay_module.Replay):  # type: ignore[name-defined, misc]
            def command(self, command: str, *arguments: str) -> str:
                kind, *rest = arguments or (command,)
                body = {"organization_id": self.globals["ORG"]} if "ORG" in self.globals else {}
                for argument in rest:
                    body |= json.loads(argument) if argument.startswith("{") else {"meter": argument}
                answer = admin.post(f"/__admin/{kind}", json=body)
                assert answer.status_code == 200, answer.text
                return answer.text

        yield Replay(replay_module.Client(url, {}), STRICT)


@pytest.mark.unmeasured  # the same lines over and over; `test_usage.py` and `test_catalog.py` go through each
@pytest.mark.parametrize("scenario", AROUND, ids=lambda s: s["name"])
def test_what_is_around_a_meter_is_answered_as_recorded(administered: Any, scenario: dict[str, Any]) -> None:
    if reason := LEFT_OUT.get(scenario["name"]):
        pytest.skip(reason)
    assert administered.scenario(scenario) == ("PASS", [])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s["name"])
def test_the_answers_are_the_recorded_ones(replay: Any, scenario: dict[str, Any]) -> None:
    assert replay.scenario(scenario) == ("PASS", [])


def test_the_comparison_notices_a_different_answer(replay: Any) -> None:
    """The replay itself can fail: nothing here is compared by accident."""
    scenario = json.loads(json.dumps(SCENARIOS[0]))
    scenario["steps"][0]["response"]["body"]["name"] = "Another"
    verdict, lines = replay.scenario(scenario)
    assert verdict == "FAIL"
    assert "body /name" in lines[0]
