"""Rules whose violation can cost money: the real command against a served Polar, a class for each rule."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest

from polar_iac.apply.events import Applied, Event, Failed, Unconfirmed
from polar_iac.apply.jobs import Limits
from polar_iac.clock import Stop
from polar_iac.files import state_directory
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER
from polar_iac.meter.record import Record
from polar_iac.polar.client import PolarClient
from polar_iac.polar.retry import RetryPolicy
from polar_iac.state import journal
from polar_iac.state.lockfile import Lockfile
from tests.cli.test_commands import SCHEMA
from tests.support.build import ORGANIZATION, PROJECT, desired, meter, spec
from tests.support.command import Workspace, on_terminal
from tests.support.fault_trials import ELSEWHERE, Request, by_rule, faulty_polar, no_fault
from tests.support.served_polar import JSON, Answer, Served, answer_json, scripted
from tests.support.workspace import Checkout

LOCK = "meters.sandbox.lock.json"
QUICK = ("--lookup-timeout", "0.1", "--resend-after", "0.1")
APPLY = ("apply", "-e", "sandbox", "-y", *QUICK)

pytestmark = pytest.mark.unmeasured  # scenes of what the other files test part by part


@pytest.fixture
def client(polar: Served) -> Iterator[PolarClient]:
    with PolarClient(polar.url, "polar_oat_test", retry=RetryPolicy(first_wait=0.001)) as client:
        yield client


def made(client: PolarClient, key: str, **fields: Any) -> LiveMeter:
    body = meter(**fields)
    return client.create_meter({**body, "metadata": {**body.get("metadata", {}), MARKER: f"{PROJECT}/{key}"}})


def active(client: PolarClient) -> set[str]:
    return {meter.id for meter in client.list_meters() if not meter.archived}


def planned(workspace: Workspace, *more: str) -> Any:
    document = json.loads(workspace.ok("plan", "-e", "sandbox", "--format", "json", *more))
    jsonschema.validate(document, SCHEMA)
    return document


def edit_lockfile(workspace: Workspace, meters: dict[str, Any]) -> None:
    path = workspace.path / LOCK
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"meters": meters}))


class TestNothingIsWrittenBeforePermission:
    """A run was stopped after it created a meter; an older one of another run bears the same marker."""

    @pytest.fixture
    def stopped(self, workspace: Workspace, client: PolarClient) -> tuple[LiveMeter, LiveMeter]:
        older, younger = made(client, "calls"), made(client, "calls")
        path = workspace.path / LOCK
        state_directory(path)
        with journal.Journal(journal.path_for(path), Lockfile("sandbox", None, PROJECT)) as open_journal:
            open_journal.record("calls", Record(younger.id, spec()), answer="created")
        workspace.write({"calls": meter(), "other": meter(name="Other", archived=True)})
        return older, younger

    def test_a_plan_shows_the_settling_and_reads_only(self, workspace: Workspace, stopped: Any) -> None:
        older, younger = stopped
        before = (workspace.path / ".polar-iac" / f"{LOCK}.journal").read_bytes()
        (change,) = planned(workspace)["changes"]
        assert (change["action"], change["id"], change["duplicate_of"]) == ("settle", younger.id, older.id)
        assert change["marker"] == {"before": "acme/calls", "after": None}
        text = workspace.ok("plan", "-e", "sandbox")
        assert f"archives the duplicate {younger.id}" in " ".join(text.split())
        assert "1 to settle" in text
        assert workspace.run("plan", "-e", "sandbox", "--detailed-exitcode").returncode == 2
        assert (workspace.path / ".polar-iac" / f"{LOCK}.journal").read_bytes() == before

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["--digest", "0" * 32], 4),
            (["--max-changes", "0"], 5),
            (["--target", "other"], 0),
        ],
        ids=["digest", "max-changes", "target"],
    )
    def test_nothing_is_settled_that_was_not_permitted(
        self, workspace: Workspace, client: PolarClient, stopped: Any, arguments: list[str], code: int
    ) -> None:
        assert workspace.reads_only(*APPLY, *arguments).returncode == code
        assert active(client) == {meter.id for meter in stopped}

    @pytest.mark.usefixtures("stopped")
    def test_a_refused_apply_settles_nothing(self, workspace: Workspace, client: PolarClient) -> None:
        made(client, "gone")
        workspace.write({"calls": meter(), "gone": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y", "--target", "gone", *QUICK)
        workspace.write({"calls": meter()})
        assert workspace.reads_only(*APPLY).returncode == 5

    @pytest.mark.unmeasured
    def test_a_no_at_the_prompt_settles_nothing(
        self, workspace: Workspace, client: PolarClient, stopped: Any
    ) -> None:
        code, output = on_terminal(workspace, "apply", "-e", "sandbox", *QUICK, answer="n\n")
        assert code == 1
        assert "Apply this change to sandbox?" in output
        assert active(client) == {meter.id for meter in stopped}

    def test_a_permitted_duplicate_is_settled(
        self, workspace: Workspace, client: PolarClient, stopped: Any
    ) -> None:
        older, younger = stopped
        assert "1 duplicate archived" in workspace.ok(*APPLY)
        assert active(client) == {older.id}
        assert client.get_meter(younger.id).marker is None
        assert workspace.lock()["meters"]["calls"]["id"] == older.id
        assert not (workspace.path / ".polar-iac" / f"{LOCK}.journal").exists()
        assert "No changes" in workspace.ok("plan", "-e", "sandbox")


class TestRecordedIdAndMarkerMustAgree:
    def test_swapped_ids_exchange_no_filters(self, workspace: Workspace) -> None:
        other = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "b"}]}
        workspace.write({"aaa": meter(), "bbb": meter(filter=other)})
        workspace.ok(*APPLY)
        recorded = workspace.lock()["meters"]
        swapped = {"aaa": recorded["aaa"] | {"id": recorded["bbb"]["id"]}}
        edit_lockfile(workspace, swapped | {"bbb": recorded["bbb"] | {"id": recorded["aaa"]["id"]}})
        assert workspace.reads_only(*APPLY).returncode == 1
        causes = [(c["key"], c["cause"], c["fields"]) for c in planned(workspace)["changes"]]
        assert causes == [("aaa", "mismatch", []), ("bbb", "mismatch", [])]

    def test_an_id_under_another_key_archives_and_creates_nothing(self, workspace: Workspace) -> None:
        workspace.write({"aaa": meter()})
        workspace.ok(*APPLY)
        edit_lockfile(workspace, {"bbb": workspace.lock()["meters"]["aaa"]})
        done = workspace.reads_only(*APPLY, "--allow-archive")
        assert done.returncode == 1
        assert [c["cause"] for c in planned(workspace)["changes"]] == ["mismatch", "mismatch"]

    def test_a_move_and_a_target_lose_no_record(self, workspace: Workspace) -> None:
        """Two keys were recorded; one of them, by its marker, is the other's former self."""
        workspace.write({"aaa": meter(), "bbb": meter(name="Second")})
        workspace.ok(*APPLY)
        ids = {record["id"] for record in workspace.lock()["meters"].values()}
        workspace.write({"bbb": meter(name="Renamed")}, moved=[{"from": "aaa", "to": "bbb"}])
        workspace.run(*APPLY, "--target", "bbb")
        assert {record["id"] for record in workspace.lock()["meters"].values()} == ids


@contextmanager
def faulty_checkout(directory: Path, **limits: float) -> Iterator[tuple[Any, Checkout]]:
    with faulty_polar() as faulty:
        checkout = Checkout(faulty.url, directory)
        checkout.limits = Limits(parallelism=2, **limits)
        with checkout.client:
            yield faulty, checkout


class TestALostCreateIsSentAgainOnlyWhenItCanNoLongerLand:
    MANY = desired({f"m{n}": meter(name=f"Meter {n}") for n in range(4)})

    def land(self, faulty: Any, key: str) -> None:
        """Let a request land that a gateway kept."""
        import httpx

        transport = httpx.WSGITransport(app=faulty.polar)
        with PolarClient("http://truth", "polar_oat_test", transport=transport) as truth:
            made(truth, key, name=f"Meter {key[1:]}")

    def test_a_create_that_lands_during_its_lookup_is_found_and_others_go_on(self, tmp_path: Path) -> None:
        """A gateway's 504: the request lands when all others are done and many lookups have seen nothing."""
        looks = 0
        with faulty_checkout(tmp_path, lookup_timeout=0.0, resend_after=3600.0) as (faulty, checkout):

            def choose(request: Request) -> str | None:
                nonlocal looks
                if "m1" in request.query:
                    looks += 1
                    if looks == 4:
                        assert faulty.requests["POST"] == 4, "the others wait for it"
                        self.land(faulty, "m1")
                return lost(request)

            lost = by_rule("504-before", "POST", when=lambda r: r.subject == f"{PROJECT}/m1")
            faulty.choose = choose
            events = checkout.apply(self.MANY)
            assert [type(event) for event in events] == [Applied] * 4
            assert faulty.requests["POST"] == 4
            assert [event.key for event in events if isinstance(event, Applied)] == ["m0", "m1", "m2", "m3"]
            assert not checkout.journal.exists()

    def test_a_create_lost_twice_is_unconfirmed_and_the_next_run_looks_first(self, tmp_path: Path) -> None:
        with faulty_checkout(tmp_path, lookup_timeout=0.0, resend_after=0.0) as (faulty, checkout):
            faulty.choose = by_rule("504-before", "POST", when=lambda r: r.subject == f"{PROJECT}/m1")
            events = checkout.apply(self.MANY)
            (event,) = [event for event in events if not isinstance(event, Applied)]
            assert isinstance(event, Unconfirmed)
            assert "create sent 2 times without a usable answer" in event.message
            assert "status 504" in event.message
            assert faulty.requests["POST"] == 5
            state = journal.read(checkout.journal, checkout.recorded())
            assert len(state.unresolved["m1"]) == 2
            faulty.behave()
            self.land(faulty, "m1")
            assert [event.action for event in checkout.apply(self.MANY) if isinstance(event, Applied)] == []
            assert faulty.requests["POST"] == 5
            assert set(checkout.recorded().meters) == {"m0", "m1", "m2", "m3"}

    def test_a_stop_leaves_a_lost_create_to_the_next_run(self, tmp_path: Path) -> None:
        stop = Stop()
        with faulty_checkout(tmp_path, lookup_timeout=0.0, resend_after=3600.0) as (faulty, checkout):

            def choose(request: Request) -> str | None:
                if "m0" in request.query:
                    stop.request("the deadline has come")
                return "504-before" if request.method == "POST" else None

            faulty.choose = choose
            (event, *_) = [e for e in checkout.apply(self.MANY, stop=stop) if isinstance(e, Unconfirmed)]
            assert event.key == "m0"
            assert set(journal.read(checkout.journal, checkout.recorded()).unresolved) >= {"m0"}

    def test_a_create_that_lands_after_the_run_is_settled_by_the_next(self, tmp_path: Path) -> None:
        """It was sent again and answered; the first lands when the run is over."""
        only = desired({"m1": meter(name="Meter 1")})
        with faulty_checkout(tmp_path, lookup_timeout=0.0, resend_after=0.0) as (faulty, checkout):
            faulty.choose = by_rule("504-before", "POST", 1)
            assert [type(event) for event in checkout.apply(only)] == [Applied]
            faulty.choose = no_fault
            (kept,) = checkout.recorded().meters.values()
            self.land(faulty, "m1")
            (change,) = checkout.plan(only).changes
            assert (change.action, change.duplicate_of) == ("settle", kept.id)
            assert [event.action for event in checkout.apply(only) if isinstance(event, Applied)] == [
                "settle"
            ]
            assert active(checkout.client) == {kept.id}
            assert not checkout.plan(only).changes

    def test_a_create_that_lands_during_the_run_is_settled_at_once(self, tmp_path: Path) -> None:
        only = desired({"m1": meter(name="Meter 1")})
        with faulty_checkout(tmp_path, lookup_timeout=0.0, resend_after=0.0) as (faulty, checkout):
            lost = by_rule("504-before", "POST", 1)

            def choose(request: Request) -> str | None:
                if request.method == "POST" and faulty.requests["POST"] == 2:
                    self.land(faulty, "m1")
                return lost(request)

            faulty.choose = choose
            events = checkout.apply(only)
            assert [(type(event), getattr(event, "action", "")) for event in events] == [
                (Applied, "create"),
                (Applied, "settle"),
            ]
            assert len(active(checkout.client)) == 1

    def test_a_failed_lookup_is_reported(self, tmp_path: Path) -> None:
        """An answer of 500 is an answer, and a lookup that fails says nothing."""
        only = desired({"m1": meter(name="Meter 1")})
        with faulty_checkout(tmp_path, lookup_timeout=0.0, resend_after=0.0) as (faulty, checkout):
            refuse = by_rule("500-before", "POST", 1)

            def choose(request: Request) -> str | None:
                if faulty.requests["POST"] and request.method == "GET":
                    return "500-before"
                return refuse(request)

            faulty.choose = choose
            events: list[Event] = checkout.apply(only)
            (event,) = [event for event in events if isinstance(event, Unconfirmed)]
            assert "status 500" in event.message
            assert "looking for the meter failed" in event.message
            assert faulty.requests["POST"] == 1

    def test_a_create_without_a_connection_is_not_lost(self, tmp_path: Path) -> None:
        checkout = Checkout("http://127.0.0.1:9", tmp_path)
        with checkout.client, journal.Journal(checkout.journal, checkout.recorded()) as open_journal:
            from polar_iac.apply.executor import execute
            from tests.support.build import plan

            only = desired({"m1": meter()})
            events = list(
                execute(
                    plan(only),
                    only,
                    [],
                    checkout.client,
                    open_journal,
                    at_start={},
                    stop=Stop(),
                    limits=Limits(1, 0, 0),
                )
            )
            assert isinstance(events[0], Failed)
            assert not open_journal.intents("m1")


class TestEveryWriteIsReviewed:
    """A marker that was taken off is written again: as a change."""

    @pytest.fixture
    def unmarked(self, workspace: Workspace, client: PolarClient) -> str:
        workspace.write({"calls": meter()})
        workspace.ok(*APPLY)
        meter_id = str(workspace.lock()["meters"]["calls"]["id"])
        client.update_meter(meter_id, {"metadata": {"theirs": 1}})
        return meter_id

    @pytest.mark.usefixtures("unmarked")
    def test_a_restored_marker_is_shown_and_counted(self, workspace: Workspace) -> None:
        document = planned(workspace)
        (change,) = document["changes"]
        assert (change["action"], change["reason"]) == ("mark", "restored")
        assert change["marker"] == {"before": None, "after": "acme/calls"}
        assert document["summary"]["mark"] == 1
        assert document["bookkeeping"] == []
        assert workspace.run("plan", "-e", "sandbox", "--detailed-exitcode").returncode == 2
        assert "none → acme/calls" in workspace.ok("plan", "-e", "sandbox")

    @pytest.mark.usefixtures("unmarked")
    @pytest.mark.unmeasured
    def test_restoring_a_marker_needs_permission(self, workspace: Workspace) -> None:
        assert workspace.reads_only(*APPLY, "--max-changes", "0").returncode == 5
        code, output = on_terminal(workspace, "apply", "-e", "sandbox", answer="n\n")
        assert code == 1
        assert "Apply this change to sandbox?" in output

    @pytest.mark.usefixtures("unmarked")
    def test_restoring_a_marker_keeps_the_metadata_of_others(
        self, workspace: Workspace, polar: Served
    ) -> None:
        polar.tape.clear()
        workspace.ok(*APPLY)
        assert polar.tape.sent("PATCH") == [{"metadata": {"theirs": 1, MARKER: "acme/calls"}}]
        assert "No changes" in workspace.ok("plan", "-e", "sandbox")

    def test_an_empty_plan_has_a_digest_of_its_environment(self, workspace: Workspace) -> None:
        workspace.write({})
        digests = {
            json.loads(workspace.ok("plan", "-e", environment, "--format", "json"))["digest"]
            for environment in ("sandbox", "local")
        }
        assert len(digests) == 2

    def test_a_plan_of_the_first_format_is_stale(self, workspace: Workspace) -> None:
        workspace.write({"calls": meter()})
        old = {
            "format_version": 1, "environment": "sandbox", "organization_id": None, "project": PROJECT,
            "refreshed": True, "changes": [], "bookkeeping": [],
            "summary": {"create": 0, "update": 0, "archive": 0, "unarchive": 0, "blocked": 0, "unchanged": 0},
            "digest": "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
        }  # fmt: skip
        (workspace.path / "old.json").write_text(json.dumps(old))
        assert "No changes" in workspace.ok("show", "old.json")
        done = workspace.reads_only("apply", "old.json", "-y")
        assert done.returncode == 4
        assert "earlier version" in done.stderr


class TestAfterThePromptItLooksAgain:
    @pytest.mark.unmeasured
    def test_a_change_during_the_prompt_makes_the_plan_stale(
        self, workspace: Workspace, polar: Served, client: PolarClient
    ) -> None:
        workspace.write({"calls": meter()})
        workspace.ok(*APPLY)
        meter_id = workspace.lock()["meters"]["calls"]["id"]
        workspace.write({"calls": meter(name="Renamed")})
        polar.tape.clear()
        code, output = on_terminal(
            workspace,
            *("apply", "-e", "sandbox"),
            answer="y\n",
            meanwhile=lambda: self.rename(polar, meter_id),
        )
        assert code == 4
        assert "By hand" in output
        assert client.get_meter(meter_id).name == "By hand"

    def rename(self, polar: Served, meter_id: str) -> None:
        """Past the tape, as somebody in the dashboard."""
        import httpx

        transport = httpx.WSGITransport(app=polar.polar)
        with PolarClient("http://truth", "polar_oat_test", transport=transport) as truth:
            truth.update_meter(meter_id, {"name": "By hand"})


class TestAMeterThatCannotBeReadStopsNobodyElse:
    TOMORROW: ClassVar[dict[str, Any]] = {
        "conjunction": "and",
        "clauses": [{"property": "a", "operator": "in", "value": ["x", "y"]}],
    }

    def insert(self, polar: Served, key: str | None, *, archived: bool = False) -> str:
        """A meter with an operator that this version does not know."""
        with PolarClient(polar.url, "polar_oat_test") as client:
            created = made(client, key) if key else client.create_meter(meter())
            if archived:
                client.update_meter(created.id, {"is_archived": True})
        store = polar.polar._store
        with store._lock:
            text = json.dumps(self.TOMORROW)
            store._db.execute(
                "UPDATE meter SET document = json_set(document, '$.filter', json(?)) WHERE id = ?",
                (text, created.id),
            )
            store._db.commit()
        return created.id

    def test_a_foreign_archived_meter_blocks_nothing(self, workspace: Workspace, polar: Served) -> None:
        self.insert(polar, None, archived=True)
        workspace.write({"calls": meter()})
        workspace.ok("plan", "-e", "sandbox")
        workspace.ok(*APPLY, "--target", "calls")
        workspace.ok(*APPLY)

    def test_our_meter_is_blocked_named_and_never_sent(self, workspace: Workspace, polar: Served) -> None:
        meter_id = self.insert(polar, "calls")
        workspace.write({"calls": meter(name="Renamed"), "other": meter(name="Other")})
        polar.tape.clear()
        done = workspace.run(*APPLY)
        assert done.returncode == 1
        assert "Polar has parts here that this version does not know" in " ".join(done.stdout.split())
        assert meter_id in done.stdout
        assert polar.tape.count("PATCH") == 0
        assert polar.tape.count("POST") == 1


class TestASavedPlanKnowsItsFiles:
    @pytest.fixture
    def saved(self, workspace: Workspace) -> Workspace:
        workspace.write({"calls": meter()})
        (workspace.path / "other.yaml").write_text((workspace.path / "meters.yaml").read_text())
        workspace.ok("plan", "-e", "sandbox", "--lockfile", "a.lock.json", "--out", "plan.json")
        return workspace

    def test_paths_are_saved_as_they_were_given(self, saved: Workspace) -> None:
        document = json.loads((saved.path / "plan.json").read_text())
        assert (document["manifest"], document["lockfile"]) == ("meters.yaml", "a.lock.json")

    @pytest.mark.parametrize("arguments", [["-f", "other.yaml"], ["--lockfile", "b.lock.json"]])
    def test_other_files_are_refused(self, saved: Workspace, arguments: list[str]) -> None:
        done = saved.reads_only("apply", "plan.json", "-y", *arguments)
        assert done.returncode == 5
        assert "the plan is for the" in done.stderr

    def test_another_project_is_refused(self, saved: Workspace) -> None:
        manifest = saved.path / "meters.yaml"
        manifest.write_text(manifest.read_text().replace('"project": "acme"', '"project": "other"'))
        assert saved.reads_only("apply", "plan.json", "-y").returncode == 5

    def test_the_files_of_the_plan_are_used_without_options(self, saved: Workspace) -> None:
        saved.ok("apply", "plan.json", "-y", "-f", "./meters.yaml")
        assert (saved.path / "a.lock.json").exists()
        assert not (saved.path / LOCK).exists()


class TestTheStateDirectoryIsNotFromARepository:
    def git(self, workspace: Workspace, *arguments: str) -> None:
        identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments],
            cwd=workspace.path,
            env=os.environ | identity,
            check=True,
            capture_output=True,
        )

    @pytest.mark.parametrize("command", [["plan"], ["apply", "-y"]])
    def test_a_state_directory_that_git_tracks_is_refused(
        self, workspace: Workspace, command: list[str]
    ) -> None:
        """A pull request could plant a journal in it."""
        workspace.write({"calls": meter()})
        (workspace.path / ".polar-iac").mkdir()
        (workspace.path / ".polar-iac" / f"{LOCK}.journal").write_text("")
        self.git(workspace, "init", "-q")
        self.git(workspace, "add", "-f", ".polar-iac")
        done = workspace.reads_only(*command, "-e", "sandbox")
        assert done.returncode == 5
        assert "tracked by git" in done.stderr
        self.git(workspace, "rm", "-q", "--cached", "-r", ".polar-iac")
        workspace.ok(*command, "-e", "sandbox")

    def test_the_machine_lock_follows_no_link(self, workspace: Workspace) -> None:
        workspace.write({"calls": meter()})
        (workspace.path / ".polar-iac").mkdir()
        precious = workspace.path / "precious"
        precious.write_text("precious")
        (workspace.path / ".polar-iac" / f"{LOCK}.lock").symlink_to(precious)
        done = workspace.reads_only(*APPLY)
        assert done.returncode == 1
        assert "cannot lock" in done.stderr
        assert precious.read_text() == "precious"


class TestATokenOfAnotherOrganization:
    """It has no meters there, so that none can show whose it is."""

    OTHER = "2dbfc517-0bbf-4301-9ba8-555ca42b9737"

    def answer(self, status: int, *ids: str) -> Any:
        def answer(method: str, path: str, _body: bytes) -> Answer:
            assert method == "GET"
            if path.startswith("/v1/organizations/"):
                if status != 200:
                    return status, JSON, b'{"error":"insufficient_scope"}'
                items = [{"id": organization} for organization in ids]
                return answer_json(200, {"items": items, "pagination": {"total_count": 1, "max_page": 1}})
            return answer_json(200, {"items": [], "pagination": {"total_count": 0, "max_page": 0}})

        return answer

    def run(self, workspace: Workspace, *command: str, answer: Any) -> tuple[int, str, int]:
        pinned = {"sandbox": {"organization_id": ORGANIZATION}}
        workspace.write({"calls": meter()}, environments=pinned)
        with scripted(answer) as (url, tape):
            workspace.environ |= {"POLAR_BASE_URL": url}
            workspace.tape = None
            done = workspace.run(*command, "-e", "sandbox", *QUICK[:2])
            asked = sum(e.path.startswith("/v1/organizations") for e in tape.exchanges)
        return done.returncode, done.stderr, asked

    @pytest.mark.parametrize("command", [["plan"], ["apply", "-y"]])
    def test_another_organization_is_refused_if_polar_names_it(
        self, workspace: Workspace, command: list[str]
    ) -> None:
        code, message, asked = self.run(workspace, *command, answer=self.answer(200, self.OTHER))
        assert (code, asked) == (5, 1)
        assert self.OTHER in message

    def test_the_pinned_organization_is_accepted(self, workspace: Workspace) -> None:
        assert self.run(workspace, "plan", answer=self.answer(200, ORGANIZATION))[0] == 0

    @pytest.mark.parametrize("status", [403, 404, 500])
    def test_an_error_of_the_organization_endpoint_is_ignored(
        self, workspace: Workspace, status: int
    ) -> None:
        assert self.run(workspace, "plan", answer=self.answer(status))[0] == 0


class TestAnswersThatDoNotEnd:
    def test_an_endless_rate_limit_ends_a_plan_at_its_deadline(self, workspace: Workspace) -> None:
        workspace.write({"calls": meter()})
        with scripted(lambda *_: (429, {"retry-after": "1"}, b"")) as (url, _):
            workspace.environ |= {"POLAR_BASE_URL": url}
            done = workspace.run("plan", "-e", "sandbox", "--deadline", "0.2")
        assert done.returncode == 1
        assert "the deadline has passed" in done.stderr

    def test_a_redirect_to_nonsense_still_reports_the_results(self, workspace: Workspace) -> None:
        workspace.write({f"m{n}": meter(name=f"Meter {n}") for n in range(3)})
        posts = threading.Semaphore(1)
        with faulty_polar() as faulty:

            def choose(request: Request) -> str | None:
                first = request.method == "POST" and posts.acquire(blocking=False)
                return None if first or request.method == "GET" else ELSEWHERE

            faulty.choose = choose
            done = workspace.run(*APPLY, "--parallelism", "1", POLAR_BASE_URL=faulty.url)
        assert done.returncode == 1
        assert "m0 created" in done.stdout
        assert "not a valid address" in done.stdout
        assert "Apply: 1 created" in done.stdout
        assert "itself failed" not in done.stderr


def test_results_are_listed_by_key(tmp_path: Path) -> None:
    """The order of answers does not matter: the first key's answer waits for the last one's."""
    last = threading.Event()
    manifest = desired({f"m{n}": meter(name=f"Meter {n}") for n in range(6)})
    with faulty_polar() as faulty:

        def choose(request: Request) -> str | None:
            if request.method == "POST" and request.subject.endswith("/m0"):
                assert last.wait(600)
            if request.method == "POST" and request.subject.endswith("/m5"):
                last.set()
            return None

        checkout = Checkout(faulty.url, tmp_path)
        with checkout.client:
            assert checkout.apply(desired({"zz": meter(name="There already")})) != []
            faulty.choose = choose
            events = checkout.apply(
                desired(
                    {
                        **{k: meter(name=v.spec.name) for k, v in manifest.meters.items()},
                        "zz": meter(name="There already"),
                    }
                )
            )
        assert [event.key for event in events if isinstance(event, Applied)] == [f"m{n}" for n in range(6)]
