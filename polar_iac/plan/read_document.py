"""Plans from JSON: reads what `document` writes, and refuses what was changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polar_iac.errors import PolarIacError, SourceSpan
from polar_iac.facts.model import Gap
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import FieldPath
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.document_models import (
    FIRST_FORMAT,
    SavedChange,
    SavedNote,
    SavedPlan,
    SavedSource,
    SavedSpec,
    read_saved,
)
from polar_iac.plan.model import (
    Bookkeeping,
    Change,
    FieldChange,
    MarkerChange,
    MeterReference,
    MeterTests,
    Note,
    Plan,
    Refusal,
    change_digest,
    decided_action,
    sha256,
)
from polar_iac.sanitize import printable


def plans_from_document(data: Any) -> list[Plan]:
    """Read the plans that `plan_document` or `plans_json` wrote. Raises like `plan_from_document`."""
    if isinstance(data, Mapping) and isinstance(data.get("plans"), list):
        return [plan_from_document(plan) for plan in data["plans"]]
    return [plan_from_document(data)]


def plan_from_document(data: Any) -> Plan:
    """Read the plan that `plan_document` wrote, so that every renderer shows it as it was.

    The document does not hold the end of a source position. Raises PolarIacError when the data is not a plan,
    or when its effects were changed since: a reader must see exactly what the digest covers. No digest covers
    the rest (reasons, evidence, origins, positions).
    """
    try:
        saved = read_saved(data)
        return _plan(saved, saved.format_version == FIRST_FORMAT)
    except RecursionError:
        raise PolarIacError("not a plan file of polar-iac: it is nested too deeply") from None


def _plan(saved: SavedPlan, first: bool) -> Plan:
    plan = Plan(
        environment=saved.environment,
        organization_id=saved.organization_id,
        project=saved.project,
        refreshed=saved.refreshed,
        changes=tuple(_change_from(change, saved, first) for change in saved.changes),
        bookkeeping=tuple(Bookkeeping(e.key, e.action, e.id, e.was) for e in saved.bookkeeping),
        unchanged=saved.summary.get("unchanged", 0),
        refusal=Refusal(saved.refusal.cause, tuple(saved.refusal.keys)) if saved.refusal else None,
        targets=tuple(saved.options.targets),
        allow_archive=saved.options.allow_archive,
        notes=_notes_from(saved.notes),
        manifest=saved.manifest,
        lockfile=saved.lockfile,
        unowned=saved.unowned,
        tests=MeterTests(saved.tests.passed, saved.tests.failed, saved.tests.errors) if saved.tests else None,
        outdated=saved.digest if first else None,
        facts_requests=saved.facts.requests,
        facts_gaps=tuple(Gap(g.source, g.lack, g.text, tuple(g.keys)) for g in saved.facts.gaps),
    )
    # `sorted(set(…))` also refuses duplicates: a change listed twice is not the plan that was written.
    places = [change.order for change in plan.changes]
    digest = _first_digest([change.digest for change in plan.changes]) if first else plan.digest
    # No `release` is counted where there is none, as in plans from before `removed`.
    summary = {**plan.summary, **saved.summary} if first else {"release": 0, **saved.summary}
    if places != sorted(set(places)) or summary != plan.summary or saved.digest != digest:
        raise _changed_since("its changes are not those that its digest stands for")
    return plan


def _change_from(saved: SavedChange, plan: SavedPlan, first: bool) -> Change:
    change = Change(
        key=saved.key,
        action=saved.action,
        id=saved.id,
        name=saved.name,
        before=_spec_from(saved.before),
        after=_spec_from(saved.after),
        digest=saved.digest,
        fields=tuple(
            FieldChange(f.path, f.before, f.after, f.impact, f.origin, _span(f.source)) for f in saved.fields
        ),
        source=_span(saved.source),
        reason=saved.reason,
        cause=saved.cause,
        freeze=saved.freeze,
        notes=_notes_from(saved.evidence),
        marker=MarkerChange(saved.marker.before, saved.marker.after) if saved.marker else None,
        meters=tuple(
            MeterReference(m.id, m.name, m.marker, m.created_at, m.archived_at) for m in saved.meters
        ),
        duplicate_of=saved.duplicate_of,
    )
    if change.digest != _expected_digest(change, saved, plan, first):
        raise _changed_since(f"the digest of `{printable(change.key)}` does not match it")
    # The first format kept filters as the user nested them, so they need not be canonical.
    specs = [spec for spec in (saved.before, saved.after) if spec and not first]
    if not all(_same(spec.spec.canonical, spec.data) for spec in specs):
        raise _changed_since("a meter in it is not in canonical form")
    if not first and not fields_match_specs(change):
        raise _changed_since(f"what it shows of `{printable(change.key)}` is not what would be done")
    return change


def _notes_from(saved: Sequence[SavedNote]) -> tuple[Note, ...]:
    return tuple(Note(n.kind, n.severity, n.text, n.source, n.as_of, n.data, n.key) for n in saved)


def _span(saved: SavedSource | None) -> SourceSpan | None:
    return SourceSpan(saved.file, saved.line, saved.column, saved.column + 1) if saved else None


def _spec_from(saved: SavedSpec | None) -> MeterSpec | None:
    return saved.spec if saved else None


def _expected_digest(change: Change, saved: SavedChange, plan: SavedPlan, first: bool) -> str:
    scope = plan.environment, plan.organization_id
    if not first:
        return change_digest(
            *scope, change.key, decided_action(change), change.id, change.before, change.after, change.marker
        )
    # The first format had no markers, and its digest covers the specs as they are written in it.
    return sha256(
        {
            "environment": plan.environment,
            "organization_id": plan.organization_id,
            "key": change.key,
            "action": change.action,
            "id": change.id,
            "before": saved.before and saved.before.data,
            "after": saved.after and saved.after.data,
        }
    )


def _first_digest(changes: Sequence[str]) -> str:
    return sha256(sorted(changes))


def fields_match_specs(change: Change) -> bool:
    """Tell whether the name and fields, which no digest covers, match `before` and `after`."""
    spec = change.after or change.before
    before, after = (spec.by_path if spec else {} for spec in (change.before, change.after))
    if change.action == "create":
        expected = set(change.after.created_by_path) if change.after else set()
    # A blocked change shows fields only if it says what would differ. Example: `frozen` does, `mismatch` not.
    elif change.before and change.after and (change.action != "blocked" or change.fields):
        expected = {p for p in before.keys() | after.keys() if not _same(before.get(p), after.get(p))}
    else:
        expected = set()
    return (
        (spec is None or spec.name == change.name)
        and sorted(field.path for field in change.fields) == sorted(expected)
        and all(
            _same(field.before, before.get(field.path))
            and _same(field.after, after.get(field.path))
            and field.impact == FieldPath.parse(field.path).impact
            for field in change.fields
        )
    )


def _same(one: Any, other: Any) -> bool:
    # Plain `==` would accept True for 1.
    return canonical_json(one) == canonical_json(other)


def _changed_since(fault: str) -> PolarIacError:
    return PolarIacError(f"this plan file was changed since polar-iac wrote it: {fault}. Plan again.")
