"""Every block of `docs/rehearsing.md`, run as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.support.command import Workspace, serve_command

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rehearsing.md"
URL = "http://127.0.0.1:8010"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def run(code: str, url: str) -> None:
    """Run what a reader would paste, against another port."""
    assert URL in code
    exec(code.replace(URL, url), {})  # noqa: S102


def test_the_loop_from_an_event_to_a_refused_filter(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, clause, _ = blocks("yaml")
    first, again, _ = blocks("sh")
    assert first == "polar-iac apply -e local -y\npolar-iac serve\n"
    assert again == "polar-iac apply -e local -y\n"
    use, *_ = blocks("python")
    counted, refused, *_ = blocks("text")

    path = workspace.path / "meters.yaml"
    path.write_text(manifest)
    workspace.ok("apply", "-e", "local", "-y")
    with serve_command(workspace.path) as running:
        run(use, running.url)
    assert capsys.readouterr().out == counted

    before = "    aggregation:"
    path.write_text(manifest.replace(before, clause + before))
    done = workspace.run("apply", "-e", "local", "-y")
    assert done.returncode == 1
    shown = (done.stdout + done.stderr).splitlines()
    assert [line for line in refused.splitlines() if line not in shown] == []


def test_a_month_of_usage_is_seeded(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _, seed = blocks("yaml")
    *_, serve = blocks("sh")
    assert serve == "polar-iac serve --seed seed.yaml\n"
    _, ask, _ = blocks("python")
    *_, seeded, counted, _ = blocks("text")

    (workspace.path / "meters.yaml").write_text(manifest)
    workspace.ok("apply", "-e", "local", "-y")
    (workspace.path / "seed.yaml").write_text(seed)
    with serve_command(workspace.path, "--seed", "seed.yaml") as running:
        run(ask, running.url)
        frozen = httpx.patch(
            f"{running.url}/v1/meters/{workspace.lock('local')['meters']['llm-tokens']['id']}",
            json={"filter": None},
            headers={"authorization": "Bearer polar_oat_local"},
        )
    assert capsys.readouterr().out == counted
    assert running.errors == f"{seeded}interrupted\n"
    assert frozen.status_code == 422

    with serve_command(workspace.path, "--seed", "seed.yaml") as again:
        pass
    assert again.errors == "seed.yaml is in the embedded Polar already.\ninterrupted\n"
    (workspace.path / "seed.yaml").write_text(seed.replace("-30d", "-30 days"))
    wrong = workspace.run("serve", "--seed", "seed.yaml")
    assert (wrong.returncode, wrong.stderr.splitlines()[0]) == (
        1,
        "seed.yaml:16:11: error: from is a moment such as -3d, -1d12h, now, 2026-11-01 or"
        ' 2026-11-01T12:00:00Z, got "-30 days"',
    )


def test_a_reset_a_credit_and_a_billing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, in_tests = blocks("python")
    with serve_command(tmp_path, "--admin") as running:
        run(in_tests, running.url)
    assert capsys.readouterr().out == blocks("text")[-1]


def test_every_request_of_the_administration_is_described() -> None:
    source = (ROOT / "polar_iac" / "local" / "admin.py").read_text(encoding="utf-8")
    kinds = re.findall(r'case "(\w+)":', source)
    _, page = PAGE.read_text(encoding="utf-8").split("## In your own tests\n")
    assert kinds == re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
