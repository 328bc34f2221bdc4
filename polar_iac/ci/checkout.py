"""Checkout of a run: its manifest and lockfiles, its branch, and what the remote has."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from polar_iac.ci.git import Git, GitError
from polar_iac.ci.github_api import GitHubApi, GitHubError
from polar_iac.ci.inputs import Inputs
from polar_iac.errors import PolarIacError, RefusedError

NO_LOCKFILES = ":(top,exclude,glob)**/*.lock.json"
_DEEPER = (("--depth=50",), ("--depth=1000",), ("--depth=2147483647",))
READ_PULLS = "The job needs the permission pull-requests: read (to apply, pull-requests: write)."


@dataclass(frozen=True)
class Checkout:
    """Working directory of a run. `prefix` leads from the top of the checkout to the manifest's directory."""

    inputs: Inputs
    directory: Path
    git: Git
    prefix: str

    @property
    def manifest(self) -> Path:
        return self.directory / self.inputs.file

    def lockfile(self, environment: str) -> Path:
        """Return the path of an environment's lockfile, beside the manifest."""
        return self.manifest.with_name(self._lockfile_name(environment))

    def in_repository(self, environment: str) -> str:
        """Return the path of an environment's lockfile, from the top of the repository."""
        return self.prefix + self._lockfile_name(environment)

    @property
    def manifest_in_repository(self) -> str:
        return self.prefix + self.manifest.name

    def _lockfile_name(self, environment: str) -> str:
        return f"{self.manifest.stem}.{environment}.lock.json"

    def head(self) -> str:
        return self.git.run("rev-parse", "HEAD")

    def remote_tip(self, branch: str) -> str | None:
        """Return the commit of a branch of the remote, fetched; None without that branch. Raises GitError."""
        reference = f"refs/heads/{branch}"
        try:
            self.git.run("ls-remote", "--quiet", "--exit-code", "origin", reference)
        except GitError as error:
            if error.code == 2:
                return None
            raise
        self.git.run("fetch", "--quiet", "--no-tags", "origin", reference)
        return self.git.run("rev-parse", "FETCH_HEAD")

    def text_at(self, commit: str, path: str) -> bytes | None:
        """Return a file at a commit, or None if it is not there."""
        try:
            return self.git.output("cat-file", "blob", f"{commit}:{path}")
        except GitError:
            return None


def open_checkout(variables: Mapping[str, str], inputs: Inputs) -> Checkout:
    """Find the manifest in the checkout. Raises PolarIacError with what to do before this step."""
    directory = Path(variables["GITHUB_WORKSPACE"]) / inputs.working_directory
    if not directory.is_dir():
        raise PolarIacError(
            f"working-directory: there is no {inputs.working_directory} in the workspace: check out the "
            "repository first, or correct the input"
        )
    if not (directory / inputs.file).is_file():
        raise PolarIacError(
            f"there is no {inputs.file} in {inputs.working_directory or '.'}: check out the repository "
            "first, or set the inputs file and working-directory"
        )
    git = Git(directory, variables)
    if inputs.state_branch and not git.succeeds("check-ref-format", "--branch", inputs.state_branch):
        raise PolarIacError(f"state-branch: {inputs.state_branch} is no name of a branch")
    beside = Git((directory / inputs.file).parent, variables)
    try:
        prefix = beside.run("rev-parse", "--show-prefix")
    except GitError as error:
        raise PolarIacError(
            "git cannot read the checkout: let actions/checkout make it in a step before this one\n"
            f"{error.output.strip()}"
        ) from error
    return Checkout(inputs, directory, git, prefix)


def catch_up(checkout: Checkout) -> bool:
    """Go on to the tip of the run's branch, if only lockfiles were committed since. Raises GitError.

    Those commits are our own, of the environment before this one, say. Returns False when there is more that
    is new, or no such branch.
    """
    git, head, tip = checkout.git, checkout.head(), checkout.remote_tip(checkout.inputs.branch)
    if tip is None:
        return False
    if head == tip:
        return True
    if not git.succeeds("merge-base", "--is-ancestor", head, tip):
        return False
    if git.run("diff", "--name-only", head, tip, "--", NO_LOCKFILES):
        return False
    git.run("merge", "--quiet", "--ff-only", tip)
    return True


def require_tip(checkout: Checkout) -> None:
    """Raise RefusedError unless the run is at the tip of its branch: a re-run of an old job rolls back."""
    branch = checkout.inputs.branch
    try:
        if catch_up(checkout):
            return
        tip = checkout.remote_tip(branch)
    except GitError as error:
        raise RefusedError(f"refused: the remote cannot be read\n{error.output.strip()}") from error
    if tip is None:
        raise RefusedError(f"refused: the branch {branch} is gone")
    raise RefusedError(
        f"refused: {checkout.head()[:12]} is not the tip of {branch} any more ({tip[:12]} is), and applying "
        "it could roll billing back to what it says.\nNothing was changed. The run of the newer commit "
        f"applies; if there is none, start the workflow by hand on {branch}."
    )


def lockfile_pull_request(checkout: Checkout, github: GitHubApi) -> int | None:
    """Return the number of the open pull request with lockfiles for the branch. Raises PolarIacError."""
    owner = github.repository.partition("/")[0]
    head = f"{owner}:{checkout.inputs.state_branch}"
    try:
        pulls = github.rest("GET", "pulls", state="open", base=checkout.inputs.branch, head=head)
        return int(pulls[0]["number"]) if pulls else None
    except (LookupError, TypeError) as error:
        raise PolarIacError("GitHub's list of pull requests is not one") from error
    except GitHubError as error:
        raise PolarIacError(
            error.explained("the list of pull requests with lockfiles", READ_PULLS)
        ) from error


def read_state(checkout: Checkout, github: GitHubApi) -> None:
    """Put the lockfiles of the state branch beside the manifest. Raises PolarIacError."""
    inputs = checkout.inputs
    if inputs.state_branch is None:
        return
    if inputs.persist == "pull-request" and lockfile_pull_request(checkout, github) is None:
        return
    tip = checkout.remote_tip(inputs.state_branch)
    for environment in inputs.environments if tip else ():
        data = checkout.text_at(str(tip), checkout.in_repository(environment))
        if data is not None:
            checkout.lockfile(environment).write_bytes(data)


def merge_base(git: Git, one: str, other: str) -> str | None:
    """Return the commit from which two went apart; None if it cannot be found out.

    A shallow checkout is deepened until the commit is there.
    """
    with suppress(GitError):
        return git.run("merge-base", one, other)
    is_shallow = git.run("rev-parse", "--is-shallow-repository") == "true"
    for deeper in _DEEPER if is_shallow else ((),):
        with suppress(GitError):
            git.run("fetch", "--quiet", "--no-tags", *deeper, "origin", one, other)
            return git.run("merge-base", one, other)
    return None
