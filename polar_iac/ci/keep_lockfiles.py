"""Lockfiles of an apply, kept where the input `persist` says: merged into what the remote has, and pushed.

The push has a lease: a compare-and-swap against whoever else pushes. Whatever a push says is judged by
`push_result`, which is pure.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from polar_iac.ci.checkout import NO_LOCKFILES, Checkout, lockfile_pull_request
from polar_iac.ci.git import GitError
from polar_iac.ci.github_api import GitHubApi, GitHubError
from polar_iac.ci.inputs import Persist
from polar_iac.ci.lockfile_merge import MergeConflictError, merge
from polar_iac.clock import Clock
from polar_iac.errors import DiagnosticError, PolarIacError
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile

TRIES = 6
HEALED = (
    "Nothing is lost: what was applied bears its ownership marker, so the next apply finds it again, creates "
    "nothing twice and records it."
)
REMEDY = (
    "The job needs permissions: {contents: write, pull-requests: write}, and Settings, Actions, General must "
    "allow GitHub Actions to create pull requests."
)
PushResult = Literal["moved", "protected", "forbidden", "failed"]
_MOVED = re.compile(
    r"\[rejected\]|cannot lock ref|failed to update ref|incorrect old value|reference already exists"
)
_FORBIDDEN = re.compile(r"error: 403|Permission to|not granted|denied to")
_BOT = {
    f"GIT_{role}_{what}": text
    for role in ("AUTHOR", "COMMITTER")
    for what, text in (
        ("NAME", "github-actions[bot]"),
        ("EMAIL", "41898282+github-actions[bot]@users.noreply.github.com"),
    )
}


class NotKeptError(PolarIacError):
    """The lockfiles could not be kept. The message says why, what to do, and that nothing is lost."""


def push_result(output: str) -> PushResult:
    """Judge the output of a push that failed: the branch has moved on, or will not let us, or it just failed.

    What has moved, or just failed, is tried again.
    """
    if _MOVED.search(output):
        return "moved"
    if _FORBIDDEN.search(output):
        return "forbidden"
    return "protected" if "[remote rejected]" in output else "failed"


def refusal(result: PushResult, output: str, persist: Persist, target: str) -> str:
    """Explain why a branch does not take the push of the lockfiles, and what would make it."""
    if result == "forbidden":
        remedy = (
            "The token may not write. Give the job permissions: {contents: write}, or pass another "
            "github-token."
        )
    elif persist == "commit":
        remedy = (
            "The branch is protected. Do one of these:\n"
            "- persist: branch, on every step of polar-iac: lockfiles are then kept on the unprotected "
            "branch polar-iac-state.\n"
            f"- persist: pull-request: they then come as a pull request to {target}.\n"
            "- Let a GitHub App (or a deploy key) bypass the rule, under Settings, Rules, Rulesets, Bypass "
            "list, and pass the App's token as github-token (or check out with the deploy key as ssh-key). "
            "GitHub's own Actions bot cannot be put on that list."
        )
    else:
        remedy = (
            f"The branch {target} must be free to push to: exempt it from the rules, or choose another one "
            "with state-branch."
        )
    said = "\n".join(_said(output))
    return "\n".join(
        [
            f"The lockfile could not be kept: the push to the branch {target} was refused.",
            said,
            HEALED,
            remedy,
        ]
    )


def _said(output: str) -> list[str]:
    """Return what the remote and git said against a push, at most 12 lines."""
    lines = []
    for line in output.splitlines():
        if line.startswith("remote:"):
            lines.append(line.removeprefix("remote:").strip())
        elif "[remote rejected]" in line:
            lines.append(line.partition("[remote rejected]")[2].strip())
        elif line.startswith(("fatal:", "error:")):
            lines.append(line)
    return [line for line in lines if line][:12]


def merged_text(environment: str, base: bytes | None, theirs: bytes | None, ours: bytes) -> str | None:
    """Return the lockfile to push, or None where theirs has it all. Raises PolarIacError on a conflict."""
    project = _project(ours)
    here = _parsed(ours, "ours", environment, project)
    empty = Lockfile(environment, None, project)
    before = empty if base is None else _parsed(base, "the base", environment, project)
    if theirs is None:  # a new branch, or someone has removed the file
        return None if here == before else lockfile.dumps(here)
    there = _parsed(theirs, "the remote's", environment, project)
    merged = merge(before, there, here)
    return None if merged == there else lockfile.dumps(merged)


@dataclass(frozen=True)
class _Place:
    """State of the remote.

    `onto` is the commit to build on, and `lease` the one that the branch must still stand on.
    """

    onto: str | None
    lease: str | None
    pull_request: int | None = None


@dataclass(frozen=True)
class Keeper:
    """Keeps the lockfiles of a checkout. `base` is the directory with what they were before the apply.

    `say` prints what happens meanwhile.
    """

    checkout: Checkout
    base: Path
    github: GitHubApi
    clock: Clock
    variables: Mapping[str, str]
    say: Callable[[str], None]

    @property
    def target(self) -> str:
        """Branch that the lockfiles are pushed to."""
        return self.checkout.inputs.state_branch or self.checkout.inputs.branch

    def keep(self) -> str:
        """Push the lockfiles, and say where they are. Raises NotKeptError."""
        written = [e for e in self.checkout.inputs.environments if self.checkout.lockfile(e).is_file()]
        if not written:
            return ""
        place, pushed = self._push(written)
        if pushed is None:
            return f"The lockfile on {self.target} is up to date.\n"
        if self.checkout.inputs.persist == "commit":
            self._take_along(pushed)
        if self.checkout.inputs.persist == "pull-request":
            self._update_pull_request(written, place.pull_request)
        return f"The lockfile is kept on {self.target}, as {pushed[:12]}.\n"

    def _push(self, written: Sequence[str]) -> tuple[_Place, str | None]:
        """Push, again while others do. Return the commit, or None where there is nothing to push."""
        said = ""
        for number in range(1, TRIES + 1):
            self.clock.sleep(max(0, number - 2))
            try:
                place = self._look()
            except GitError as error:
                said = error.output
                self.say(str(error))
                continue
            commit = self._commit_on(place.onto, written)
            if commit is None:
                return place, None
            reference = f"refs/heads/{self.target}"
            lease = f"--force-with-lease={reference}:{place.lease or ''}"
            try:
                self.checkout.git.run(
                    "push", "--porcelain", "--no-verify", lease, "origin", f"{commit}:{reference}"
                )
            except GitError as error:
                said = error.output
            else:
                return place, commit
            result = push_result(said)
            if result in ("protected", "forbidden"):
                raise NotKeptError(refusal(result, said, self.checkout.inputs.persist, self.target))
            moved = f"{self.target} has moved on: merging with what is there now"
            self.say(moved if result == "moved" else said)
        raise NotKeptError(
            f"The lockfile could not be kept on {self.target}, in {TRIES} tries.\n{said.strip()}\n{HEALED}"
        )

    def _look(self) -> _Place:
        """Look at what the remote has now. Raises GitError, NotKeptError for a branch of another kind."""
        checkout = self.checkout
        tip = checkout.remote_tip(self.target)
        match checkout.inputs.persist:
            case "branch" if tip:
                self._require_only_lockfiles(tip)
            case "pull-request":
                number = lockfile_pull_request(checkout, self.github)
                # A branch without an open pull request is a leftover of one that was merged or turned down.
                onto = tip if number is not None else checkout.remote_tip(checkout.inputs.branch)
                return _Place(onto, tip, number)
        return _Place(tip, tip)

    def _require_only_lockfiles(self, tip: str) -> None:
        names = self.checkout.git.run("ls-tree", "-r", "-z", "--full-tree", "--name-only", tip).split("\0")
        other = next((name for name in names if name and not name.endswith(".lock.json")), None)
        if other is not None:
            raise NotKeptError(
                f"state-branch: {self.target} holds more than lockfiles ({other}), and only a branch of its "
                f"own may be used. {HEALED}"
            )

    def _commit_on(self, tip: str | None, written: Sequence[str]) -> str | None:
        """Make a commit with our lockfiles merged in; None if it would change nothing. Raises NotKeptError.

        It is made without the working tree, which may hold anything.
        """
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            git = self.checkout.git
            if tip:
                git.run("read-tree", tip, variables=index)
            changed = []
            for environment in written:
                text = self._merged(tip, environment)
                if text is None:
                    continue
                blob = git.run("hash-object", "-w", "--no-filters", "--stdin", data=text.encode())
                path = self.checkout.in_repository(environment)
                git.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", variables=index)
                changed.append(environment)
            if not changed:
                return None
            tree = git.run("write-tree", variables=index)
        run = self.variables.get("GITHUB_RUN_ID", "unknown")
        workflow, commit = self.variables.get("GITHUB_WORKFLOW", "polar-iac"), self.variables["GITHUB_SHA"]
        by = f"By {workflow}, run {run}, at {commit[:12]}."
        title = f"Record the meters applied to {' '.join(changed)}"
        parent = ["-p", tip] if tip else []
        return git.run("commit-tree", tree, *parent, "-m", title, "-m", by, variables=_BOT)

    def _merged(self, tip: str | None, environment: str) -> str | None:
        theirs = self.checkout.text_at(tip, self.checkout.in_repository(environment)) if tip else None
        base = self.base / environment
        try:
            return merged_text(
                environment,
                base.read_bytes() if base.exists() else None,
                theirs,
                self.checkout.lockfile(environment).read_bytes(),
            )
        except (MergeConflictError, DiagnosticError) as error:
            raise NotKeptError(
                f"The lockfile of {environment} could not be kept on {self.target}: {error}. {HEALED}"
            ) from error

    def _take_along(self, pushed: str) -> None:
        """Bring this checkout to what was pushed, for a step after this one; not to what others pushed."""
        git = self.checkout.git
        if git.run("diff", "--name-only", "HEAD", pushed, "--", NO_LOCKFILES):
            return
        before = self.checkout.head()
        git.run("reset", "--quiet", pushed)
        names = git.run("diff", "-z", "--name-only", "--diff-filter=d", before, pushed).split("\0")
        if names := [name for name in names if name]:
            git.at_top().run("--literal-pathspecs", "checkout", "--quiet", "--", *names)

    def _update_pull_request(self, written: Sequence[str], number: int | None) -> None:
        title, inputs = f"Record the meters applied to {' '.join(written)}", self.checkout.inputs
        try:
            if number is not None:
                self.github.rest("PATCH", f"pulls/{number}", title=title, body=_PULL_REQUEST)
            else:
                fields = {"head": self.target, "base": inputs.branch, "title": title, "body": _PULL_REQUEST}
                self.github.rest("POST", "pulls", **fields)
        except GitHubError as error:
            raise NotKeptError(
                f"{error.explained('the pull request', REMEDY)}\nThe lockfile stands on the branch "
                f"{self.target}, without a pull request: run the job again, or open it by hand. {HEALED}"
            ) from error


_PULL_REQUEST = (
    "What `apply` did is recorded in these lockfiles: which Polar meter each key became, and what was "
    "applied last.\n\n"
    "Merge this before the next change of the manifest. It changes nothing at Polar. While it is open, "
    "`plan` and `apply` read the lockfiles from this branch.\n"
)


def _project(ours: bytes) -> str:
    try:
        return str(json.loads(ours)["project"])
    except (ValueError, LookupError, TypeError):
        return ""  # `lockfile.loads` says what is wrong


def _parsed(data: bytes, whose: str, environment: str, project: str) -> Lockfile:
    return lockfile.loads(data.decode("utf-8", "replace"), f"the lockfile ({whose})", environment, project)
