"""A plan as JSON: the contract with scripts, described by `plan.schema.json` beside this file."""

from __future__ import annotations

import json
from typing import Any

from polar_iac.errors import SourceSpan
from polar_iac.plan import Bookkeeping, Change, FieldChange, Plan

FORMAT_VERSION = 1


def plan_json(plan: Plan) -> str:
    """The documented JSON. Pure ASCII, so that nothing in a name can reach the terminal."""
    return json.dumps(plan_document(plan), indent=2) + "\n"


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "environment": plan.environment,
        "organization_id": plan.organization_id,
        "project": plan.project,
        "refreshed": plan.refreshed,
        "summary": dict(plan.summary),
        "changes": [_change(change) for change in plan.changes],
        "bookkeeping": [_bookkeeping(entry) for entry in plan.bookkeeping],
        "digest": plan.digest,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "key": change.key,
        "action": change.action,
        "id": change.id,
        "name": change.name,
        "before": change.before and change.before.canonical,
        "after": change.after and change.after.canonical,
        "fields": [_field(field) for field in change.fields],
        "freeze": change.freeze,
        "evidence": [
            {"kind": e.kind, "severity": e.severity, "text": e.text, "source": e.source, "as_of": e.as_of}
            for e in change.evidence
        ],
        "reason": change.reason,
        "digest": change.digest,
        "source": _source(change.source),
    }


def _field(field: FieldChange) -> dict[str, Any]:
    return {
        "path": field.path,
        "before": field.before,
        "after": field.after,
        "impact": field.impact,
        "origin": field.origin,
        "source": _source(field.source),
    }


def _bookkeeping(entry: Bookkeeping) -> dict[str, Any]:
    return {"key": entry.key, "action": entry.action, "id": entry.id}


def _source(span: SourceSpan | None) -> dict[str, Any] | None:
    return None if span is None else {"file": span.file, "line": span.line, "column": span.column}
