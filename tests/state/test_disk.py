"""A full disk, a directory that cannot be written, a lockfile that goes: reported clearly, and repaired."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from polar_iac.local import LocalPolar, serving
from tests.support.build import meter
from tests.support.command import COMMAND, HANG_SECONDS, Workspace, clean_environment
from tests.support.served_polar import Served

APPLY = (
    "apply",
    "-e",
    "sandbox",
    "-y",
    "--lookup-timeout",
    "0.2",
    "--resend-after",
    "0.2",
    "--parallelism",
    "2",
)


@pytest.mark.unmeasured
@pytest.mark.parametrize("size", [0, 1, 300, 1000, 2500, 4000])
def test_a_full_disk_loses_no_id(workspace: Workspace, polar: Served, size: int) -> None:
    """No file may grow beyond `size` bytes, which fails a write as a full disk does."""
    workspace.write({f"m{n}": meter(name=f"Meter {n}") for n in range(8)})

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = subprocess.run(
        [*COMMAND, *APPLY],
        cwd=workspace.path,
        env=clean_environment(**workspace.environ, PYTHONDONTWRITEBYTECODE="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=fill,
        check=False,
    )
    assert done.returncode == 1
    assert "error: cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    created = polar.tape.count("POST")
    healed = workspace.ok(*APPLY)
    assert polar.tape.count("POST") == 8
    assert ("8 created" in healed) == (created == 0)
    assert "No changes. 8 meters match" in workspace.ok("plan", "-e", "sandbox")
    assert polar.tape.count("POST") == 8
    assert not (workspace.path / ".polar-iac" / "meters.sandbox.lock.json.journal").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="wants a file system that nobody can write")
def test_a_read_only_directory_is_reported(workspace: Workspace, polar: Served) -> None:
    workspace.write({"a": meter()})
    done = workspace.run(*APPLY, "--lockfile", "/sys/meters.sandbox.lock.json")
    assert done.returncode == 1
    assert "error: cannot write to /sys/.polar-iac" in done.stderr
    assert polar.tape.count("POST") == 0
    # A plan writes nothing, and needs no such place.
    assert "1 to create" in workspace.ok(
        "plan", "-e", "sandbox", "--lockfile", "/sys/meters.sandbox.lock.json"
    )


@pytest.fixture
def slow(workspace: Workspace) -> Iterator[LocalPolar]:
    polar = LocalPolar()

    def slowly(environ: Any, start_response: Any) -> Any:
        time.sleep(0.05)
        return polar(environ, start_response)

    with closing(polar), serving(slowly) as url:
        workspace.environ["POLAR_BASE_URL"] = url
        yield polar


@pytest.mark.usefixtures("slow")
def test_a_lockfile_deleted_during_a_run_is_written_anew(workspace: Workspace) -> None:
    workspace.write({"m0": meter()})
    workspace.ok(*APPLY)
    workspace.write({f"m{n}": meter(name=f"Meter {n}") for n in range(20)})
    lock = workspace.path / "meters.sandbox.lock.json"
    process = subprocess.Popen(
        [*COMMAND, *APPLY],
        cwd=workspace.path,
        env=clean_environment(**workspace.environ),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "created" in line:
            lock.unlink(missing_ok=True)
            break
    output = process.communicate(timeout=HANG_SECONDS)[0]
    assert process.returncode == 0, output
    assert len(workspace.lock()["meters"]) == 20
    lock.unlink()
    assert "20 adopted" in workspace.ok(*APPLY)
    assert "No changes. 20 meters match" in workspace.ok("plan", "-e", "sandbox")


def test_links_out_of_the_directory_are_not_followed(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (workspace.path / ".polar-iac").symlink_to(outside)
    workspace.write({"a": meter()})
    for command in (("plan", "-e", "sandbox"), APPLY):
        done = workspace.reads_only(*command)
        assert done.returncode == 5
        assert "symbolic link" in done.stderr
    assert list(outside.iterdir()) == []
