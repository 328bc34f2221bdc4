"""Files that the command line names: several manifests, and what may be overwritten."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest

import polar_iac.plan
from polar_iac.errors import PolarIacError
from polar_iac.files import descriptor_of, is_replaced, write_file
from polar_iac.meter.record import Record
from polar_iac.report.formats import check_replaceable
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile
from tests.support.build import PROJECT, manifest_text, meter, record
from tests.support.command import COMMAND, HANG_SECONDS, Workspace, clean_environment, measured
from tests.support.served_polar import Served

SCHEMA = json.loads((Path(polar_iac.plan.__file__).parent / "plan.schema.json").read_text())


class TestValidate:
    def test_several_manifests_are_checked_and_their_errors_counted(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        other = meter(name="Bytes", aggregation={"func": "sum", "property": "bytes"})
        (workspace.path / "b.yaml").write_text(manifest_text({"b": meter(), "c": other}))
        (workspace.path / "bad.yaml").write_text("version: 2\nnonsense: 1\n")
        good = workspace.run("validate", "meters.yaml", "-f", "b.yaml", "b.yaml")
        assert (good.returncode, good.stderr) == (0, "")
        assert sorted(good.stdout.splitlines()) == [
            "b.yaml: 2 meters are fine.",
            "meters.yaml: 1 meter is fine.",
        ]
        done = workspace.run("validate", "-f", "bad.yaml", "-f", "b.yaml", "-f", "none.yaml")
        assert done.returncode == 1
        assert done.stdout == "b.yaml: 2 meters are fine.\n"
        count = done.stderr.count(": error: ")
        assert count > 1
        assert "error: none.yaml not found" in done.stderr
        assert done.stderr.splitlines()[-1] == f"Found {count + 1} errors in 2 files."

    def test_one_error_is_counted_too(self, workspace: Workspace) -> None:
        (workspace.path / "meters.yaml").write_text(manifest_text({}, version=2))
        assert workspace.run("validate").stderr.endswith("\nFound 1 error in 1 file.\n")

    def test_quiet_prints_errors_only(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        quiet = workspace.run("validate", "-q")
        assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
        (workspace.path / "meters.yaml").write_text("version: 2\n")
        assert ": error: " in workspace.run("validate", "-q").stderr

    def test_entries_that_are_done_in_every_lockfile_are_listed(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()}, removed=[{"from": "gone"}, {"from": "kept"}])
        states: dict[str, dict[str, Record]] = {"sandbox": {}, "production": {"kept": record(1)}}
        for environment, records in states.items():
            path = workspace.path / f"meters.{environment}.lock.json"
            lockfile.save(path, Lockfile(environment, None, PROJECT, records))
        fine, note = workspace.ok("validate").splitlines()
        assert fine == "meters.yaml: 1 meter is fine."
        assert re.fullmatch(
            r"meters\.yaml:5:5: note: the removal of `gone` is done in every lockfile "
            r"\(production, sandbox\), and can go\.",
            note,
        )
        assert workspace.ok("validate", "-q") == ""
        path.write_text("not JSON", encoding="utf-8")
        assert workspace.ok("validate") == "meters.yaml: 1 meter is fine.\n"

    @pytest.mark.parametrize(
        "command", [["plan", "-e", "sandbox"], ["apply", "-e", "sandbox", "-y"], ["serve", "--port", "0"]]
    )
    def test_elsewhere_a_second_manifest_is_refused(
        self, workspace: Workspace, polar: Served, command: list[str]
    ) -> None:
        workspace.write({"a": meter()})
        done = workspace.run(*command, "-f", "meters.yaml", "-f", "b.yaml")
        assert done.returncode == 1
        assert "-f names one manifest here: only `validate` takes several" in done.stderr
        assert polar.tape.exchanges == []


class TestOverwriting:
    @pytest.mark.parametrize("option", ["--out={}", "--report=json={}", "--report=markdown={}"])
    @pytest.mark.parametrize("file", ["meters.yaml", "meters.sandbox.lock.json", "notes.txt"])
    def test_only_plans_and_reports_are_overwritten(
        self, workspace: Workspace, polar: Served, option: str, file: str
    ) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        (workspace.path / "notes.txt").write_text("Precious.\n")
        before = (workspace.path / file).read_bytes()
        polar.tape.clear()
        done = workspace.run("plan", "-e", "sandbox", option.format(file))
        assert done.returncode == 1
        assert f"error: {file} is neither a plan nor a report, so it is not overwritten" in done.stderr
        assert (workspace.path / file).read_bytes() == before
        assert polar.tape.exchanges == []

    def test_what_it_wrote_itself_is_overwritten(self, workspace: Workspace) -> None:
        written = ["--out=p", "--report=json=j", "--report=markdown=m", "--report=text=t"]
        for meters in ({"a": meter()}, {}):
            workspace.write(meters)
            for _ in range(2):
                workspace.ok("plan", "-e", "local", *written)
                workspace.ok("show", "p", *written[1:])
                workspace.ok("plan", "-e", "local", "-e", "sandbox", *written[1:])

    def test_an_empty_file_is_overwritten(self, tmp_path: Path) -> None:
        """`mktemp` makes one."""
        (tmp_path / "empty").touch()
        for name in ("empty", "none", "."):
            check_replaceable(tmp_path / name)
        (tmp_path / "list").write_text("[1]")
        with pytest.raises(PolarIacError, match="neither a plan nor a report"):
            check_replaceable(tmp_path / "list")


class TestOpenFiles:
    """`--report json=/dev/stdout >all.txt`: root could replace the link in /dev, for everybody."""

    def test_what_is_open_already_is_written_to_where_it_stands(self, tmp_path: Path) -> None:
        with (tmp_path / "all.txt").open("w") as file:
            file.write("before\n")
            file.flush()
            path = Path(f"/dev/fd/{file.fileno()}")
            check_replaceable(path)
            write_file(path, "report\n")
            file.write("after\n")
        assert (tmp_path / "all.txt").read_text() == "before\nreport\nafter\n"

    @pytest.mark.parametrize(
        ("path", "number"),
        [("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/0", 0), ("/proc/self/fd/63", 63)],
    )
    def test_it_is_known_by_its_path_whatever_kind_of_file_it_is(self, path: str, number: int) -> None:
        assert descriptor_of(Path(path)) == number
        assert not is_replaced(Path(path))

    def test_a_file_is_replaced_and_a_device_is_not(self, tmp_path: Path) -> None:
        (tmp_path / "stdout").touch()
        assert is_replaced(tmp_path / "stdout")
        assert is_replaced(tmp_path / "none")
        assert not is_replaced(Path("/dev/null"))
        assert not is_replaced(tmp_path)


class TestSavedPlans:
    def test_without_a_terminal_polar_is_not_read(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter()})
        workspace.ok("plan", "-e", "sandbox", "--out", "p.json")
        polar.tape.clear()
        done = workspace.run("apply", "p.json")
        assert done.returncode == 1
        assert "no terminal to ask on: pass -y to approve" in done.stderr
        assert polar.tape.exchanges == []

    def test_a_plan_that_is_done_already_is_said_to_be(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter(), "b": meter(metadata={"x": 1}), "c": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter(name="Renamed"), "c": meter(archived=True), "d": meter()})
        workspace.ok("plan", "-e", "sandbox", "--allow-archive", "--out", "p.json")
        workspace.ok("apply", "p.json", "-y")
        polar.tape.clear()
        assert "Already applied: Polar is as the saved plan leaves it." in workspace.ok(
            "apply", "p.json", "-y"
        )
        assert polar.tape.writes(0) == []

    def test_a_plan_that_was_only_dropped_is_stale(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter(name="Renamed")})
        workspace.ok("plan", "-e", "sandbox", "--out", "p.json")
        workspace.write({"a": meter()})
        done = workspace.run("apply", "p.json", "-y")
        assert done.returncode == 4
        assert "Already applied" not in done.stdout


class TestLocal:
    """Its lockfile is of use on one machine, as its database is: they are together."""

    def test_the_lockfile_is_in_the_state_directory(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "local", "-y")
        assert set(workspace.lock("local")["meters"]) == {"a"}
        assert sorted(path.name for path in workspace.path.iterdir()) == [".polar-iac", "meters.yaml"]
        assert not (workspace.path / ".polar-iac" / ".polar-iac").exists()
        assert "No changes" in workspace.ok("plan", "-e", "local")
        subprocess.run(["rm", "-r", workspace.path / ".polar-iac"], check=True)
        assert "1 created" in workspace.ok("apply", "-e", "local", "-y")

    def test_one_beside_the_manifest_is_still_used(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "local", "-y")
        name = "meters.local.lock.json"
        (workspace.path / ".polar-iac" / name).rename(workspace.path / name)
        workspace.write({"a": meter(name="Renamed")})
        assert "1 updated" in workspace.ok("apply", "-e", "local", "-y")
        assert "Renamed" in (workspace.path / name).read_text()
        assert not (workspace.path / ".polar-iac" / name).exists()

    @pytest.mark.parametrize("command", [["plan"], ["apply", "-y"]])
    def test_a_missing_database_is_explained(self, workspace: Workspace, command: list[str]) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "local", "-y")
        (workspace.path / ".polar-iac" / "local.sqlite").unlink()
        done = workspace.run(*command, "-e", "local")
        assert done.returncode == 5
        lockfile = ".polar-iac/meters.local.lock.json"
        assert "error: the database of `local` is missing (.polar-iac/local.sqlite)" in done.stderr
        assert f"{lockfile} records: remove that file to begin anew" in done.stderr
        (workspace.path / lockfile).unlink()
        assert "1 created" in workspace.ok("apply", "-e", "local", "-y")


class TestStandardInput:
    def pipe(self, workspace: Workspace, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=workspace.path,
            env=clean_environment(**workspace.environ, **measured()),
            input=text,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )

    def test_validate_reads_it(self, workspace: Workspace) -> None:
        done = self.pipe(workspace, manifest_text({"a": meter()}), "validate", "-f", "-")
        assert (done.returncode, done.stdout) == (0, "<stdin>: 1 meter is fine.\n")
        done = self.pipe(workspace, "version: 2\nproject: x\nmeters: {}\n", "validate", "-")
        assert done.returncode == 1
        assert done.stderr.startswith("<stdin>:1:10: error: ")

    def test_plan_reads_it_once_for_all_environments(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        text = manifest_text({"a": meter(name="Renamed")})
        done = self.pipe(workspace, text, "plan", "-e", "sandbox", "-e", "local", "-f", "-")
        assert done.returncode == 0, done.stderr
        assert "<stdin> → sandbox" in done.stdout
        assert "1 to update" in done.stdout, "the lockfile is the one of meters.yaml"
        assert "<stdin> → local" in done.stdout

    def test_its_plan_is_applied_to_the_manifest_that_is_given(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        text = (workspace.path / "meters.yaml").read_text()
        self.pipe(workspace, text, "plan", "-e", "sandbox", "-f", "-", "--out", "p.json")
        saved = json.loads((workspace.path / "p.json").read_text())
        assert saved["manifest"] is None
        jsonschema.validate(saved, SCHEMA)
        assert "1 created" in workspace.ok("apply", "p.json", "-f", "meters.yaml", "-y")

    @pytest.mark.parametrize("command", [["apply", "-e", "sandbox", "-y"], ["serve", "--port", "0"]])
    def test_elsewhere_it_is_refused(self, workspace: Workspace, command: list[str]) -> None:
        done = workspace.run(*command, "-f", "-")
        assert done.returncode == 1
        assert "-f - is for `validate` and `plan`" in done.stderr
