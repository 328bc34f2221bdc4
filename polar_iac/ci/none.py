"""No CI system: nothing is annotated, summarized or handed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polar_iac.apply.events import Event
    from polar_iac.errors import Diagnostic, ExitCode
    from polar_iac.plan.check import Check
    from polar_iac.plan.drift import Drift
    from polar_iac.plan.model import Plan
    from polar_iac.testing.coverage import Coverage
    from polar_iac.testing.model import Result


class NoHost:
    """The host of a run outside CI. See `polar_iac.ci.host.Host`."""

    summary_name = ""
    log_name = "what `plan` prints as text"

    def escape(self, text: str) -> str:
        return text

    def links(self) -> None:
        return None

    def run(self) -> None:
        return None

    def summary_room(self) -> int:
        return 0

    def publish_plans(self, _plans: Sequence[Plan], _manifest_file: str, *, several: bool) -> str:  # noqa: ARG002
        return ""

    def publish_results(self, _plan: Plan, _events: Sequence[Event]) -> str:
        return ""

    def publish_drift(self, _drifts: Sequence[Drift], _manifest_file: str) -> str:
        return ""

    def publish_check(self, _checks: Sequence[Check], _manifest_file: str) -> str:
        return ""

    def publish_tests(self, _results: Sequence[Result], _coverage: Coverage | None) -> str:
        return ""

    def publish_error(
        self, _code: ExitCode, _message: str, _diagnostics: Sequence[Diagnostic], _text: str
    ) -> str:
        return ""
