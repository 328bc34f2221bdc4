"""Plans as JSON: the contract with scripts, described by `plan.schema.json` in this directory.

`read_document` reads them again. It is a module of its own, because a plan that is only written need not load
what reading does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from polar_iac.plan.model import Bookkeeping, Change, FieldChange, Note, Plan

FORMAT_VERSION = 2


def plan_json(plan: Plan) -> str:
    """Return the documented JSON: pure ASCII, so that nothing in a name can affect the terminal."""
    return json.dumps(plan_document(plan), indent=2) + "\n"


def plans_json(plans: Sequence[Plan]) -> str:
    """Return the documents of several plans in one object."""
    document = {"format_version": FORMAT_VERSION, "plans": [plan_document(plan) for plan in plans]}
    return json.dumps(document, indent=2) + "\n"


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as the JSON data that `plan.schema.json` describes."""
    return {
        "format_version": FORMAT_VERSION,
        "environment": plan.environment,
        "organization_id": plan.organization_id,
        "project": plan.project,
        "refreshed": plan.refreshed,
        "manifest": plan.manifest,
        "lockfile": plan.lockfile,
        "summary": _summary(plan),
        "changes": [_change(change) for change in plan.changes],
        "notes": [{"key": note.key, **_note(note)} for note in plan.notes],
        "bookkeeping": [_bookkeeping(entry) for entry in plan.bookkeeping],
        "digest": plan.digest,
        **({"unowned": plan.unowned} if plan.unowned else {}),
        **({"tests": dataclasses.asdict(plan.tests)} if plan.tests else {}),
        **({"facts": facts} if (facts := _facts(plan)) else {}),
        **({"options": options} if (options := _options(plan)) else {}),
        **(
            {"refusal": {"cause": plan.refusal.cause, "keys": list(plan.refusal.keys)}}
            if plan.refusal
            else {}
        ),
    }


def _summary(plan: Plan) -> dict[str, int]:
    """Return the counts of a plan. One of `release` came later in this format: it is left out when zero."""
    return {action: count for action, count in plan.summary.items() if count or action != "release"}


def _facts(plan: Plan) -> dict[str, Any]:
    """Return what became of the facts, or nothing where none were asked for."""
    if not plan.facts_requests and not plan.facts_gaps:
        return {}
    gaps = [{**dataclasses.asdict(gap), "keys": list(gap.keys)} for gap in plan.facts_gaps]
    return {"requests": plan.facts_requests, "gaps": gaps}


def _options(plan: Plan) -> dict[str, Any]:
    """Return the options of the plan that were given in addition to the environment."""
    return {
        **({"targets": list(plan.targets)} if plan.targets else {}),
        **({"allow_archive": True} if plan.allow_archive else {}),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "key": change.key,
        "action": change.action,
        "reason": change.reason,
        "cause": change.cause,
        "id": change.id,
        "name": change.name,
        "before": change.before and change.before.canonical,
        "after": change.after and change.after.canonical,
        "marker": change.marker and dataclasses.asdict(change.marker),
        "fields": [_field(field) for field in change.fields],
        "freeze": change.freeze,
        "evidence": [_note(note) for note in change.notes],
        "meters": [dataclasses.asdict(meter) for meter in change.meters],
        "duplicate_of": change.duplicate_of,
        "digest": change.digest,
        "source": change.source and change.source.json,
    }


def _note(note: Note) -> dict[str, Any]:
    return {
        "kind": note.kind,
        "severity": note.severity,
        "text": note.text,
        "source": note.source,
        "as_of": note.as_of,
        "data": note.data,
    }


def _field(field: FieldChange) -> dict[str, Any]:
    return {
        "path": field.path,
        "before": field.before,
        "after": field.after,
        "impact": field.impact,
        "origin": field.origin,
        "source": field.source and field.source.json,
    }


def _bookkeeping(entry: Bookkeeping) -> dict[str, Any]:
    return {"key": entry.key, "action": entry.action, "id": entry.id, "was": entry.was}
