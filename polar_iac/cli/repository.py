"""Facts about git repositories: the user's own, and the one that this polar-iac comes from."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_ON_GITHUB = re.compile(r"(?:https?://|ssh://|git@)(?:[^/@]+@)?github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")
_COMMIT = re.compile("[0-9a-f]{40}")
_TAG = re.compile(r"v[0-9][\w.-]*")
_BRANCH = re.compile(r"[\w.][\w./-]*")
_UNKNOWN = "OWNER/polar-iac"


@dataclass(frozen=True)
class Repository:
    """A git repository. `branch` is the one that pull requests are merged into, as far as git knows."""

    top: Path
    branch: str
    name: str


@dataclass(frozen=True)
class Source:
    """The repository of this polar-iac at GitHub, as `OWNER/NAME`, and the version in it.

    Without a `commit` the version is only a tag. `tag` is None where the commit has none.
    """

    repository: str
    commit: str | None
    tag: str | None

    @property
    def is_known(self) -> bool:
        return self.repository != _UNKNOWN

    @property
    def ref(self) -> str:
        return self.commit or self.tag or "main"


def repository_of(directory: Path) -> Repository | None:
    """Return the repository around a directory, or None."""
    top = _git(directory, "rev-parse", "--show-toplevel")
    if top is None:
        return None
    remote = _git(directory, "remote", "get-url", "origin") or ""
    name = remote.rstrip("/").removesuffix(".git").replace(":", "/").rpartition("/")[2]
    return Repository(Path(top), _default_branch(directory), name or Path(top).name)


def _default_branch(directory: Path) -> str:
    """Return the branch that the remote names, else `main` or `master`, else the current one."""
    remote = _git(directory, "symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    names = [remote.removeprefix("origin/")] if remote else []
    for name in ("main", "master"):
        if _git(directory, "rev-parse", "--verify", "--quiet", f"refs/heads/{name}"):
            names.append(name)
    names.append(_git(directory, "symbolic-ref", "--short", "HEAD") or "")
    return next((name for name in names if _BRANCH.fullmatch(name)), "main")


def own_source() -> Source:
    """Return where this polar-iac comes from, as its installer recorded it."""
    installed = distribution("polar-iac")
    recorded = json.loads(installed.read_text("direct_url.json") or "{}")
    return source_of(recorded, f"v{installed.version}")


def source_of(recorded: Mapping[str, Any], released: str) -> Source:
    """Return the source that a `direct_url.json` of PEP 610 tells. `released` is the tag of the version.

    It has the commit of a `git+https://…`, or the path of a checkout. A package of an index has no such file.
    """
    url = str(recorded.get("url", ""))
    if details := recorded.get("vcs_info"):
        return _source(url, details.get("commit_id"), details.get("requested_revision"))
    checkout = Path(unquote(urlsplit(url).path))
    if "dir_info" in recorded and _git(checkout, "rev-parse", "--show-toplevel") == str(checkout.resolve()):
        return _source(
            _git(checkout, "remote", "get-url", "origin") or "",
            _git(checkout, "rev-parse", "HEAD"),
            _git(checkout, "describe", "--tags", "--exact-match"),
        )
    return Source(_UNKNOWN, None, released)


def _source(url: str, commit: str | None, tag: str | None) -> Source:
    """Return a source from what git and installers say. None of it can end a line of YAML."""
    on_github = _ON_GITHUB.fullmatch(url)
    return Source(
        on_github[1] if on_github else _UNKNOWN,
        commit if _COMMIT.fullmatch(commit or "") else None,
        tag if _TAG.fullmatch(tag or "") else None,
    )


def _git(directory: Path, *arguments: str) -> str | None:
    """Return what git prints, or None when it fails or is not there."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(directory), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
