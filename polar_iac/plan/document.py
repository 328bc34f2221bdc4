"""Plans as JSON and back: the contract with scripts, described by `plan.schema.json` in this directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from polar_iac import ENVIRONMENTS
from polar_iac.errors import PolarIacError, SourceSpan
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import FieldPath, Impact
from polar_iac.meter.live import UUID
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import (
    ACTIONS,
    CAUSES,
    Bookkeeping,
    Change,
    FieldChange,
    Freeze,
    Housekeeping,
    MarkerChange,
    MeterReference,
    Note,
    Origin,
    Plan,
    Refusal,
    change_digest,
    sha256,
)
from polar_iac.sanitize import printable

FORMAT_VERSION = 2
_FIRST_FORMAT = 1
"""A format without markers, notes and settled duplicates. Such a plan can be shown but never applied."""


def plan_json(plan: Plan) -> str:
    """Return the documented JSON: pure ASCII, so that nothing in a name can affect the terminal."""
    return json.dumps(plan_document(plan), indent=2) + "\n"


def plans_json(plans: Sequence[Plan]) -> str:
    """Return the documents of several plans in one object."""
    document = {"format_version": FORMAT_VERSION, "plans": [plan_document(plan) for plan in plans]}
    return json.dumps(document, indent=2) + "\n"


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "environment": plan.environment,
        "organization_id": plan.organization_id,
        "project": plan.project,
        "refreshed": plan.refreshed,
        "manifest": plan.manifest,
        "lockfile": plan.lockfile,
        "summary": dict(plan.summary),
        "changes": [_change(change) for change in plan.changes],
        "notes": [{"key": note.key, **_evidence(note)} for note in plan.notes],
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
        "evidence": [_evidence(fact) for fact in change.notes],
        "meters": [dataclasses.asdict(meter) for meter in change.meters],
        "duplicate_of": change.duplicate_of,
        "digest": change.digest,
        "source": _source(change.source),
    }


def _evidence(fact: Note) -> dict[str, Any]:
    return {
        "kind": fact.kind,
        "severity": fact.severity,
        "text": fact.text,
        "source": fact.source,
        "as_of": fact.as_of,
        "data": fact.data,
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
    return {"key": entry.key, "action": entry.action, "id": entry.id, "was": entry.was}


def _source(span: SourceSpan | None) -> dict[str, Any] | None:
    return None if span is None else {"file": span.file, "line": span.line, "column": span.column}


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
        return _read_plan(data)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        fault = f"{printable(str(error.args[0]))} is missing" if isinstance(error, KeyError) else str(error)
        raise PolarIacError(f"not a plan file of polar-iac: {fault}") from None


def _read_plan(data: Any) -> Plan:
    version = _mapping(data, "the document")["format_version"]
    if version not in (_FIRST_FORMAT, FORMAT_VERSION) or isinstance(version, bool):
        raise PolarIacError(
            f"this plan file has format version {printable(json.dumps(version))}, "
            f"and this polar-iac reads {FORMAT_VERSION}: plan again"
        )
    first = version == _FIRST_FORMAT
    options = _mapping(data.get("options", {}), "options")
    plan = Plan(
        environment=_one_of(data["environment"], "environment", ENVIRONMENTS),
        organization_id=_optional_id(data["organization_id"], "organization_id"),
        project=_typed(data["project"], "project", str),
        refreshed=_typed(data["refreshed"], "refreshed", bool),
        changes=tuple(_read_change(entry, data, first) for entry in _typed(data["changes"], "changes", list)),
        bookkeeping=tuple(
            _read_bookkeeping(entry) for entry in _typed(data["bookkeeping"], "bookkeeping", list)
        ),
        unchanged=_natural(_mapping(data["summary"], "summary")["unchanged"], "unchanged"),
        targets=tuple(
            _typed(key, "targets", str) for key in _typed(options.get("targets", []), "targets", list)
        ),
        allow_archive=_typed(options.get("allow_archive", False), "allow_archive", bool),
        refusal=_read_refusal(data.get("refusal")),
        notes=tuple(_read_evidence(note) for note in _typed([] if first else data["notes"], "notes", list)),
        manifest=None if first else _optional(data["manifest"], "manifest"),
        lockfile=None if first else _optional(data["lockfile"], "lockfile"),
        outdated=_typed(data["digest"], "digest", str) if first else None,
    )
    # `sorted(set(…))` also refuses duplicates: a change listed twice is not the plan that was written.
    places = [change.order for change in plan.changes]
    digest = _first_digest([change.digest for change in plan.changes]) if first else plan.digest
    summary = {**plan.summary, **data["summary"]} if first else data["summary"]
    if places != sorted(set(places)) or summary != plan.summary or data["digest"] != digest:
        raise _changed_since("its changes are not those that its digest stands for")
    return plan


def _read_bookkeeping(data: Any) -> Bookkeeping:
    return Bookkeeping(
        _typed(_mapping(data, "bookkeeping")["key"], "key", str),
        _one_of(data["action"], "action", get_args(Housekeeping)),
        _id(data["id"], "id"),
        _optional(data.get("was"), "was"),
    )


def _read_refusal(data: Any) -> Refusal | None:
    if data is None:
        return None
    cause = _one_of(_mapping(data, "refusal")["cause"], "cause", ("unknown-id", "unlisted"))
    return Refusal(cause, tuple(_typed(key, "keys", str) for key in _typed(data["keys"], "keys", list)))


def _read_change(data: Any, plan: Mapping[str, Any], first: bool) -> Change:
    key = _typed(_mapping(data, "a change")["key"], "key", str)
    before, after = (_read_spec(data[side], side, first) for side in ("before", "after"))
    action = _one_of(data["action"], "action", ACTIONS)
    meter_id, marker = _optional_id(data["id"], "id"), _read_marker(data.get("marker"))
    change = Change(
        key=key,
        action=action,
        id=meter_id,
        name=_typed(data["name"], "name", str),
        before=before,
        after=after,
        digest=_typed(data["digest"], "digest", str),
        fields=tuple(_read_field(entry) for entry in _typed(data["fields"], "fields", list)),
        source=_read_source(data["source"]),
        reason=_optional(data["reason"], "reason"),
        cause=None if first or data["cause"] is None else _one_of(data["cause"], "cause", CAUSES),
        freeze=_one_of(data["freeze"], "freeze", get_args(Freeze)),
        notes=tuple(_read_evidence(entry) for entry in _typed(data["evidence"], "evidence", list)),
        marker=marker,
        meters=tuple(_read_meter(entry) for entry in _typed(data.get("meters", []), "meters", list)),
        duplicate_of=_optional_id(data.get("duplicate_of"), "duplicate_of"),
    )
    scope = plan["environment"], plan["organization_id"]
    if first:
        expected = _first_change_digest(*scope, data)
    else:
        expected = change_digest(*scope, key, action, meter_id, before, after, marker)
    if change.digest != expected:
        raise _changed_since(f"the digest of `{printable(key)}` does not match it")
    if not first and not _tells_the_truth(change):
        raise _changed_since(f"what it shows of `{printable(key)}` is not what would be done")
    return change


def _read_marker(data: Any) -> MarkerChange | None:
    if data is None:
        return None
    before, after = (_optional(_mapping(data, "marker")[side], side) for side in ("before", "after"))
    return MarkerChange(before, after)


def _read_meter(data: Any) -> MeterReference:
    return MeterReference(
        id=_id(_mapping(data, "a meter")["id"], "id"),
        name=_typed(data["name"], "name", str),
        marker=_optional(data["marker"], "marker"),
        created_at=_typed(data["created_at"], "created_at", str),
        archived_at=_optional(data["archived_at"], "archived_at"),
    )


def _read_evidence(data: Any) -> Note:
    return Note(
        _typed(_mapping(data, "evidence")["kind"], "kind", str),
        _one_of(data["severity"], "severity", ("info", "warning")),
        _typed(data["text"], "text", str),
        _typed(data["source"], "source", str),
        _optional(data["as_of"], "as_of"),
        _mapping(data.get("data", {}), "data"),
        _optional(data.get("key"), "key"),
    )


def _first_change_digest(environment: str, organization_id: str | None, change: Mapping[str, Any]) -> str:
    """Return the digest of a change in the first format, which had no markers."""
    named = {name: change[name] for name in ("key", "action", "id", "before", "after")}
    return sha256({"environment": environment, "organization_id": organization_id, **named})


def _first_digest(changes: Sequence[str]) -> str:
    return sha256(sorted(changes))


def _tells_the_truth(change: Change) -> bool:
    """Tell whether the name and fields, which no digest covers, match `before` and `after`."""
    named = change.after or change.before
    before, after = (spec.by_path if spec else {} for spec in (change.before, change.after))
    if change.action == "create":
        expected = set(change.after.created_by_path) if change.after else set()
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
            and field.impact == FieldPath.parse(field.path).impact
            for field in change.fields
        )
    )


def _same(one: Any, other: Any) -> bool:
    # Plain `==` would accept True for 1.
    return canonical_json(one) == canonical_json(other)


def _read_spec(data: Any, name: str, first: bool) -> MeterSpec | None:
    if data is None:
        return None
    spec = MeterSpec.from_json(_mapping(data, name))
    # The first format kept filters as the user nested them, so they need not be canonical.
    if not first and not _same(spec.canonical, data):
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


def _optional(data: Any, name: str) -> str | None:
    text: str | None = _typed(data, name, str, type(None))
    return text


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
