"""The audit record of `apply`: real records against the schema, however a run ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import polar_iac.report
from polar_iac.apply.events import Applied, Event, Failed, Skipped, Unconfirmed, Unknown
from polar_iac.errors import ExitCode
from polar_iac.files import head_of
from polar_iac.local import LocalPolar
from polar_iac.plan.saved import read_plan
from polar_iac.report.audit import UNRECORDED, AuditRecord, audit_json, redaction
from tests.apply.test_executor import faulty_checkout
from tests.support.build import ORGANIZATION, desired, identifier, live, meter, plan, record
from tests.support.command import HANG_SECONDS, Workspace
from tests.support.fault_trials import by_rule
from tests.support.served_polar import Answer, Served, answer_json, scripted, served_polar

SCHEMA = json.loads((Path(polar_iac.report.__file__).parent / "audit.schema.json").read_text())
APPLY = ("apply", "-e", "sandbox", "-y", "--report", "json=audit.json")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def valid(text: str) -> Any:
    document = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    return document


def audit(workspace: Workspace) -> Any:
    return valid((workspace.path / "audit.json").read_text(encoding="ascii"))


def outcomes(document: Any) -> dict[str, tuple[str, str]]:
    return {effect["key"]: (effect["action"], effect["outcome"]) for effect in document["effects"]}


class TestHoweverARunEnds:
    def test_each_effect_is_recorded(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter(), "b": meter(metadata={"x": 1})})
        workspace.ok(*APPLY)
        first = audit(workspace)
        assert outcomes(first) == {"a": ("create", "applied"), "b": ("create", "applied")}
        assert first["organization_id"] == polar.polar.organization_id, "as the first answer shows"
        workspace.write({"a": meter(name="Renamed"), "b": meter(archived=True), "c": meter()})
        workspace.ok("plan", "-e", "sandbox", "--out", "p.json")
        workspace.ok("apply", "p.json", "-y", "--report", "json=audit.json")
        document = audit(workspace)
        assert outcomes(document) == {
            "a": ("update", "applied"), "b": ("archive", "applied"), "c": ("create", "applied"),
        }  # fmt: skip
        assert {e["key"]: e["id"] for e in document["effects"]} == {
            key: entry["id"] for key, entry in workspace.lock()["meters"].items()
        }
        times = [document["started_at"], *(e["at"] for e in document["effects"])]
        assert all(times[0] <= time <= document["ended_at"] for time in times)
        digest = read_plan(workspace.path / "p.json").digest
        assert document["digest"] == document["reviewed_digest"] == digest
        assert (document["environment"], document["project"]) == ("sandbox", "acme")
        assert (document["exit_code"], document["error"], document["run"]) == (0, None, None)

    def test_a_refusal_of_polars_is_a_failed_effect(self, workspace: Workspace) -> None:
        workspace.write({"a": meter(), "b": meter()})
        done = workspace.run(*APPLY, POLAR_ACCESS_TOKEN="polar_oat_ro_x")
        document = audit(workspace)
        assert done.returncode == document["exit_code"] == 1
        failed = document["effects"][0]
        assert (failed["outcome"], failed["status"], failed["id"]) == ("failed", 403, None)
        assert "meters:write" in failed["reason"]

    def test_a_stale_plan_has_a_reason_and_no_effects(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("plan", "-e", "sandbox", "--out", "p.json")
        workspace.write({"b": meter()})
        done = workspace.run("apply", "p.json", "-y", "--report", "json=audit.json")
        document = audit(workspace)
        assert done.returncode == document["exit_code"] == 4
        assert document["effects"] == []
        assert document["error"].startswith("the plan is stale, and nothing of it was done.")
        assert document["digest"] != document["reviewed_digest"]
        assert document["reviewed_digest"] == read_plan(workspace.path / "p.json").digest

    @pytest.mark.parametrize(
        ("options", "code", "error"),
        [
            (("--max-changes", "0"), 5, "the plan has 1 change, and --max-changes allows 0"),
            (("--digest", "0" * 32), 4, "the plan is stale"),
            (("--digest", "x"), 1, "--digest takes 32 to 64 hexadecimal digits"),
            (("--deadline", "0"), 1, "the deadline has passed"),
            (("-f", "none.yaml"), 1, "none.yaml"),
        ],
    )
    def test_a_run_that_does_nothing_says_why(
        self, workspace: Workspace, options: tuple[str, ...], code: int, error: str
    ) -> None:
        workspace.write({"a": meter()})
        done = workspace.run(*APPLY, *options)
        document = audit(workspace)
        assert done.returncode == document["exit_code"] == code
        assert error in document["error"]
        assert document["effects"] == []
        assert document["ended_at"] is not None

    def test_a_signal_leaves_what_was_done_and_what_was_not(self, workspace: Workspace) -> None:
        """Before the first answer everything is unknown, on disk already; a kill would leave it so."""
        arrived, go_on = threading.Event(), threading.Event()

        class Slow(LocalPolar):
            def __call__(self, environ: Any, start_response: Any) -> Any:
                if environ["REQUEST_METHOD"] == "POST":
                    arrived.set()
                    assert go_on.wait(HANG_SECONDS)
                return super().__call__(environ, start_response)

        assert workspace.warmed is not None
        with served_polar(Slow()) as polar:
            workspace.write({"a": meter(), "b": meter(), "c": meter()})
            pid = workspace.warmed.start(workspace.path, polar.environ(), *APPLY, "--parallelism", "1")
            assert arrived.wait(HANG_SECONDS)
            begun = audit(workspace)
            os.kill(pid, signal.SIGTERM)
            workspace.warmed.say(pid, "stopping after the requests in flight")
            go_on.set()
            ended = workspace.warmed.wait(pid)
        assert outcomes(begun) == dict.fromkeys("abc", ("create", "unknown"))
        assert {effect["reason"] for effect in begun["effects"]} == {UNRECORDED}
        assert (begun["ended_at"], begun["exit_code"]) == (None, None)
        document = audit(workspace)
        assert outcomes(document) == {
            "a": ("create", "applied"), "b": ("create", "skipped"), "c": ("create", "skipped"),
        }  # fmt: skip
        assert ended.code == document["exit_code"] == 143
        assert document["stopped"] == "SIGTERM"

    def test_a_pipe_takes_one_record(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        fifo = workspace.path / "pipe"
        os.mkfifo(fifo)
        with os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), encoding="ascii") as pipe:
            workspace.ok("apply", "-e", "sandbox", "-y", "--report", "json=pipe")
            assert outcomes(valid(pipe.read())) == {"a": ("create", "applied")}

    def test_an_earlier_record_is_overwritten_and_nothing_else(
        self, workspace: Workspace, polar: Served
    ) -> None:
        workspace.write({"a": meter()})
        for _ in range(2):
            workspace.ok(*APPLY)
        workspace.ok("plan", "-e", "sandbox", "--out", "p.json")
        plan_text = (workspace.path / "p.json").read_text()
        polar.tape.clear()
        done = workspace.run("apply", "p.json", "-y", "--report", "json=./p.json")
        assert "--report names the plan itself, p.json" in done.stderr
        assert (workspace.path / "p.json").read_text() == plan_text
        for report, error in (
            ("json=meters.yaml", "meters.yaml is neither a plan nor a report"),
            ("json=none/audit.json", "cannot write none/audit.json"),
            ("text=audit.txt", "the audit record of an apply is JSON: use json=FILE"),
        ):
            done = workspace.run("apply", "-e", "sandbox", "-y", "--report", report)
            assert done.returncode == 1
            assert error in done.stderr
        assert polar.tape.exchanges == []


class TestWhoAndWhere:
    CI: dict[str, str] = {  # noqa: RUF012
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "acme/billing",
        "GITHUB_ACTOR": "ana",
        "GITHUB_TRIGGERING_ACTOR": "bob",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_SHA": "0123456789abcdef0123456789abcdef01234567",
        "GITHUB_WORKFLOW": "meters",
        "GITHUB_JOB": "sandbox",
        "GITHUB_RUN_ID": "4711",
        "GITHUB_RUN_ATTEMPT": "2",
    }

    def test_in_ci_they_are_those_of_its_variables(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok(*APPLY, **self.CI)
        document = audit(workspace)
        assert document["run"] == {
            "system": "GitHub Actions",
            "actor": "ana",
            "triggering_actor": "bob",
            "repository": "acme/billing",
            "ref": "refs/heads/main",
            "commit": self.CI["GITHUB_SHA"],
            "workflow": "meters",
            "job": "sandbox",
            "run_id": "4711",
            "run_attempt": "2",
            "url": "https://github.com/acme/billing/actions/runs/4711",
        }
        assert document["commit"] == self.CI["GITHUB_SHA"]
        assert document["manifest_committed"] is None

    def test_the_commit_is_the_checkouts(self, tmp_path: Path) -> None:
        def git(*arguments: str) -> str:
            who = ["-c", "user.name=ana", "-c", "user.email=ana@acme"]
            done = subprocess.run(
                ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
            )
            return done.stdout.strip()

        file = tmp_path / "sub" / "meters.yaml"
        file.parent.mkdir()
        file.write_text("one")
        assert head_of(file) is None
        git("init", "--quiet")
        assert head_of(file) is None
        git("commit", "--quiet", "--allow-empty", "--message", "Nothing")
        head = head_of(file)
        assert head is not None
        assert (head.commit, head.has_file) == (git("rev-parse", "HEAD"), False)
        git("add", "--all")
        git("commit", "--quiet", "--message", "A manifest")
        head = head_of(file)
        assert head is not None
        assert head.has_file
        file.write_text("two")
        head = head_of(file)
        assert head is not None
        assert not head.has_file

    def test_a_record_holds_no_token_and_nothing_of_the_person(self, workspace: Workspace) -> None:
        """A message may name it: here the home directory."""
        home = workspace.path / "home" / "kim"
        (home / "billing").mkdir(parents=True)
        workspace.write({"a": meter()})
        manifest = home / "billing" / "meters.yaml"
        (workspace.path / "meters.yaml").rename(manifest)
        done = workspace.run(
            *APPLY, "-f", str(manifest), "--lockfile", f"{home}/none/lock.json", HOME=str(home)
        )
        assert done.returncode == 1
        text = (workspace.path / "audit.json").read_text()
        assert "kim" not in text
        document = valid(text)
        assert document["manifest"] == "~/billing/meters.yaml"
        assert document["error"] == "there is no directory ~/none"

    def test_a_token_that_polar_repeats_is_taken_out(self, workspace: Workspace) -> None:
        token = "polar_oat_s3cret"

        def answer(method: str, _path: str, _body: bytes) -> Answer:
            if method == "GET":
                return answer_json(200, {"items": [], "pagination": {"total_count": 0, "max_page": 0}})
            return 403, {"www-authenticate": f'Bearer scope="{token}"'}, b"{}"

        workspace.write({"a": meter()})
        with scripted(answer) as (url, _):
            done = workspace.run(*APPLY, POLAR_BASE_URL=url, POLAR_ACCESS_TOKEN=token)
        assert done.returncode == 1
        (effect,) = audit(workspace)["effects"]
        assert effect["reason"] == "the token may not do this: it lacks the scope ***"

    def test_only_whole_names_are_taken_out(self) -> None:
        host = socket.gethostname()
        redacted = redaction(
            ["polar_oat_s3cret"], {"/home/kim": "~", f"on {host}": "on this machine", "": "~"}
        )
        assert redacted("Bearer polar_oat_s3cret: no") == "Bearer ***: no"
        assert redacted("/home/kim/a, /home/kimberly, /mnt/home/kim") == "~/a, /home/kimberly, /mnt/home/kim"
        assert redacted(f"pid 7 on {host}, since") == "pid 7 on this machine, since"
        assert redacted(f"on {host}-2") == f"on {host}-2"
        assert redaction([], {})("as it is") == "as it is"


class TestOutcomes:
    def written(self, events: list[Event], **known: Any) -> Any:
        planned = plan(
            desired({"a": meter(name="New"), "b": meter(), "c": meter(), "old": meter()}),
            {"a": record(1), "old": record(4)},
            [live(1, "a"), live(4, "old")],
        )
        facts: dict[str, Any] = {"plan": planned, "executing": True, "events": events, **known}
        return valid(audit_json(AuditRecord(NOW, **facts), str))

    def test_each_event_has_its_outcome(self) -> None:
        document = self.written(
            [
                Applied("a", "update", identifier(1), at=NOW),
                Unconfirmed("b", "create", "no answer", at=NOW),
                Failed("c", "create", "refused", status=422, at=NOW),
                Skipped("d", "settle", "it is gone", id=identifier(9), at=NOW),
                Failed("e", "archive", "a time-out", id=identifier(8), unknown=True, at=NOW),
                Unknown("whether others created the same is not known", at=NOW),
            ],
            exit_code=ExitCode.ERROR,
        )
        assert [(e["key"], e["outcome"], e["reason"], e["id"], e["status"]) for e in document["effects"]] == [
            ("a", "applied", None, identifier(1), None),
            ("b", "unconfirmed", "no answer", None, None),
            ("c", "failed", "refused", None, 422),
            ("d", "skipped", "it is gone", identifier(9), None),
            ("e", "unknown", "a time-out", identifier(8), None),
        ]
        assert {effect["at"] for effect in document["effects"]} == {"2026-01-02T03:04:05.678Z"}
        assert document["unknown"] == ["whether others created the same is not known"]
        assert document["organization_id"] == ORGANIZATION

    def test_an_effect_that_no_event_tells_of_is_unknown(self) -> None:
        """Example: the disk was full, and the run ended while requests were on their way."""
        document = self.written([Applied("a", "update", identifier(1), at=NOW)], error="cannot write")
        assert outcomes(document) == {
            "a": ("update", "applied"), "b": ("create", "unknown"), "c": ("create", "unknown"),
        }  # fmt: skip

    def test_a_plan_that_was_not_permitted_has_no_effects(self) -> None:
        assert self.written([], executing=False)["effects"] == []

    def test_bookkeeping_is_an_effect_where_its_key_has_no_change(self) -> None:
        manifest = desired({"a": meter(), "new": meter(name="New")}, moved=[{"from": "old", "to": "new"}])
        planned = plan(manifest, {"old": record(2)}, [live(1, "a"), live(2, "old")])
        facts = AuditRecord(NOW, plan=planned, executing=True)
        document = valid(audit_json(facts, str))
        assert {entry.key for entry in planned.bookkeeping} == {"a", "new"}
        assert outcomes(document) == {"a": ("adopt", "unknown"), "new": ("update", "unknown")}

    def test_the_schema_refuses_an_incomplete_record(self) -> None:
        with pytest.raises(jsonschema.ValidationError):
            valid('{"format_version": 1, "kind": "audit"}')

    def test_a_change_whose_answer_was_lost_is_not_called_failed(self, tmp_path: Path) -> None:
        """It may have been made. A change that was never sent was not."""
        manifest = desired({"a": meter(name="New", metadata={"x": 1})})

        def after(fault: str, method: str) -> Event:
            choose = by_rule(fault, method, when=lambda request: not request.lists)
            active = False
            with faulty_checkout(tmp_path, lambda r: choose(r) if active else None) as (_, checkout):
                checkout.apply(desired({"a": meter()}))
                active = True
                (event,) = checkout.apply(manifest)
                checkout.lockfile.unlink()
            return event

        lost, unread = after("503-before", "PATCH"), after("503-before", "GET")
        assert isinstance(lost, Failed)
        assert isinstance(unread, Failed)
        assert (lost.unknown, lost.status) == (True, 503)
        assert lost.id
        assert (unread.unknown, unread.status) == (False, 503)
