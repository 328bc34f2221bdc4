"""Environments that the manifest defines: their names, tokens, addresses, organizations and prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click
import pytest

from polar_iac.cli import options
from polar_iac.cli.main import cli
from polar_iac.errors import PolarIacError
from polar_iac.local import LocalPolar
from polar_iac.polar.environments import base_url, token
from tests.support.build import ORGANIZATION, meter
from tests.support.command import Workspace, on_terminal
from tests.support.served_polar import Served, served_polar

EU = {"eu-west": {"server": "production"}}


@pytest.fixture
def defined(workspace: Workspace, polar: Served) -> Workspace:
    """A directory whose `eu-west` is `polar`."""
    workspace.environ = {"POLAR_BASE_URL_EU_WEST": polar.url, "POLAR_ACCESS_TOKEN_EU_WEST": "polar_oat_eu"}
    workspace.write({"a": meter(), "b": meter(name="Second", environments=["sandbox"])}, environments=EU)
    return workspace


def test_an_apply_writes_a_lockfile_of_its_own(defined: Workspace, polar: Served) -> None:
    assert "→ eu-west" in defined.ok("plan", "-e", "eu-west", "--out", "plan.json")
    defined.ok("apply", "plan.json", "-y")
    assert defined.lock("eu-west")["environment"] == "eu-west"
    assert [body["name"] for body in polar.tape.sent("POST")] == ["API calls"]
    assert "No changes. 1 meter matches the manifest." in defined.ok("plan", "-e", "eu-west")
    assert defined.ok("list").split()[:2] == ["eu-west", "a"]


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("server", "answer", "created"),
    [
        ("production", "y", False),
        ("production", "production", False),
        ("production", "eu-west", True),
        ("sandbox", "y", True),
    ],
)
@pytest.mark.unmeasured
def test_a_production_server_asks_for_the_name_of_the_environment(
    defined: Workspace, polar: Served, server: str, answer: str, created: bool
) -> None:
    defined.write({"a": meter()}, environments={"eu-west": {"server": server}})
    code, output = on_terminal(defined, "apply", "-e", "eu-west", answer=f"{answer}\n")
    assert polar.tape.count("POST") == created, output
    assert code == (0 if created else 1)
    assert ("Type `eu-west` to apply" in output) == (server == "production")


@pytest.mark.parametrize(
    ("environment", "advice"),
    [("eu-wst", "did you mean eu-west?"), ("us", "define it under `environments`")],
)
def test_an_environment_that_nothing_defines_is_an_error(
    defined: Workspace, environment: str, advice: str
) -> None:
    for command in ("plan", "apply", "list"):
        done = defined.run(command, "-e", environment)
        assert done.returncode == 1
        assert f"{environment} is none of production, sandbox, local, eu-west: {advice}" in done.stderr


def test_a_meter_that_is_live_where_it_is_not_declared_is_blocked_alone(
    defined: Workspace, polar: Served
) -> None:
    defined.write({"a": meter(), "b": meter(name="Second")}, environments=EU)
    defined.ok("apply", "-e", "eu-west", "-y")
    defined.write(
        {"a": meter(name="First"), "b": meter(name="Second", environments=["sandbox"])}, environments=EU
    )
    done = defined.run("apply", "-e", "eu-west", "-y")
    assert done.returncode == 1
    assert "1 updated" in done.stdout
    assert "--allow-archive -e eu-west" in done.stdout
    assert "archived: true" not in done.stdout + done.stderr
    assert re.search(r"^meters.yaml:\d+:\d+: error: `b` is blocked: ", done.stdout, re.MULTILINE)
    defined.ok("apply", "-e", "eu-west", "-y", "--allow-archive")
    assert [body.get("is_archived") for body in polar.tape.sent("PATCH")] == [None, True]
    assert set(defined.lock("eu-west")["meters"]) == {"a"}
    assert "No changes. 1 meter matches the manifest." in defined.ok("plan", "-e", "eu-west")


def test_the_organization_of_another_environment_is_refused(defined: Workspace, polar: Served) -> None:
    """A token that was copied to another variable would manage the same meters under two lockfiles."""
    defined.ok("apply", "-e", "eu-west", "-y")
    environments = {**EU, "us": {"server": "production"}}
    defined.write({"a": meter()}, environments=environments)
    variables = {"POLAR_BASE_URL_US": polar.url, "POLAR_ACCESS_TOKEN_US": "polar_oat_eu"}
    done = defined.run("apply", "-e", "us", "-y", **variables)
    assert done.returncode == 5
    assert "which is that of eu-west" in done.stderr
    assert not (defined.path / "meters.us.lock.json").exists()


def test_the_organization_that_another_environment_pins_is_refused(defined: Workspace) -> None:
    with served_polar(LocalPolar(organization_id=ORGANIZATION)) as other:
        theirs = {"POLAR_BASE_URL_EU_WEST": other.url}
        defined.write({"a": meter()}, environments=EU)
        defined.ok("apply", "-e", "eu-west", "-y", **theirs)
        (defined.path / "meters.eu-west.lock.json").unlink()
        defined.write({"a": meter()}, environments={**EU, "production": {"organization_id": ORGANIZATION}})
        done = defined.run("plan", "-e", "eu-west", **theirs)
    assert done.returncode == 5
    assert "which is that of production" in done.stderr


GENERAL = {"POLAR_ACCESS_TOKEN": "polar_oat_general", "POLAR_BASE_URL": "https://general.example"}
OWN = {
    "POLAR_ACCESS_TOKEN_EU_WEST": "polar_oat_own",
    "POLAR_BASE_URL_EU_WEST": "https://own.example",
    "POLAR_ACCESS_TOKEN_SANDBOX": "polar_oat_sandbox",
    "POLAR_BASE_URL_SANDBOX": "https://sandbox.example",
}


@pytest.mark.parametrize(
    ("environment", "server", "variables", "address"),
    [
        ("eu-west", "production", OWN | GENERAL, "https://own.example"),
        ("eu-west", "production", GENERAL, "https://api.polar.sh"),
        ("eu-west", "sandbox", GENERAL, "https://sandbox-api.polar.sh"),
        ("sandbox", "sandbox", OWN | GENERAL, "https://sandbox.example"),
        ("sandbox", "sandbox", GENERAL, "https://general.example"),
        ("production", "production", {}, "https://api.polar.sh"),
    ],
)
def test_an_address_is_that_of_the_server_or_of_a_variable(
    environment: str, server: str, variables: Mapping[str, str], address: str
) -> None:
    assert base_url(environment, server, variables) == address


@pytest.mark.parametrize(
    ("environment", "variables", "pinned", "own"),
    [
        ("eu-west", OWN | GENERAL, False, "polar_oat_own"),
        ("eu-west", GENERAL, True, "polar_oat_general"),
        ("sandbox", OWN | GENERAL, False, "polar_oat_sandbox"),
        ("sandbox", GENERAL, False, "polar_oat_general"),
    ],
)
def test_a_token_is_the_environments_own_or_one_that_is_known_to_be(
    environment: str, variables: Mapping[str, str], pinned: bool, own: str
) -> None:
    assert token(environment, variables, pinned=pinned) == own


@pytest.mark.parametrize(
    ("variables", "pinned", "message"),
    [
        (
            GENERAL,
            False,
            r"POLAR_ACCESS_TOKEN_EU_WEST to an .*\. POLAR_ACCESS_TOKEN is not used, since eu-west",
        ),
        ({}, False, r"POLAR_ACCESS_TOKEN_EU_WEST to an .*apply$"),
        ({}, True, r"POLAR_ACCESS_TOKEN_EU_WEST \(or POLAR_ACCESS_TOKEN\) to an .*apply$"),
    ],
)
def test_a_defined_environment_takes_the_general_token_only_where_its_organization_is_pinned(
    variables: Mapping[str, str], pinned: bool, message: str
) -> None:
    with pytest.raises(PolarIacError, match=f"no token for eu-west: set {message}"):
        token("eu-west", variables, pinned=pinned)


def test_completion_offers_the_environments_without_a_definition() -> None:
    option = options.Environment()
    offered = option.shell_complete(click.Context(cli), click.Option(["-e"]), "s")
    assert [item.value for item in offered] == ["sandbox"]
