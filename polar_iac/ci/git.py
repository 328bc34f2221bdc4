"""Git, as a subprocess: with the token and the trust that a checkout on a runner needs, and no prompt."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from polar_iac.errors import PolarIacError


class GitError(PolarIacError):
    """A git command that failed, with its exit code. `output` is all that it said."""

    def __init__(self, command: str, code: int, output: str) -> None:
        super().__init__(f"git {command} failed: {output.strip() or 'it said nothing'}")
        self.code, self.output = code, output


class Git:
    """Git in a directory. `settings` are options of its configuration, set through the environment.

    Arguments are seen by every process on the machine, so that no token goes there.
    """

    def __init__(self, directory: Path, variables: Mapping[str, str]) -> None:
        self.directory = directory
        self._variables = variables
        self._environ = {**variables, **environment(variables, directory), "LC_ALL": "C"}

    def at_top(self) -> Git:
        """Return git in the top directory of the checkout, from which its paths are seen. Raises GitError."""
        return Git(Path(self.run("rev-parse", "--show-toplevel")), self._variables)

    def run(self, *arguments: str, data: bytes = b"", variables: Mapping[str, str] | None = None) -> str:
        """Return what a command prints, without the last line break. Raises GitError, PolarIacError."""
        return (
            self.output(*arguments, data=data, variables=variables)
            .decode("utf-8", "surrogateescape")
            .rstrip("\n")
        )

    def output(self, *arguments: str, data: bytes = b"", variables: Mapping[str, str] | None = None) -> bytes:
        """Return what a command prints. `data` is its input. Raises GitError, PolarIacError without git."""
        done = self._done(arguments, data, variables or {})
        if done.returncode:
            raise GitError(
                arguments[0], done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")
            )
        return done.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Tell whether a command ends with 0. Raises PolarIacError without git."""
        return not self._done(arguments, b"", {}).returncode

    def _done(
        self, arguments: Sequence[str], data: bytes, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603
                ["git", *arguments],  # noqa: S607
                cwd=self.directory,
                env={**self._environ, **variables},
                input=data,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise PolarIacError(
                "there is no git on this runner: install it in a step before actions/checkout (GitHub's own "
                "runners have it)"
            ) from error


def environment(variables: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Return the variables that git needs in a directory of a runner.

    The empty header first takes away the one that actions/checkout may have left: two of them are an error
    400 at GitHub.
    """
    settings = [("maintenance.auto", "false")]  # the runner is thrown away
    # In a container's job the checkout belongs to another user, and git refuses to read it.
    if top := _top(directory):
        settings.append(("safe.directory", str(top)))
    if token := variables.get("GH_TOKEN"):
        header = f"http.{variables.get('GITHUB_SERVER_URL') or 'https://github.com'}/.extraheader"
        settings += [(header, ""), (header, f"AUTHORIZATION: basic {basic_credentials(token)}")]
    first = int(variables.get("GIT_CONFIG_COUNT") or 0)
    pairs = dict[str, str]()
    for number, (key, setting) in enumerate(settings, first):
        pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": setting}
    return {**pairs, "GIT_CONFIG_COUNT": str(first + len(settings)), "GIT_TERMINAL_PROMPT": "0"}


def basic_credentials(token: str) -> str:
    """Return a token in the form in which git sends it, which the log must not show either."""
    return base64.b64encode(f"x-access-token:{token}".encode()).decode()


def _top(directory: Path) -> Path | None:
    """Return the checkout around a directory, or None."""
    here = directory.resolve()
    return next((path for path in (here, *here.parents) if (path / ".git").exists()), None)
