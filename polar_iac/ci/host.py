"""CI systems: the interface of a host, and the table of hosts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from polar_iac.ci.none import NoHost

if TYPE_CHECKING:
    from polar_iac.apply.events import Event
    from polar_iac.errors import Diagnostic, ExitCode
    from polar_iac.plan.check import Check
    from polar_iac.plan.drift import Drift
    from polar_iac.plan.model import Plan
    from polar_iac.report.audit import CiRun
    from polar_iac.report.comment.escape import Links
    from polar_iac.testing.coverage import Coverage
    from polar_iac.testing.model import Result

HOSTS = {"GITHUB_ACTIONS": "polar_iac.ci.github.GitHub"}
"""Import path of each host, by the variable that its CI system sets to `true`.

Only the host of the run is imported, so that outside CI no command waits for the modules of the comment.
"""


class Host(Protocol):
    """A CI system, as a run uses it. Subclasses of `publish.Publisher` have most of it already."""

    summary_name: str
    """Name of the summary, as in `All of them are in NAME`."""
    log_name: str
    """Name of the place that has the whole plan if the summary does not."""

    def escape(self, text: str, /) -> str:
        """Escape text for the log, so that the CI system finds no command in it."""

    def links(self) -> Links | None:
        """Return links to the files and to the run, or None where their addresses are unknown."""

    def run(self) -> CiRun | None:
        """Return the run of the CI system: who started it, and where. None outside CI."""

    def summary_room(self) -> int:
        """Return the number of bytes that the summary can still take; 0 if there is none."""

    def publish_plans(self, plans: Sequence[Plan], manifest_file: str, /, *, several: bool) -> str:
        """Add plans to the summary and the outputs. Return annotations of risky changes for stderr.

        `several` means that several were asked for, however many there are.
        """

    def publish_results(self, plan: Plan, events: Sequence[Event], /) -> str:
        """Add the results of an apply to the summary, problems first, and its plan to the outputs.

        Returns annotations of risky changes and of failures for stderr.
        """

    def publish_drift(self, drifts: Sequence[Drift], manifest_file: str, /) -> str:
        """Add drift to the summary. Return an annotation for each meter that drifted, for stderr."""

    def publish_check(self, checks: Sequence[Check], manifest_file: str, /) -> str:
        """Add what is wrong to the summary. Return an annotation for each finding, for stderr."""

    def publish_tests(self, results: Sequence[Result], coverage: Coverage | None, /) -> str:
        """Return an annotation for each test that failed, and each clause that none holds, for stderr."""

    def publish_error(
        self, code: ExitCode, message: str, diagnostics: Sequence[Diagnostic], text: str, /
    ) -> str:
        """Add the error of a command to the summary: `text`, the same as in the log.

        Returns annotations for stderr: of the `diagnostics`, or of `message` if there are none.
        """


def host_for(variables: Mapping[str, str]) -> Host:
    """Return the host of this run, from the variables of its process."""
    for variable, path in HOSTS.items():
        if variables.get(variable) == "true":
            module, _, name = path.rpartition(".")
            host: Host = getattr(importlib.import_module(module), name)(variables)
            return host
    return NoHost()
