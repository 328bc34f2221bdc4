"""Lockfiles kept on a remote, and a checkout that catches up with one: real git, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polar_iac.ci.checkout import catch_up, merge_base, open_checkout, read_state, require_tip
from polar_iac.ci.git import Git, GitError, environment
from polar_iac.ci.github_api import GitHubApi
from polar_iac.ci.inputs import read_inputs
from polar_iac.ci.keep_lockfiles import TRIES, Keeper, NotKeptError
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.meter.record import Record
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile
from tests.support.build import record
from tests.support.rehearsal import BOT, Hub, Runner, base_environment, github_hub

LOCKFILE = "meters.sandbox.lock.json"
CALLS = {"calls": record(1)}


class QuickClock:
    """Sleeps no time, and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with github_hub(tmp_path, None) as hub:
        yield hub


def written(**meters: Record) -> str:
    return lockfile.dumps(Lockfile("sandbox", None, "acme", meters))


def variables_of(runner: Runner, **inputs: str) -> dict[str, str]:
    given = {
        "INPUT_ENVIRONMENTS": "sandbox production",
        "INPUT_FILE": "meters.yaml",
        "INPUT_PERSIST": "commit",
        "INPUT_STATE_BRANCH": "",
        "INPUT_WORKING_DIRECTORY": ".",
        "GH_TOKEN": "ghs_secret",
    }
    named = {f"INPUT_{name.upper()}": text for name, text in inputs.items()}
    return base_environment() | runner.variables | given | named


class Keeping:
    """A runner whose apply has written a lockfile, in place of what was there."""

    def __init__(self, runner: Runner, meters: dict[str, Record], **inputs: str) -> None:
        self.variables = variables_of(runner, **inputs)
        self.checkout = open_checkout(self.variables, read_inputs(self.variables))
        self.github = GitHubApi(self.variables)
        self.clock, self.said = QuickClock(), list[str]()
        read_state(self.checkout, self.github)
        self.base = runner.temp / "base"
        self.base.mkdir()
        file = self.checkout.lockfile("sandbox")
        if file.exists():
            (self.base / "sandbox").write_bytes(file.read_bytes())
        file.write_text(written(**meters), encoding="utf-8")

    def keep(self) -> str:
        return Keeper(
            self.checkout, self.base, self.github, self.clock, self.variables, self.said.append
        ).keep()


def kept(hub: Hub, branch: str = "main") -> set[str]:
    return set(json.loads(hub.read(LOCKFILE, branch))["meters"])


def test_a_lockfile_is_committed_by_the_bot_and_only_once(hub: Hub) -> None:
    run = Keeping(hub.merged(), CALLS)
    assert run.keep() == f"The lockfile is kept on main, as {hub.tip()[:12]}.\n"
    assert hub.log() == ["Record the meters applied to sandbox", "First"]
    assert hub.git("log", "-1", "--format=%an %b", "main").startswith(f"{BOT} By meters, run 4711, at ")
    assert hub.read(LOCKFILE) + "\n" == written(**CALLS)
    # The checkout came along, for a step after this one.
    assert run.checkout.head() == hub.tip()
    assert run.checkout.git.run("status", "--porcelain") == ""
    assert run.keep() == "The lockfile on main is up to date.\n"


def test_without_a_lockfile_nothing_is_asked(hub: Hub) -> None:
    run = Keeping(hub.merged(), {})
    run.checkout.lockfile("sandbox").unlink()
    hub.remote.rename(hub.remote.with_name("away"))
    assert run.keep() == ""


def test_what_others_pushed_meanwhile_is_merged(hub: Hub) -> None:
    run = Keeping(hub.merged(), CALLS)
    hub.push({LOCKFILE: written(images=record(2)), "README.md": "More.\n"})
    before = run.checkout.head()
    run.keep()
    assert kept(hub) == {"calls", "images"}
    assert hub.read("README.md") == "More."
    assert run.checkout.head() == before  # what others pushed is not taken in


def test_a_conflict_names_the_key_and_keeps_theirs(hub: Hub) -> None:
    run = Keeping(hub.merged(), CALLS)
    hub.push({LOCKFILE: written(calls=record(2))})
    with pytest.raises(NotKeptError) as lost:
        run.keep()
    assert "of sandbox could not be kept on main: another run changed the same meter in it: `calls`" in str(
        lost.value
    )
    assert "creates nothing twice" in str(lost.value)
    assert kept(hub) == {"calls"}


def test_a_refused_push_is_not_tried_again(hub: Hub) -> None:
    hub.protect("main")
    run = Keeping(hub.merged(), CALLS)
    with pytest.raises(NotKeptError, match="GH006"):
        run.keep()
    assert run.clock.slept == [0]


def test_a_remote_that_does_not_answer_is_tried_again_and_then_named(hub: Hub) -> None:
    run = Keeping(hub.merged(), CALLS)
    hub.remote.rename(hub.remote.with_name("away"))
    with pytest.raises(
        NotKeptError, match=f"in {TRIES} tries.\n.*does not appear to be a git repository"
    ) as lost:
        run.keep()
    assert run.clock.slept == [0, 0, 1, 2, 3, 4]
    assert len(run.said) == TRIES
    assert "ghs_secret" not in str(lost.value)


def test_a_remote_that_is_briefly_away_is_no_reason_to_fail(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Keeping(hub.merged(), CALLS)
    away = hub.remote.rename(hub.remote.with_name("away"))
    monkeypatch.setattr(run.clock, "sleep", lambda seconds: seconds and away.rename(hub.remote))
    run.keep()
    assert kept(hub) == {"calls"}


def test_a_branch_that_moves_during_the_push_is_merged_with(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Keeping(hub.merged(), CALLS)
    real, others = Git.run, iter([{LOCKFILE: written(images=record(2))}])

    def push(self: Git, *arguments: str, **options: Any) -> str:
        if arguments[0] == "push" and (files := next(others, None)):
            hub.push(files)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Git, "run", push)
    run.keep()
    assert run.said == ["main has moved on: merging with what is there now"]
    assert kept(hub) == {"calls", "images"}


def test_a_branch_of_lockfiles_holds_nothing_else(hub: Hub) -> None:
    run = Keeping(hub.merged(), CALLS, persist="branch")
    assert "is kept on polar-iac-state" in run.keep()
    assert hub.files("polar-iac-state") == [LOCKFILE]
    assert hub.log("polar-iac-state") == ["Record the meters applied to sandbox"]
    again = Keeping(hub.merged(), CALLS | {"images": record(2)}, persist="branch")
    assert (again.base / "sandbox").read_text(encoding="utf-8") == written(**CALLS)
    again.keep()
    assert kept(hub, "polar-iac-state") == {"calls", "images"}


def test_a_branch_of_lockfiles_is_looked_at_whole(hub: Hub) -> None:
    """Names that are not ASCII are found, and from any directory."""
    hub.push({"zähler/meters.yaml": "x"})
    below = {"persist": "branch", "working_directory": "zähler"}
    Keeping(hub.merged(), CALLS, persist="branch").keep()
    for number in (1, 2):
        Keeping(hub.merged(), {"calls": record(1, name=f"Name {number}")}, **below).keep()
    assert hub.git("ls-tree", "-r", "-z", "--name-only", "polar-iac-state").split("\0")[:-1] == [
        LOCKFILE,
        f"zähler/{LOCKFILE}",
    ]
    assert "Name 2" in hub.read(f"zähler/{LOCKFILE}", "polar-iac-state")
    hub.push({"README.md": None, "meters.yaml": None, "zähler/meters.yaml": "x"}, branch="other")
    odd = Keeping(hub.merged(), CALLS, state_branch="other", **below)
    with pytest.raises(NotKeptError, match=r"other holds more than lockfiles \(zähler/meters.yaml\)"):
        odd.keep()


def test_a_pull_request_is_opened_updated_and_forgotten_once_merged(hub: Hub) -> None:
    def keep(*keys: str) -> str:
        meters = {key: record(number) for number, key in enumerate(keys)}
        return Keeping(hub.merged(), meters, persist="pull-request").keep()

    keep("calls")
    (pull,) = hub.state["pulls"]
    assert (pull["head"], pull["base"]) == ("polar-iac-lockfile-main", "main")
    keep("calls", "images")
    assert len(hub.state["pulls"]) == 1
    assert kept(hub, "polar-iac-lockfile-main") == {"calls", "images"}
    # Merged: its branch counts no more, and begins anew at the tip of main.
    hub.move("main", to="polar-iac-lockfile-main")
    hub.write_state(pulls=[pull | {"state": "closed"}])
    tip = hub.push({"README.md": "More.\n"})
    keep("calls", "images", "audio")
    assert len(hub.state["pulls"]) == 2
    assert hub.git("merge-base", "main", "polar-iac-lockfile-main") == tip
    hub.write_state(forbidden=True)
    with pytest.raises(NotKeptError, match="allow GitHub Actions to create pull requests") as refused:
        keep("calls")
    assert "stands on the branch polar-iac-lockfile-main, without a pull request" in str(refused.value)
    hub.write_state(forbidden="reading")
    with pytest.raises(PolarIacError, match="needs the permission pull-requests: read"):
        keep("calls")


# What may be applied


def opened(runner: Runner, **inputs: str) -> Any:
    variables = variables_of(runner, **inputs)
    return open_checkout(variables, read_inputs(variables))


def test_commits_of_lockfiles_alone_make_no_commit_old(hub: Hub) -> None:
    checkout = opened(hub.merged())
    require_tip(checkout)
    tip = hub.push({LOCKFILE: written(), f"eu/{LOCKFILE}": written()})
    require_tip(checkout)
    assert checkout.head() == tip
    hub.push({"README.md": "More.\n"})
    assert not catch_up(checkout)
    with pytest.raises(PolarIacError, match="is not the tip of main any more") as old:
        require_tip(checkout)
    assert old.value.exit_code == ExitCode.REFUSED
    hub.git("update-ref", "-d", "refs/heads/main")
    with pytest.raises(PolarIacError, match="the branch main is gone"):
        require_tip(checkout)
    hub.remote.rename(hub.remote.with_name("away"))
    with pytest.raises(PolarIacError, match="the remote cannot be read"):
        require_tip(checkout)


def test_a_rewritten_past_is_nobodys_tip(hub: Hub) -> None:
    first = hub.tip()
    hub.push({LOCKFILE: written()})
    checkout = opened(hub.merged())
    hub.move("main", to=first)
    assert not catch_up(checkout)


# The checkout


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"working_directory": "eu"}, "working-directory: there is no eu in the workspace"),
        ({"file": "m.yaml"}, "there is no m.yaml in ."),
        ({"file": "$(touch pwned)"}, r"there is no \$\(touch pwned\)"),
        ({"persist": "branch", "state_branch": "a b"}, "state-branch: a b is no name of a branch"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, inputs: dict[str, str], message: str) -> None:
    with pytest.raises(PolarIacError, match=message):
        opened(hub.merged(), **inputs)


def test_a_workspace_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    (tmp_path / "meters.yaml").touch()
    variables = {
        **base_environment(),
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_REF": "refs/heads/main",
        "INPUT_ENVIRONMENTS": "sandbox",
        "INPUT_FILE": "meters.yaml",
        "INPUT_PERSIST": "commit",
        "INPUT_STATE_BRANCH": "",
        "INPUT_WORKING_DIRECTORY": ".",
        "GIT_CEILING_DIRECTORIES": str(tmp_path.parent),
    }
    with pytest.raises(PolarIacError, match="git cannot read the checkout: let actions/checkout make it"):
        open_checkout(variables, read_inputs(variables))
    with pytest.raises(PolarIacError, match="there is no git on this runner"):
        open_checkout(variables | {"PATH": "/nowhere"}, read_inputs(variables))


def test_lockfiles_are_beside_the_manifest_also_in_a_directory(hub: Hub) -> None:
    hub.push({"zähler/eu/meters.x.yaml": "x"})
    checkout = opened(hub.merged(), working_directory="zähler", file="eu/meters.x.yaml")
    assert checkout.in_repository("sandbox") == "zähler/eu/meters.x.sandbox.lock.json"
    assert checkout.manifest_in_repository == "zähler/eu/meters.x.yaml"
    assert checkout.lockfile("sandbox").parent == checkout.manifest.parent


def test_a_shallow_checkout_is_deepened_to_the_merge_base(hub: Hub) -> None:
    base = hub.tip()
    topic = hub.push({"topic.txt": "x"}, branch="topic")
    for number in range(3):
        hub.push({"README.md": f"{number}\n"})
    checkout = opened(hub.pull_request("topic"))
    assert merge_base(checkout.git, hub.tip(), topic) == base
    assert merge_base(checkout.git, "0" * 40, topic) is None


def test_the_token_goes_through_the_environment_and_takes_the_place_of_another(tmp_path: Path) -> None:
    """Two headers are an error 400 at GitHub; and arguments are seen by every process."""
    (tmp_path / ".git").mkdir()
    below = tmp_path / "a"
    below.mkdir()
    git = environment({"GH_TOKEN": "t", "GIT_CONFIG_COUNT": "2", "GITHUB_SERVER_URL": "https://ghe"}, below)
    settings = [(git[f"GIT_CONFIG_KEY_{n}"], git[f"GIT_CONFIG_VALUE_{n}"]) for n in range(2, 6)]
    assert git["GIT_CONFIG_COUNT"] == "6"
    assert settings == [
        ("maintenance.auto", "false"),
        ("safe.directory", str(tmp_path.resolve())),
        ("http.https://ghe/.extraheader", ""),
        ("http.https://ghe/.extraheader", "AUTHORIZATION: basic eC1hY2Nlc3MtdG9rZW46dA=="),
    ]
    assert not any("extraheader" in value for value in environment({}, below).values())


def test_a_failed_command_of_git_says_what_git_said(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="git show failed: fatal: ") as error:
        Git(tmp_path, base_environment() | {"GIT_CEILING_DIRECTORIES": str(tmp_path)}).run("show", "HEAD")
    assert error.value.code == 128
