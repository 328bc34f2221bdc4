"""Annotations: short messages that a CI system shows beside the lines of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from polar_iac.apply.events import Event, Failed, Unconfirmed, Unknown
from polar_iac.errors import Diagnostic, Severity, SourceSpan
from polar_iac.plan.check import Check
from polar_iac.plan.drift import Drift
from polar_iac.plan.model import Change, Plan
from polar_iac.report.check import line, source
from polar_iac.report.coverage import unheld_messages
from polar_iac.report.risks import BILLING_PHRASES, RISKS, SEVERITIES, prospect, risks
from polar_iac.report.testing import failure_text
from polar_iac.report.wording import labels, listed, settled, value
from polar_iac.sanitize import printable
from polar_iac.testing.coverage import Coverage
from polar_iac.testing.model import Result

Level = Literal["error", "warning", "notice"]


_LEVELS: Mapping[Severity, Level] = {"error": "error", "warning": "warning", "info": "notice"}


@dataclass(frozen=True)
class Annotation:
    """A message, at a place in a file if it is about one."""

    level: Level
    title: str
    message: str
    span: SourceSpan | None = None


def diagnostic_annotations(diagnostics: Sequence[Diagnostic]) -> list[Annotation]:
    """Return an annotation for each problem, at its place in the file."""
    return [Annotation(_LEVELS[d.severity], "polar-iac", d.text, d.span) for d in diagnostics]


def error_annotation(message: str, span: SourceSpan | None = None) -> Annotation:
    """Return the annotation of an error, at its place in the manifest if it has one."""
    return Annotation("error", "polar-iac", message, span)


def failure_annotations(events: Sequence[Event]) -> list[Annotation]:
    """Return annotations of the meters that an apply could not change, at a place if Polar named one."""
    failed = [event for event in events if isinstance(event, Failed)]
    placed = diagnostic_annotations([d for event in failed for d in event.diagnostics])
    unplaced = [f"{event.key}: {event.message}" for event in failed if not event.diagnostics]
    unplaced += [f"{event.key}: {event.message}" for event in events if isinstance(event, Unconfirmed)]
    unplaced += [event.message for event in events if isinstance(event, Unknown)]
    return [*placed, *map(error_annotation, unplaced)]


@dataclass(frozen=True)
class _Risk:
    """A risky change. Equal for the same change in several environments, which share one annotation."""

    level: Level
    rank: int
    key: str
    title: str
    span: SourceSpan | None
    message: str


def plan_annotations(plans: Sequence[Plan], limit: int) -> list[Annotation]:
    """Return an annotation for each risky change, as severe as its risk, and at most `limit` of one level."""
    labels_by_risk: dict[_Risk, list[str]] = {}
    for plan, label in zip(plans, labels(plans), strict=True):
        for change in plan.changes:
            if risk_ := _risk_of(change):
                labels_by_risk.setdefault(risk_, []).append(label)
    annotations: list[Annotation] = []
    for level in ("error", "warning"):
        risks = sorted((r for r in labels_by_risk if r.level == level), key=lambda r: (r.rank, r.key))
        # The CI system drops what exceeds its limit: of 12 with a limit of 10, show 9 and "3 more".
        first = risks if len(risks) <= limit else risks[: limit - 1]
        for risk_ in first:
            title = f"{risk_.title} · {listed(labels_by_risk[risk_])}"
            annotations.append(Annotation(risk_.level, title, risk_.message, risk_.span))
        if len(risks) > len(first):
            more = f"{len(risks) - len(first)} more like these are in the plan"
            annotations.append(Annotation(risks[0].level, "Polar meters", more))
    return annotations


def drift_annotations(drifts: Sequence[Drift], limit: int) -> list[Annotation]:
    """Return a warning for each meter that drifted, and at most `limit` of them."""
    warnings = []
    for drift in drifts:
        for meter in drift.meters:
            paths = listed([field.path for field in meter.fields])
            text = f"was changed at Polar: {paths}" if paths else meter.reason or ""
            title = f"Polar meters: drift · {drift.environment}"
            warnings.append(
                Annotation("warning", title, f"{meter.key} {value(meter.name)}: {text}", meter.source)
            )
    return _limited(warnings, limit, "Polar meters")


def check_annotations(checks: Sequence[Check], limit: int) -> list[Annotation]:
    """Return a warning for each thing that is wrong, and at most `limit` of them."""
    warnings = []
    for check in checks:
        title = f"Polar meters: check · {check.drift.environment}"
        for finding in check.findings:
            said = line(finding, check.as_of[:10], check.drift.environment, printable)
            message = f"{said.subject}: {said.text} {said.remark}".rstrip()
            warnings.append(Annotation("warning", title, message, source(finding)))
    return _limited(warnings, limit, "Polar meters")


def result_annotations(results: Sequence[Result], limit: int) -> list[Annotation]:
    """Return an error for each test that failed, and at most `limit` of them."""
    title = "Polar meters: a test failed"
    errors = [
        Annotation(
            "error",
            title,
            f"{result.test.meter}: {result.test.name}: {'; '.join(map(failure_text, result.failures))}",
            result.test.span,
        )
        for result in results
        if not result.passed
    ]
    return _limited(errors, limit, title)


def coverage_annotations(coverage: Coverage, limit: int) -> list[Annotation]:
    """Return a warning for each clause or aggregation that no test holds, and at most `limit` of them."""
    title = "Polar meters: not held by a test"
    unheld = unheld_messages(coverage)
    return _limited([Annotation("warning", title, text, part.span) for part, text in unheld], limit, title)


def _limited(annotations: list[Annotation], limit: int, title: str) -> list[Annotation]:
    """Keep to what a CI system shows of one level: of 12 with a limit of 10, show 9 and "3 more"."""
    if len(annotations) <= limit:
        return annotations
    more = f"{len(annotations) - limit + 1} more like these are in the report"
    return [*annotations[: limit - 1], Annotation(annotations[0].level, title, more)]


def _risk_of(change: Change) -> _Risk | None:
    kind = next((kind for kind in risks(change) if kind in SEVERITIES), None)
    if not kind:
        return None
    warnings = "; ".join(note.text for note in change.notes if note.severity == "warning")
    fields = listed([field.path for field in change.fields if field.impact == "billing"])
    outside = listed([field.path for field in change.fields if field.origin != "manifest"])
    billed = f"{BILLING_PHRASES[prospect(change)][0]}: {fields}" if fields else "starts to bill again"
    description = {
        "billing": billed + (f". {warnings}" if warnings else ""),
        "outside": f"overwrites what was changed at Polar: {outside}" + (f". {warnings}" if warnings else ""),
        "archive": settled(change)
        if change.action == "settle"
        else warnings or "bills nothing once it is archived",
        "blocked": change.reason or "blocked",
        "nothing": warnings or "counts nothing differently in the last days",
        "warning": warnings,
    }[kind]
    return _Risk(
        level=SEVERITIES[kind],
        rank=RISKS.index(kind),
        key=change.key,
        title=f"Polar meters: {change.action}",
        span=change.source,
        message=f"{change.key} {value(change.name)}: {description}",
    )
