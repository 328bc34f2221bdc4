"""Plans, results and errors in CI: as a summary of the run, as outputs, and as annotations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress

from click import unstyle

from polar_iac.apply.events import Applied, Event, Skipped
from polar_iac.ci.annotations import (
    Annotation,
    check_annotations,
    coverage_annotations,
    diagnostic_annotations,
    drift_annotations,
    error_annotation,
    failure_annotations,
    plan_annotations,
    result_annotations,
)
from polar_iac.errors import Diagnostic, ExitCode, PolarIacError
from polar_iac.plan.check import Check
from polar_iac.plan.drift import Drift
from polar_iac.plan.model import Plan
from polar_iac.report.audit import CiRun
from polar_iac.report.comment.budget import TruncatableBlock
from polar_iac.report.comment.charts import charts_markdown
from polar_iac.report.comment.check import check_markdown
from polar_iac.report.comment.document import headline, plan_markdown, result_markdown
from polar_iac.report.comment.drift import drift_markdown
from polar_iac.report.comment.escape import Links
from polar_iac.report.results import event_text, result_text, skipped_text
from polar_iac.report.wording import labels
from polar_iac.testing.coverage import Coverage
from polar_iac.testing.model import Result

_LEAST = 4_000
"""Fewest bytes that a comment can be cut to."""
_ERROR_TITLES = {
    ExitCode.STALE_PLAN: "the plan is stale, and nothing was done",
    ExitCode.REFUSED: "refused, and nothing was done",
}


class Publisher(ABC):
    """A host with annotations, a summary and outputs. A subclass writes them as its CI system reads them.

    See `polar_iac.ci.host.Host`.
    """

    annotation_limit: int
    """Most annotations of one level that are shown for a step."""
    step_log_name: str
    """Name of the log of a step, as in `9 more lines, in NAME`."""

    @abstractmethod
    def annotate(self, annotations: Sequence[Annotation]) -> str:
        """Return text that makes annotations of itself where it is printed to stderr."""

    @abstractmethod
    def links(self) -> Links | None: ...

    @abstractmethod
    def run(self) -> CiRun | None: ...

    @abstractmethod
    def summary_room(self) -> int: ...

    @abstractmethod
    def append_summary(self, markdown: str) -> None:
        """Add to the summary. Raises PolarIacError when it cannot be written."""

    @abstractmethod
    def write_outputs(self, outputs: Mapping[str, str]) -> None:
        """Hand values to later steps. Raises PolarIacError when they cannot be written."""

    def publish_plans(self, plans: Sequence[Plan], manifest_file: str, *, several: bool) -> str:
        markdown = plan_markdown(
            plans,
            manifest_file=manifest_file,
            links=self.links(),
            limit=self._limit,
            whole=self.step_log_name,
        )
        charts = charts_markdown(plans)
        # Where the summary is nearly full, the plan is worth more than its charts.
        fits = len(f"{markdown}\n{charts}".encode()) < self.summary_room()
        self._summarize(f"{markdown}\n{charts}" if charts and fits else markdown)
        self.write_outputs(plan_outputs(plans, several=several))
        return self.annotate(plan_annotations(plans, self.annotation_limit))

    def publish_results(self, plan: Plan, events: Sequence[Event]) -> str:
        markdown = result_markdown(
            plan,
            unstyle(result_text(events)).removeprefix("Apply: ").rstrip(".") if events else "nothing to do",
            _result_lines(events),
            links=self.links(),
            limit=self._limit,
            whole=self.step_log_name,
        )
        self._summarize(markdown)
        self.write_outputs(plan_outputs([plan], several=False))
        risky = plan_annotations([plan], self.annotation_limit)
        # Failures first: a CI system drops what exceeds its limit for one level.
        return self.annotate([*failure_annotations(events), *risky])

    def publish_drift(self, drifts: Sequence[Drift], manifest_file: str) -> str:
        self._summarize(drift_markdown(drifts, manifest_file=manifest_file, links=self.links()))
        return self.annotate(drift_annotations(drifts, self.annotation_limit))

    def publish_check(self, checks: Sequence[Check], manifest_file: str) -> str:
        self._summarize(check_markdown(checks, manifest_file=manifest_file, links=self.links()))
        return self.annotate(check_annotations(checks, self.annotation_limit))

    def publish_tests(self, results: Sequence[Result], coverage: Coverage | None) -> str:
        limit = self.annotation_limit
        unheld = coverage_annotations(coverage, limit) if coverage else []
        return self.annotate([*result_annotations(results, limit), *unheld])

    def publish_error(
        self, code: ExitCode, message: str, diagnostics: Sequence[Diagnostic], text: str
    ) -> str:
        lines = TruncatableBlock(unstyle(text).rstrip("\n").split("\n"), language="")
        title = f"### 🛑 Polar meters: {_ERROR_TITLES.get(code, 'an error')}"
        with suppress(PolarIacError):  # the error itself is printed in any case
            self._summarize(f"{title}\n\n{lines.markdown(self._limit - 200, self.step_log_name)}\n")
        return self.annotate(diagnostic_annotations(diagnostics) or [error_annotation(message)])

    @property
    def _limit(self) -> int:
        return max(_LEAST, self.summary_room())

    def _summarize(self, markdown: str) -> None:
        # A CI system may drop the whole summary of a step if it is too large, so leave out this part.
        if len(markdown.encode()) < self.summary_room():
            self.append_summary(markdown)


def plan_outputs(plans: Sequence[Plan], *, several: bool) -> dict[str, str]:
    """Return the outputs of a step: `changes` (a count), `summary` (one line) and `digest`.

    Where several plans were asked for, `digest` is `ENVIRONMENT=DIGEST` for each, separated by spaces.
    """
    digests = [plan.digest for plan in plans]
    if several:
        digests = [f"{label}={digest}" for label, digest in zip(labels(plans), digests, strict=True)]
    return {
        "changes": str(sum(len(plan.changes) for plan in plans)),
        "summary": headline(plans),
        "digest": " ".join(digests),
    }


def _result_lines(events: Sequence[Event]) -> list[str]:
    """Return a line for each effect of an apply: problems, then what was skipped, then what was done."""
    done = [event for event in events if isinstance(event, Applied)]
    skipped = [event for event in events if isinstance(event, Skipped)]
    problems = [event for event in events if not isinstance(event, (Applied, Skipped))]
    text = "".join([*map(event_text, problems), skipped_text(skipped), *map(event_text, done)])
    return unstyle(text).splitlines()
