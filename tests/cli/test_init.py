"""The command `init`: what it writes passes without an edit, and nothing is overwritten."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

import polar_iac.cli
from polar_iac.cli.repository import Source, own_source, repository_of, source_of
from polar_iac.cli.scaffold import WORKFLOWS, manifest_text, project_name, workflow_text
from polar_iac.manifest import read as manifest
from polar_iac.manifest.schema import manifest_schema
from tests.support.build import meter
from tests.support.command import Workspace
from tests.support.fork_server import ForkServer
from tests.support.golden import golden
from tests.support.served_polar import Served

ROOT = Path(__file__).parents[2]
TEMPLATES = Path(polar_iac.cli.__file__).parent / "templates"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Source("acme/polar-iac", COMMIT, "v1.2.3")


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, warmed: ForkServer) -> Workspace:
    """An empty git repository."""
    directory = tmp_path / "Acme Billing!"
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main")
    return Workspace(directory, {}, warmed)


def check(directory: Path, tool: str, *arguments: str) -> None:
    """Run a tool of the development environment; it has to find nothing."""
    command = [str(Path(sys.executable).with_name(tool)), *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(own_source().commit is None, reason="polar-iac was not installed from a checkout")
def test_what_is_written_passes_every_check_without_an_edit(repository: Workspace) -> None:
    said = repository.ok("init", "--github")
    assert said.startswith(
        "Wrote meters.yaml.\nWrote .github/workflows/meters.yml.\nWrote .github/workflows/drift.yml.\n\n"
        "Left to do:\n  1. Declare your meters"
    )
    assert repository.ok("validate") == "meters.yaml: 0 meters are fine.\n"
    assert "No changes" in repository.ok("plan", "-e", "sandbox", "--offline")
    workflows = [str(path) for path in (repository.path / ".github" / "workflows").iterdir()]
    check(repository.path, "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    check(repository.path, "zizmor", "--offline", "--no-progress", "--strict-collection", ".github")
    text = (repository.path / "meters.yaml").read_text(encoding="utf-8")
    assert "\nproject: acme-billing " in text
    source = own_source()
    assert text.startswith(
        f"# yaml-language-server: $schema=https://raw.githubusercontent.com/{source.repository}/{source.commit}/"
    )


def test_nothing_is_overwritten(repository: Workspace) -> None:
    workflow = repository.path / ".github" / "workflows" / "meters.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("mine")
    (repository.path / "meters.yaml").symlink_to("nowhere")
    said = repository.ok("init", "--github")
    assert "meters.yaml is there already, and left as it is." in said
    assert ".github/workflows/meters.yml is there already, and left as it is." in said
    assert "Wrote .github/workflows/drift.yml." in said
    assert workflow.read_text() == "mine"
    assert not (repository.path / "nowhere").exists()


def test_without_github_only_the_manifest_is_written(tmp_path: Path, warmed: ForkServer) -> None:
    workspace = Workspace(tmp_path, {}, warmed)
    said = workspace.ok("init", "--project", "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["meters.yaml"]
    assert manifest.read(tmp_path / "meters.yaml").project == "mine"
    assert "GitHub" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--github"], "--github writes into a git repository, and this is none: run `git init` first"),
        (["--project", "Mine"], "--project takes 1 to 63 of a-z"),
        (["-f", "nowhere/meters.yaml"], "there is no directory nowhere"),
        (["-f", "-"], "standard input"),
    ],
)
def test_a_mistake_writes_nothing(
    tmp_path: Path, warmed: ForkServer, arguments: list[str], message: str
) -> None:
    done = Workspace(tmp_path, {}, warmed).run("init", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "meters"), [(1, "1 meter"), (3, "3 meters")])
def test_meters_without_an_owner_are_counted_and_left_alone(
    workspace: Workspace, polar: Served, count: int, meters: str
) -> None:
    headers = {"Authorization": "Bearer polar_oat_x"}
    for number in range(count):
        body = meter(name=f"Meter {number}")
        httpx.post(f"{polar.url}/v1/meters/", json=body, headers=headers).raise_for_status()
    polar.tape.clear()
    variables = {"POLAR_BASE_URL_SANDBOX": polar.url, "POLAR_ACCESS_TOKEN_SANDBOX": "polar_oat_x"}
    workspace.environ = variables | {"POLAR_ACCESS_TOKEN_PRODUCTION": "not a token"}
    said = workspace.reads_only("init", "--project", "mine").stdout
    assert f"sandbox has {meters} without an owner: `polar-iac import -e sandbox --all`." in said
    assert "The meters of production could not be counted: " in said
    assert "not a token" not in said


def test_the_templates_are_the_workflows_of_the_guide() -> None:
    """They use the same version of the checkout as this repository's own."""
    guide = (ROOT / "docs" / "github.md").read_text(encoding="utf-8")
    own = (ROOT / ".github" / "workflows" / "meters.yml").read_text(encoding="utf-8")
    (checkout,) = set(re.findall(r"actions/checkout@[0-9a-f]{40} # v[\d.]+", own))
    for name in WORKFLOWS:
        (text,) = re.findall(rf"```yaml\n(name: {name.removesuffix('.yml')}\n.*?)```", guide, re.DOTALL)
        golden(TEMPLATES / name, text.replace("actions/checkout@v7", checkout))


def polar_steps(text: str) -> list[Any]:
    jobs = YAML(typ="safe", pure=True).load(text)["jobs"].values()
    return [step for job in jobs for step in job["steps"] if "polar-iac" in step["uses"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_step_of_a_workflow_knows_where_the_manifest_is(name: str) -> None:
    where = {"working-directory": "a b/}:", "file": "usage.yaml"}
    plain, steps = (polar_steps(workflow_text(name, SOURCE, "main", inputs)) for inputs in ({}, where))
    assert len(steps) == (4 if name == "meters.yml" else 1)
    for step, before in zip(steps, plain, strict=True):
        assert step["with"] == before["with"] | where
        assert re.fullmatch(f"acme/polar-iac/.github/actions/[a-z]+@{COMMIT}", step["uses"])


def test_an_action_has_its_version_beside_its_commit() -> None:
    assert f"@{COMMIT} # v1.2.3\n" in workflow_text("drift.yml", SOURCE, "main", {})
    assert "@v1.2.3\n" in workflow_text("drift.yml", Source("acme/x", None, "v1.2.3"), "main", {})


def test_the_branch_is_that_of_the_repository(repository: Workspace) -> None:
    """Of an empty repository it is the one that the first commit makes."""
    git(repository.path, "symbolic-ref", "HEAD", "refs/heads/trunk")
    below = repository.path / "services" / "billing"
    below.mkdir(parents=True)
    repository.ok("init", "--github", "-f", "services/billing/usage.yaml")
    text = (repository.path / ".github" / "workflows" / "meters.yml").read_text(encoding="utf-8")
    workflow = YAML(typ="safe", pure=True).load(text)
    assert workflow["on"]["push"] == {"branches": ["trunk"]}
    assert "github.ref == 'refs/heads/trunk'" in workflow["jobs"]["sandbox"]["if"]
    assert "main" not in text
    for step in polar_steps(text):
        assert step["with"]["working-directory"] == "services/billing"
        assert step["with"]["file"] == "usage.yaml"


def test_the_default_branch_is_the_remotes_else_main(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    git(tmp_path, "checkout", "-q", "-b", "feature")
    git(tmp_path, "remote", "add", "origin", "git@github.com:acme/Usage.Billing.git")
    found = repository_of(tmp_path)
    assert found is not None
    assert (found.branch, found.name) == ("main", "Usage.Billing")
    git(tmp_path, "update-ref", "refs/remotes/origin/develop", "HEAD")
    git(tmp_path, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/develop")
    found = repository_of(tmp_path)
    assert found is not None
    assert found.branch == "develop"


VCS = {"vcs": "git", "commit_id": COMMIT}


@pytest.mark.parametrize(
    ("recorded", "source"),
    [
        (
            {"url": "https://github.com/acme/polar-iac", "vcs_info": {**VCS, "requested_revision": "v1"}},
            Source("acme/polar-iac", COMMIT, "v1"),
        ),
        (
            {"url": "ssh://git@github.com/acme/tools.git", "vcs_info": {**VCS, "requested_revision": "main"}},
            Source("acme/tools", COMMIT, None),
        ),
        ({"url": "https://git.example/acme/x", "vcs_info": VCS}, Source("OWNER/polar-iac", COMMIT, None)),
        ({"url": "https://github.com/a/b\nx", "vcs_info": {}}, Source("OWNER/polar-iac", None, "v9")),
        ({}, Source("OWNER/polar-iac", None, "v9")),
    ],
)
def test_an_installation_knows_its_repository_and_commit(recorded: Any, source: Source) -> None:
    assert source_of(recorded, "v9") == source


def test_a_checkout_knows_its_repository_and_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    commit = git(tmp_path, "rev-parse", "HEAD")
    recorded = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    assert source_of(recorded, "v9") == Source("OWNER/polar-iac", commit, None)
    git(tmp_path, "remote", "add", "origin", "https://x-access-token:secret@github.com/acme/polar-iac.git")
    git(tmp_path, "tag", "v1.2.3")
    assert source_of(recorded, "v9") == Source("acme/polar-iac", commit, "v1.2.3")
    # A copy within somebody else's repository is not that repository.
    (tmp_path / "vendored").mkdir()
    within = {**recorded, "url": (tmp_path / "vendored").as_uri()}
    assert source_of(within, "v9") == Source("OWNER/polar-iac", None, "v9")


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("Acme Billing!", "acme-billing"),
        ("polar_meters", "polar_meters"),
        ("-x-" * 40, ("x--" * 21)[:61]),
        ("計費", None),
        ("", None),
    ],
)
def test_a_project_is_called_after_the_repository(name: str, project: str | None) -> None:
    assert project_name(name) == project


def test_the_example_in_the_manifest_is_valid() -> None:
    text = manifest_text("acme", SOURCE)
    before, _, example = text.partition("meters: {}\n# A meter looks like this, in place of `{}`:\n")
    shown = f"{before}meters:\n{re.sub('^# ', '', example, flags=re.MULTILINE)}"
    loaded = manifest.load(shown.encode(), "meters.yaml")
    assert list(loaded.meters) == ["api-calls"]
    pinned = re.sub("^# (environments:|  sandbox:)", r"\1", shown, flags=re.MULTILINE)
    assert manifest.load(pinned.encode(), "meters.yaml").organizations.keys() == {"sandbox"}


def test_the_manifest_names_the_schema_that_the_package_ships() -> None:
    (url,) = re.findall(r"\$schema=(\S+)", manifest_text("acme", SOURCE))
    path = url.removeprefix(f"https://raw.githubusercontent.com/acme/polar-iac/{COMMIT}/")
    assert json.loads((ROOT / path).read_text(encoding="utf-8")) == manifest_schema()
