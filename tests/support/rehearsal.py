"""GitHub on one machine: a real bare remote, checkouts, and runners that execute the actions' own steps.

A runner reads `action.yml` and the workflows and does what GitHub does with them, as far as they go: inputs
and their defaults, `env`, `if`, outputs, the files and variables of a run. Only its API is a stand-in.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.build import manifest_text, meter
from tests.support.command import HANG_SECONDS, clean_environment
from tests.support.fork_server import shared_fork_server
from tests.support.github_server import GitHubServer
from tests.support.served_polar import scripted

ROOT = Path(__file__).parents[2]
REPOSITORY = "acme/billing"
BOT = "github-actions[bot]"

_ALL = '"$@"'
_PYTHON = f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)}"

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_TOKEN = re.compile(r"\s*(&&|\|\||==|!=|[()]|'[^']*'|[a-z][\w.-]*(?:\(\))?)")


@cache
def load(file: Path) -> Any:
    """Read a YAML file, once: what is returned is for reading only."""
    return YAML(typ="safe", pure=True).load(file)


def evaluate(expression: str, contexts: Mapping[str, Any]) -> Any:
    """The value of a GitHub expression; only what the actions and workflows here use."""
    words, at = [], 0
    while at < len(expression.rstrip()):
        token = _TOKEN.match(expression, at)
        assert token, f"not known to this rehearsal: {expression[at:]!r}"
        words.append({"&&": " and ", "||": " or "}.get(token[1]) or _word(token[1]))
        at = token.end()
    return eval("".join(words), {"value": lambda path: _lookup(path, contexts)})  # noqa: S307


def _word(token: str) -> str:
    if token in ("==", "!=", "(", ")") or token.startswith("'"):
        return token
    return "True" if token == "always()" else f"value({token!r})"


def _lookup(path: str, contexts: Mapping[str, Any]) -> Any:
    value: Any = contexts
    for name in path.split("."):
        value = (value or {}).get(name)  # what is not there is empty, as on GitHub
    return "" if value is None else value


def resolve(text: Any, contexts: Mapping[str, Any]) -> str:
    return _EXPRESSION.sub(lambda match: str(evaluate(match[1], contexts)), str(text))


def holds(condition: str | None, contexts: Mapping[str, Any], *, fine: bool = True) -> bool:
    """True if an `if` lets a step or job run; after a failure only one that says always()."""
    condition = condition or ""
    bare = _EXPRESSION.sub(lambda match: match[1], condition).strip()
    return (fine or "always()" in bare) and (not bare or bool(evaluate(bare, contexts)))


@dataclass
class Hub:
    """The remote, and what GitHub would know. `warm` is the socket of a warmed command, to save time."""

    path: Path
    github: GitHubServer
    api: str
    """Address at which `github` answers."""
    warm: Path | None = None
    artifacts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Artifacts that runners uploaded, in order: the texts of files by name, by the name of the artifact."""

    def __post_init__(self) -> None:
        shutil.copytree(_template(), self.remote)
        (self.path / "tools").mkdir()

    @staticmethod
    def _tool(file: Path, line: str) -> None:
        file.write_text(f"#!/bin/bash\n{line}\n")
        file.chmod(0o755)

    def path_without(self, tool: str) -> str:
        """The value of PATH on a runner that lacks a tool, wherever this machine has it."""
        directories = []
        for number, directory in enumerate([self.path / "tools", *map(Path, os.get_exec_path())]):
            kept = directory
            if (directory / tool).exists():
                kept = self.path / f"without-{tool}-{number}"
                kept.mkdir()
                for file in directory.iterdir():
                    if file.name != tool:
                        (kept / file.name).symlink_to(file)
            directories.append(str(kept))
        return os.pathsep.join(directories)

    @property
    def remote(self) -> Path:
        return self.path / "remote.git"

    @property
    def url(self) -> str:
        return self.remote.as_uri()

    @property
    def state(self) -> Any:
        """A copy of what GitHub has now."""
        return json.loads(json.dumps(self.github.state))

    def write_state(self, **changed: Any) -> None:
        self.github.state |= changed

    def asked(self, **fields: Any) -> list[dict[str, Any]]:
        """The requests to GitHub's API that have these fields."""
        return [asked for asked in self.state["asked"] if fields.items() <= asked.items()]

    def protect(
        self, *branches: str, refusal: str = "error: GH006: Protected branch update failed for REF."
    ) -> None:
        (self.remote / "refusal").write_text(f"{refusal}\n")
        (self.remote / "protected").write_text("".join(f"refs/heads/{branch}\n" for branch in branches))
        hook = self.remote / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        self._tool(
            hook,
            "while read old new ref; do\n"
            '  if grep -qx "$ref" protected; then sed s,REF,$ref, refusal >&2; exit 1; fi\ndone',
        )

    def git(self, *arguments: str, data: str = "", cwd: Path | None = None) -> str:
        """Run git in the remote."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd or self.remote,
            env=base_environment(),
            input=data,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def push(
        self, files: Mapping[str, str | None], *, branch: str = "main", message: str = "A change"
    ) -> str:
        """A colleague's commit on a branch of the remote, on top of what is there; None removes a file."""
        start = branch if self._reference(branch).exists() else "main"
        return self.git(
            "fast-import",
            "--quiet",
            "--force",
            "--date-format=now",
            data=_commit(branch, start, files, message),
        )

    def push_meanwhile(self, files: Mapping[str, str]) -> None:
        """The same, at the moment in which a runner is about to push to main."""
        self.before_push(lambda: self.push(files, message="Meanwhile"))

    def before_push(self, action: Callable[[], object]) -> None:
        """Do something just before the next push of a runner: its git asks for it."""
        waiting = self.path / "meanwhile"
        waiting.touch()
        self.github.meanwhile = action
        host, port = self.api.removeprefix("http://").split(":")
        request = f"POST /meanwhile HTTP/1.1\\r\\nHost: {host}\\r\\nContent-Length: 0\\r\\n\\r\\n"
        self._tool(
            self.path / "tools" / "git",
            f'if [ "$1" = push ] && rm {waiting} 2>/dev/null; then\n'
            f"  exec 3<>/dev/tcp/{host}/{port}; printf '{request}' >&3; grep -q '200 OK' <&3 || exit 99\n"
            f"fi\nexec {shutil.which('git')} {_ALL}",
        )

    def move(self, branch: str, to: str) -> None:
        """Let a branch of the remote stand on another commit, as a merge or a forced push does."""
        self.git("update-ref", f"refs/heads/{branch}", to)

    def files(self, branch: str = "main") -> list[str]:
        return self.git("ls-tree", "-r", "--name-only", branch).splitlines()

    def read(self, name: str, branch: str = "main") -> str:
        return self.git("show", f"{branch}:{name}")

    def branches(self) -> list[str]:
        return self.git("for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()

    def log(self, branch: str = "main") -> list[str]:
        return self.git("log", "--format=%s", branch).splitlines()

    def tip(self, branch: str = "main") -> str:
        return self._reference(branch).read_text().strip()

    def _reference(self, branch: str) -> Path:
        return self.remote / "refs" / "heads" / branch

    def pull_request(
        self, branch: str, *, number: int = 7, repository: str = REPOSITORY, actor: str = "ana"
    ) -> Runner:
        """A runner for a push to a pull request into main."""
        head = {"sha": self.tip(branch), "repo": {"full_name": repository}}
        return self._runner(
            event={"pull_request": {"number": number, "head": head, "base": {"sha": self.tip()}}},
            event_name="pull_request",
            actor=actor,
            sha=self.tip(branch),
            ref=f"refs/pull/{number}/merge",
            ref_name=f"{number}/merge",
            head_ref=branch,
            base_ref="main",
        )

    def merged(self, *, sha: str | None = None, event_name: str = "push", branch: str = "main") -> Runner:
        """A runner for a commit on main: its tip, if none is named."""
        return self._runner(
            event={},
            event_name=event_name,
            actor="ana",
            sha=sha or self.tip(branch),
            ref=f"refs/heads/{branch}",
            ref_name=branch,
            head_ref="",
            base_ref="",
        )

    def queued(self, sha: str, *, base: str = "main") -> Runner:
        """A runner for a commit of the merge queue, on a branch that exists for it alone."""
        name = f"gh-readonly-queue/{base}/pr-7-{sha[:8]}"
        return self._runner(
            event={
                "merge_group": {"base_ref": f"refs/heads/{base}", "base_sha": self.tip(base), "head_sha": sha}
            },
            event_name="merge_group",
            actor="ana",
            sha=sha,
            ref=f"refs/heads/{name}",
            ref_name=name,
            head_ref="",
            base_ref="",
        )

    def _runner(self, **github: Any) -> Runner:
        path = self.path / f"runner-{len(list(self.path.glob('runner-*')))}"
        return Runner(self, path, github | {"repository": REPOSITORY, "token": "ghs_secret"})


def _commit(branch: str, start: str | None, files: Mapping[str, str | None], message: str) -> str:
    """A commit for `git fast-import`, which then prints its name."""
    lines = [f"commit refs/heads/{branch}", "mark :1", "committer ana <ana@acme> now", _data(message)]
    lines += [f"from refs/heads/{start}^0"] if start else []
    for name, text in files.items():
        lines += [f"D {name}"] if text is None else [f"M 100644 inline {name}", _data(text)]
    return "\n".join([*lines, "", "get-mark :1", ""])


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}"


@cache
def _template() -> Path:
    """A remote whose main has a manifest with one meter: copied, which takes less than making it."""
    template = _shared() / "remote.git"
    first = {"meters.yaml": manifest_text({"calls": meter()}), "README.md": "Billing.\n"}
    environ = base_environment()
    for arguments, data in (
        (["init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(template)], ""),
        (["-C", str(template), "config", "uploadpack.allowAnySHA1InWant", "true"], ""),
        (
            ["-C", str(template), "fast-import", "--quiet", "--date-format=now"],
            _commit("main", None, first, "First"),
        ),
    ):
        subprocess.run(
            ["git", *arguments], env=environ, input=data, text=True, check=True, capture_output=True
        )
    return template


@cache
def _empty_checkout() -> Path:
    """The directory `.git` of an empty checkout."""
    checkout = _shared() / "empty"
    command = ["git", "init", "--quiet", "--template=", str(checkout)]
    subprocess.run(command, env=base_environment(), check=True)
    return checkout / ".git"


@cache
def _shared() -> Path:
    """A directory of this process, with a configuration for git: nothing that runs later by itself."""
    directory = Path(tempfile.mkdtemp(prefix="polar-iac-rehearsal-"))
    atexit.register(shutil.rmtree, directory)
    (directory / "gitconfig").write_text("[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n")
    return directory


@contextmanager
def github_hub(path: Path, warm: Path | None) -> Iterator[Hub]:
    """A repository whose main has a manifest with one meter. Nobody asks GitHub without the job's token."""
    server = GitHubServer(REPOSITORY, BOT)
    with scripted(server) as (url, tape):
        yield Hub(path, server, url, warm)
        asked = [exchange for exchange in tape.exchanges if exchange.path != "/meanwhile"]
        assert {exchange.headers.get("authorization") for exchange in asked} <= {"Bearer ghs_secret"}


@contextmanager
def warmed() -> Iterator[Path]:
    """The socket of a process that runs the command without its start-up."""
    with shared_fork_server("unmeasured") as server:
        yield server.address


def base_environment() -> dict[str, str]:
    """Nothing of this machine's git, gh or Actions."""
    kept = clean_environment()
    drop = ("GIT_", "GH_", "RUNNER_", "INPUT_")
    return {name: value for name, value in kept.items() if not name.startswith(drop)} | {
        "GIT_CONFIG_GLOBAL": str(_shared() / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }


@dataclass
class Ran:
    """The result of an action or a job."""

    ok: bool
    log: str
    outputs: dict[str, str]
    summary: str

    def expect(self, *, ok: bool = True) -> Ran:
        assert self.ok == ok, self.log
        return self


@dataclass
class Runner:
    """One job: a machine of its own with a checkout, for one event."""

    hub: Hub
    path: Path
    github: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)
    installed: bool = True
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        for directory in (self.workspace, self.temp):
            directory.mkdir(parents=True)
        (self.path / "event.json").write_text(json.dumps(self.github["event"]), encoding="utf-8")
        self._checkout()
        if self.installed:  # or else the action installs it, which takes a while
            tools = self.temp / "polar-iac" / "bin"
            tools.mkdir(parents=True)
            (tools.parent / "installed").touch()
            Hub._tool(tools / "python", f"{_PYTHON} {_ALL}")
            command = f"{_PYTHON} -m polar_iac {_ALL}"
            if self.hub.warm:
                client = ROOT / "tests" / "support" / "warm_command.py"
                command = f"exec {shlex.quote(sys.executable)} -I -S {client} {self.hub.warm} {_ALL}"
            Hub._tool(tools / "polar-iac", command)

    @property
    def workspace(self) -> Path:
        return self.path / "workspace"

    @property
    def temp(self) -> Path:
        return self.path / "temp"

    @property
    def variables(self) -> dict[str, str]:
        values = {f"GITHUB_{name.upper()}": str(self.github[name]) for name in self.github if name != "event"}
        values.pop("GITHUB_TOKEN")
        return values | {
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_API_URL": self.hub.api,
            "GITHUB_GRAPHQL_URL": f"{self.hub.api}/graphql",
            "GITHUB_RUN_ID": "4711",
            "GITHUB_WORKFLOW": "meters",
            "GITHUB_EVENT_PATH": str(self.path / "event.json"),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
            "PATH": f"{self.hub.path / 'tools'}:{os.environ['PATH']}",
        }

    def _checkout(self) -> None:
        """As actions/checkout does: one commit deep."""
        ref, here = self.github["sha"], self.workspace
        name = self.github["ref_name"].replace("/", "-")
        shutil.copytree(_empty_checkout(), here / ".git")
        with (here / ".git" / "config").open("a") as config:
            config.write(f'[remote "origin"]\n\turl = {self.hub.url}\n')
            config.write("\tfetch = +refs/heads/*:refs/remotes/origin/*\n")
        self.hub.git("fetch", "--quiet", "--depth=1", "origin", ref, cwd=here)
        self.hub.git("checkout", "--quiet", "-B", name, "FETCH_HEAD", cwd=here)

    def uses(self, action: str, env: Mapping[str, str] | None = None, **inputs: str) -> Ran:
        """Run an action's steps, one after the other, as its `action.yml` says."""
        directory = ROOT / ".github" / "actions" / action
        definition = load(directory / "action.yml")
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= definition["inputs"].keys()
        contexts: dict[str, Any] = {"github": self.github, "steps": {}}
        contexts["inputs"] = {
            name: given.get(name, resolve(about.get("default", ""), contexts))
            for name, about in definition["inputs"].items()
        }
        fine, log = True, ""
        summary = self.temp / "summary.md"
        summary.write_text("")
        for number, step in enumerate(definition["runs"]["steps"]):
            if not holds(step.get("if"), contexts, fine=fine):
                continue
            if "uses" in step:
                self._upload(step["uses"], {k: resolve(v, contexts) for k, v in step["with"].items()})
                continue
            assert step["shell"] == "bash"
            script, output = self.temp / f"step-{number}.sh", self.temp / f"output-{number}"
            script.write_text(resolve(step["run"], contexts))
            output.write_text("")
            variables = {name: resolve(value, contexts) for name, value in step.get("env", {}).items()}
            code, text = self._run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
                {
                    **base_environment(),
                    **self.variables,
                    **self.environ,
                    **(env or {}),
                    **variables,
                    "GITHUB_ACTION_PATH": str(directory),
                    "GITHUB_OUTPUT": str(output),
                    "GITHUB_STEP_SUMMARY": str(summary),
                    "GITHUB_ENV": str(self.temp / "env"),
                },
            )
            log += f"### {step['name']}: {code}\n{text}"
            fine = fine and code == 0
            lines = output.read_text().splitlines()
            if "id" in step:
                contexts["steps"][step["id"]] = {"outputs": dict(line.split("=", 1) for line in lines)}
        outputs = {
            name: resolve(about["value"], contexts) for name, about in definition.get("outputs", {}).items()
        }
        return Ran(fine, log, outputs, summary.read_text())

    def imported(self, environment: str, env: Mapping[str, str]) -> str:
        """The manifest of the checkout after a person has imported every meter into it."""
        command = [str(self.temp / "polar-iac" / "bin" / "polar-iac"), "import", "--all", "-e", environment]
        code, text = self._run(command, {**base_environment(), **env})
        assert code == 0, text
        return (self.workspace / "meters.yaml").read_text(encoding="utf-8")

    def _upload(self, uses: str, inputs: Mapping[str, str]) -> None:
        """As actions/upload-artifact does, which refuses a second artifact of one name."""
        assert uses.startswith("actions/upload-artifact@")
        assert inputs["name"] not in self.hub.artifacts
        files = Path(inputs["path"]).iterdir()
        self.hub.artifacts[inputs["name"]] = {f.name: f.read_text(encoding="utf-8") for f in files}

    def _run(self, command: list[str], environ: dict[str, str]) -> tuple[int, str]:
        self.process = subprocess.Popen(
            command,
            cwd=self.workspace,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        text, _ = self.process.communicate(timeout=HANG_SECONDS)
        return self.process.returncode, text


@dataclass
class Workflow:
    """Runs the jobs of a workflow file of this repository, in the order in which the test asks."""

    file: str
    runner: Callable[[], Runner]
    variables: dict[str, str]
    secrets: dict[str, str]
    needs: dict[str, Any] = field(default_factory=dict)

    def job(self, name: str, **environment_secrets: str) -> Ran | None:
        """Run a job; None when its condition skips it. Its environment's secrets come last."""
        job = load(ROOT / ".github" / "workflows" / self.file)["jobs"][name]
        assert bool(environment_secrets) == ("environment" in job)
        runner = self.runner()
        contexts: dict[str, Any] = {
            "github": runner.github,
            "vars": self.variables,
            "secrets": self.secrets | environment_secrets,
            "needs": self.needs,
            "steps": {},
        }
        if not holds(job.get("if"), contexts):
            return None
        ran = Ran(True, "", {}, "")
        for step in job["steps"]:
            if "run" in step or step["uses"].startswith("actions/checkout@"):
                continue
            action = step["uses"].removeprefix("$/.github/actions/")
            env, inputs = (
                {name: resolve(value, contexts) for name, value in step.get(part, {}).items()}
                for part in ("env", "with")
            )
            ran = runner.uses(action, env, **inputs)
            contexts["steps"][step.get("id")] = {"outputs": ran.outputs}
        outputs = {name: resolve(value, contexts) for name, value in job.get("outputs", {}).items()}
        self.needs[name] = {"outputs": outputs, "result": "success" if ran.ok else "failure"}
        return ran
