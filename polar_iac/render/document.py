"""A plan as JSON and back: the contract with scripts, described by `plan.schema.json` beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from polar_iac import ENVIRONMENTS
from polar_iac.errors import PolarIacError, SourceSpan
from polar_iac.meter import IMPACT, UUID, Impact, MeterSpec, canonical_json
from polar_iac.plan import (
    ACTIONS,
    Bookkeeping,
    Change,
    Evidence,
    FieldChange,
    Freeze,
    Housekeeping,
    Origin,
    Plan,
    Refusal,
    change_digest,
)
from polar_iac.render.words import printable

FORMAT_VERSION = 1


def plan_json(plan: Plan) -> str:
    """The documented JSON. Pure ASCII, so that nothing in a name can reach the terminal."""
    return json.dumps(plan_document(plan), indent=2) + "\n"


def plans_json(plans: Sequence[Plan]) -> str:
    """The documents of several plans, as a list."""
    return json.dumps([plan_document(plan) for plan in plans], indent=2) + "\n"


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
        **({"options": options} if (options := _options(plan)) else {}),
        **(
            {"refusal": {"cause": plan.refusal.cause, "keys": list(plan.refusal.keys)}}
            if plan.refusal
            else {}
        ),
    }


def _options(plan: Plan) -> dict[str, Any]:
    """What the plan was asked with, where that was more than the environment."""
    return {
        **({"targets": list(plan.targets)} if plan.targets else {}),
        **({"allow_archive": True} if plan.allow_archive else {}),
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


def plan_from_document(data: Any) -> Plan:
    """The plan that `plan_document` wrote, for every renderer to show as it was.

    What the document does not hold is absent: `cause`, `was`, and where a position ends. Raises PolarIacError
    when this is no plan, or when what it would do was changed since: whoever reads it must see what its
    digest stands for. What it says besides (reasons, evidence, origins, positions) is in no digest.
    """
    try:
        return _read_plan(data)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        told = f"{printable(str(error.args[0]))} is missing" if isinstance(error, KeyError) else str(error)
        raise PolarIacError(f"this is no plan file of polar-iac: {told}") from None


def _read_plan(data: Any) -> Plan:
    version = _mapping(data, "the document")["format_version"]
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise PolarIacError(
            f"this plan file has format version {printable(json.dumps(version))}, "
            f"and this polar-iac reads {FORMAT_VERSION}: plan again"
        )
    options = _mapping(data.get("options", {}), "options")
    plan = Plan(
        environment=_one_of(data["environment"], "environment", ENVIRONMENTS),
        organization_id=_optional_id(data["organization_id"], "organization_id"),
        project=_typed(data["project"], "project", str),
        refreshed=_typed(data["refreshed"], "refreshed", bool),
        changes=tuple(_read_change(entry, data) for entry in _typed(data["changes"], "changes", list)),
        bookkeeping=tuple(
            Bookkeeping(
                _typed(entry["key"], "key", str),
                _one_of(entry["action"], "action", get_args(Housekeeping)),
                _id(entry["id"], "id"),
            )
            for entry in _typed(data["bookkeeping"], "bookkeeping", list)
        ),
        unchanged=_natural(_mapping(data["summary"], "summary")["unchanged"], "unchanged"),
        targets=tuple(
            _typed(key, "targets", str) for key in _typed(options.get("targets", []), "targets", list)
        ),
        allow_archive=_typed(options.get("allow_archive", False), "allow_archive", bool),
        refusal=_read_refusal(data.get("refusal")),
    )
    keys = [change.key for change in plan.changes]
    if keys != sorted(set(keys)) or data["summary"] != plan.summary or data["digest"] != plan.digest:
        raise _changed_since("its changes are not those that its digest stands for")
    return plan


def _read_refusal(data: Any) -> Refusal | None:
    if data is None:
        return None
    cause = _one_of(_mapping(data, "refusal")["cause"], "cause", ("unknown-id", "unlisted"))
    return Refusal(cause, tuple(_typed(key, "keys", str) for key in _typed(data["keys"], "keys", list)))


def _read_change(data: Any, plan: Mapping[str, Any]) -> Change:
    key = _typed(_mapping(data, "a change")["key"], "key", str)
    before, after = (_read_spec(data[side], side) for side in ("before", "after"))
    change = Change(
        key=key,
        action=_one_of(data["action"], "action", ACTIONS),
        id=_optional_id(data["id"], "id"),
        name=_typed(data["name"], "name", str),
        before=before,
        after=after,
        digest=_typed(data["digest"], "digest", str),
        fields=tuple(_read_field(entry) for entry in _typed(data["fields"], "fields", list)),
        source=_read_source(data["source"]),
        reason=_typed(data["reason"], "reason", str, type(None)),
        freeze=_one_of(data["freeze"], "freeze", get_args(Freeze)),
        evidence=tuple(
            Evidence(
                _typed(entry["kind"], "kind", str),
                _one_of(entry["severity"], "severity", ("info", "warning")),
                _typed(entry["text"], "text", str),
                _typed(entry["source"], "source", str),
                _typed(entry["as_of"], "as_of", str, type(None)),
            )
            for entry in _typed(data["evidence"], "evidence", list)
        ),
    )
    scope = plan["environment"], plan["organization_id"]
    if change.digest != change_digest(*scope, key, change.action, change.id, before, after):
        raise _changed_since(f"the digest of `{printable(key)}` does not match it")
    if not _tells_the_truth(change):
        raise _changed_since(f"what it shows of `{printable(key)}` is not what would be done")
    return change


def _tells_the_truth(change: Change) -> bool:
    """Whether name and fields, which no digest covers, are what lies between `before` and `after`."""
    named = change.after or change.before
    before, after = (spec.by_path if spec else {} for spec in (change.before, change.after))
    if change.action == "create":
        expected = {
            path
            for path, data in after.items()
            if path.startswith("metadata.") or (data is not None and data != "scalar")
        }
    elif change.before and change.after and (change.action != "blocked" or change.fields):
        expected = {p for p in before.keys() | after.keys() if not _same(before.get(p), after.get(p))}
    else:
        expected = set()
    return (
        (named is None or named.name == change.name)
        and sorted(field.path for field in change.fields) == sorted(expected)
        and all(
            _same(field.before, before.get(field.path))
            and _same(field.after, after.get(field.path))
            and field.impact == IMPACT[field.path.partition(".")[0]]
            for field in change.fields
        )
    )


def _same(one: Any, other: Any) -> bool:
    return canonical_json(one) == canonical_json(other)


def _read_spec(data: Any, name: str) -> MeterSpec | None:
    if data is None:
        return None
    spec = MeterSpec.from_json(_mapping(data, name))
    if not _same(spec.canonical, data):
        raise _changed_since("a meter in it is not in canonical form")
    return spec


def _read_field(data: Any) -> FieldChange:
    return FieldChange(
        path=_typed(_mapping(data, "a field")["path"], "path", str),
        before=data["before"],
        after=data["after"],
        impact=_one_of(data["impact"], "impact", get_args(Impact)),
        origin=_one_of(data["origin"], "origin", get_args(Origin)),
        source=_read_source(data["source"]),
    )


def _read_source(data: Any) -> SourceSpan | None:
    if data is None:
        return None
    line, column = (_natural(_mapping(data, "source")[name], name) for name in ("line", "column"))
    return SourceSpan(_typed(data["file"], "file", str), line, column, column + 1)


def _changed_since(what: str) -> PolarIacError:
    return PolarIacError(f"this plan file was changed since polar-iac wrote it: {what}. Plan again.")


def _typed(data: Any, name: str, *types: type) -> Any:
    if not isinstance(data, types):
        raise TypeError(f"{name} is of the wrong type")
    return data


def _mapping(data: Any, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _typed(data, name, Mapping)
    return found


def _one_of(data: Any, name: str, choices: Sequence[str]) -> Any:
    if data not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}")
    return data


def _natural(data: Any, name: str) -> int:
    if isinstance(data, bool) or not isinstance(data, int) or data < 0:
        raise ValueError(f"{name} must be a whole number")
    return data


def _id(data: Any, name: str) -> str:
    if not UUID.fullmatch(_typed(data, name, str)):
        raise ValueError(f"{name} must be a UUID")
    return str(data)


def _optional_id(data: Any, name: str) -> str | None:
    return None if data is None else _id(data, name)
