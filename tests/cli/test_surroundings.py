"""Surroundings of a run: variables, streams, directories and special files. No bug of the tool is there."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from polar_iac.errors import PolarIacError
from polar_iac.polar.connection import Connection, check_base_url
from polar_iac.polar.errors import TransientError
from tests.support.build import meter
from tests.support.command import COMMAND, HANG_SECONDS, Workspace, clean_environment
from tests.support.fork_server import ForkServer

MANIFEST = {"calls": meter(name="Calls ✓ é")}


def run(
    workspace: Workspace, *arguments: str, before: str = "", after: str = "", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the real command by a shell, which does something `before`, and redirects its streams `after`."""
    return subprocess.run(
        ["bash", "-c", f'{before}"$@" {after}', "bash", *COMMAND, *arguments],
        cwd=workspace.path,
        env=clean_environment(**(workspace.environ | variables)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=HANG_SECONDS,
        check=False,
    )


@pytest.fixture
def workspace(tmp_path: Path, warmed: ForkServer, measures: bool) -> Workspace:
    made = Workspace(tmp_path, {"POLAR_ACCESS_TOKEN": "polar_oat_x"}, warmed, measures=measures)
    made.write(MANIFEST)
    return made


class TestVariables:
    @pytest.mark.parametrize(
        ("name", "value", "problem"),
        [
            ("NO_PROXY", "[::1]", "holds `[::1]`: write an IPv6 address without brackets"),
            ("NO_PROXY", "localhost,fe80::/10", "holds `fe80::/10`: ranges of IPv6 addresses"),
            ("HTTPS_PROXY", "socks5://u:s3cret@127.0.0.1:9", "names a SOCKS proxy: install polar-iac with"),
            ("ALL_PROXY", "socks4://127.0.0.1:9", "names a proxy of the unknown scheme socks4: use one of"),
            ("https_proxy", "http://u:s3cret@[::1", "is not an address of a proxy"),
            ("SSL_CERT_FILE", "none.pem", "names none.pem, which cannot be read: No such file"),
            ("SSL_CERT_FILE", "meters.yaml", "names meters.yaml, which holds no certificates"),
            ("SSLKEYLOGFILE", "none/keys", "names none/keys, which cannot be written: No such file"),
        ],
    )
    def test_a_variable_that_the_http_client_cannot_use_is_named(
        self, workspace: Workspace, name: str, value: str, problem: str
    ) -> None:
        done = workspace.run("plan", "-e", "sandbox", **{name: value})
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {name} {problem}")
        assert "s3cret" not in done.stderr

    @pytest.mark.parametrize(
        "host", ["a..b", "xn--", "xn--a", "xn--zz-", "x:99999", "x:0", ".", "a" * 64 + ".com"]
    )
    def test_a_host_that_no_resolver_takes_is_no_address(self, host: str) -> None:
        with pytest.raises(PolarIacError, match="POLAR_BASE_URL is not an address"):
            check_base_url(f"https://{host}")

    @pytest.mark.parametrize("host", ["ä.example", "xn--4ca.example", "api.polar.sh.", "[::1]:8443"])
    def test_other_hosts_are_addresses(self, host: str) -> None:
        assert check_base_url(f"https://{host}/v1/") == f"https://{host}"

    def test_a_proxy_that_refuses_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://u:s3cret@127.0.0.1:9")
        connection = Connection("https://polar.example", "polar_oat_x", transport=None, timeout=5.0)
        with closing(connection), pytest.raises(TransientError) as caught:
            connection.send("GET", "/meters/")
        assert str(caught.value).startswith("no connection to the proxy 127.0.0.1:9 (see HTTPS_PROXY")
        assert "s3cret" not in str(caught.value)
        assert caught.value.fate == "not-sent"


class TestStreams:
    @pytest.mark.parametrize("arguments", [["plan", "-e", "local"], ["validate"], ["--help"], ["--version"]])
    def test_a_full_disk_behind_stdout_is_reported(self, workspace: Workspace, arguments: list[str]) -> None:
        done = run(workspace, *arguments, after=">/dev/full")
        assert done.returncode == 1
        assert done.stderr == b"error: cannot write to stdout: No space left on device\n"

    @pytest.mark.parametrize("arguments", [["apply", "-e", "local", "-y"], ["validate"], ["--help"]])
    @pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-", "2>/dev/full"])
    def test_a_closed_stdout_and_a_full_stderr_stop_nothing(
        self, workspace: Workspace, arguments: list[str], redirection: str
    ) -> None:
        done = run(workspace, *arguments, after=redirection)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_an_error_with_a_full_stderr_keeps_its_exit_code(self, workspace: Workspace) -> None:
        for arguments in (["plan"], ["plan", "-e", "local", "-f", "none"]):
            assert run(workspace, *arguments, after="2>/dev/full").returncode == 1

    @pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437"])
    def test_characters_that_the_encoding_lacks_are_replaced(
        self, workspace: Workspace, encoding: str
    ) -> None:
        done = run(workspace, "plan", "-e", "local", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b"Next: `polar-iac apply -e local`\n")
        assert 'calls "Calls ? é"'.encode(encoding, "replace") in done.stdout
        as_json = run(workspace, "plan", "-e", "local", "--format", "json", PYTHONIOENCODING=encoding)
        document: dict[str, Any] = json.loads(as_json.stdout.decode("ascii"))
        assert document["changes"][0]["name"] == "Calls ✓ é"


class TestFiles:
    def test_a_removed_working_directory_is_said(self, workspace: Workspace) -> None:
        (workspace.path / "gone").mkdir()
        for arguments in (["validate"], ["plan", "-e", "local", "-f", str(workspace.path / "meters.yaml")]):
            done = run(workspace, *arguments, before="mkdir -p gone; cd gone; rmdir ../gone; ")
            assert done.returncode == 1
            assert b"error: the working directory cannot be used (No such file or directory)" in done.stderr

    @pytest.mark.parametrize("command", ["validate -f", "apply", "show", "plan -e local --lockfile"])
    @pytest.mark.parametrize(("file", "kind"), [("pipe", "a pipe"), ("/dev/zero", "a device")])
    def test_what_never_ends_is_not_read(
        self, workspace: Workspace, command: str, file: str, kind: str
    ) -> None:
        os.mkfifo(workspace.path / "pipe")
        done = workspace.run(*command.split(), file)
        assert done.returncode == 1
        count = "Found 1 error in 1 file.\n" if command.startswith("validate") else ""
        assert done.stderr == f"error: {file} is {kind}, not a file: save what it holds in a file\n{count}"

    def test_what_a_shell_has_open_is_read(self, workspace: Workspace) -> None:
        done = run(workspace, "validate", "-f", "/dev/fd/9", after="9< <(cat meters.yaml)")
        assert (done.returncode, done.stdout) == (0, b"/dev/fd/9: 1 meter is fine.\n")

    def test_a_name_that_is_too_long_is_no_bug(self, workspace: Workspace) -> None:
        name = "x" * 300
        for arguments in (["-f", name], ["--lockfile", name], ["--out", name]):
            done = workspace.run("plan", "-e", "local", *arguments)
            assert done.returncode == 1
            assert "File name too long" in done.stderr
            assert "itself failed" not in done.stderr


def test_the_extra_for_socks_is_declared() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert [line.partition(">")[0] for line in project["optional-dependencies"]["socks"]] == ["httpx[socks]"]
