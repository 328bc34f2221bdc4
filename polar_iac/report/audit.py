"""The audit record of an apply: who applied what, and what became of each change."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from polar_iac.apply.events import Applied, Event, Failed, Skipped, Unconfirmed, Unknown
from polar_iac.errors import ExitCode
from polar_iac.plan.model import Plan

FORMAT_VERSION = 1
UNRECORDED = "no outcome is recorded: the run was cut off, or has not ended yet"


@dataclass(frozen=True, kw_only=True)
class CiRun:
    """A run of a CI system: who started it, and where, as the CI system's variables say."""

    system: str
    actor: str | None
    """Account whose action started the run. Example: who merged."""
    triggering_actor: str | None
    """Account that started this attempt. Example: who pressed "Re-run"."""
    repository: str | None
    ref: str | None
    commit: str | None
    workflow: str | None
    job: str | None
    run_id: str | None
    run_attempt: str | None
    url: str | None


@dataclass
class AuditRecord:
    """Facts known of an apply so far. `ended_at` and `exit_code` are None until it has ended."""

    started_at: datetime
    run: CiRun | None = None
    environment: str | None = None
    manifest: str | None = None
    commit: str | None = None
    manifest_committed: bool | None = None
    """True if the manifest is as the commit has it. None if there is no commit."""
    reviewed_digest: str | None = None
    plan: Plan | None = None
    organization_id: str | None = None
    """As an answer has shown it; else it is the plan's."""
    executing: bool = False
    """True once the plan was permitted and is carried out."""
    events: list[Event] = field(default_factory=list)
    ended_at: datetime | None = None
    stopped: str | None = None
    error: str | None = None
    exit_code: ExitCode | None = None


def audit_json(record: AuditRecord, redacted: Callable[[str], str]) -> str:
    """Return the documented JSON, in ASCII. `redacted` removes what is private from prose and paths."""
    plan = record.plan
    document = {
        "format_version": FORMAT_VERSION,
        "kind": "audit",
        "environment": record.environment,
        "organization_id": record.organization_id or (plan and plan.organization_id),
        "project": plan and plan.project,
        "manifest": record.manifest and redacted(record.manifest),
        "commit": record.commit,
        "manifest_committed": record.manifest_committed,
        "run": record.run and dataclasses.asdict(record.run),
        "digest": plan and plan.digest,
        "reviewed_digest": record.reviewed_digest,
        "started_at": _time(record.started_at),
        "ended_at": _time(record.ended_at),
        "effects": [
            {**effect, "reason": effect["reason"] and redacted(effect["reason"])}
            for effect in _effects(record)
        ],
        "unknown": [redacted(event.message) for event in record.events if isinstance(event, Unknown)],
        "stopped": record.stopped,
        "error": record.error and redacted(record.error),
        "exit_code": record.exit_code,
    }
    return json.dumps(document, indent=2) + "\n"


def _effects(record: AuditRecord) -> Iterator[dict[str, Any]]:
    """Yield what became of each change and each bookkeeping entry: first what is known, in order."""
    if not record.executing or record.plan is None:
        return
    missing = _expected(record.plan)
    for event in record.events:
        if isinstance(event, Unknown):
            continue
        outcome, reason = _outcome(event)
        meter_id = event.id if isinstance(event, Applied | Failed | Skipped) else ""
        missing.pop(_place(event.key, event.action, meter_id), None)
        status = event.status if isinstance(event, Failed) else None
        yield _effect(event.key, event.action, meter_id, outcome, reason, status=status, at=_time(event.at))
    for (key, action, _), meter_id in missing.items():
        yield _effect(key, action, meter_id, "unknown", UNRECORDED)


def _outcome(event: Applied | Failed | Skipped | Unconfirmed) -> tuple[str, str | None]:
    match event:
        case Applied():
            return "applied", None
        case Skipped():
            return "skipped", event.reason
        case Unconfirmed():
            return "unconfirmed", event.message
        case Failed():
            return ("unknown" if event.unknown else "failed"), event.message


def _effect(
    key: str,
    action: str,
    meter_id: str,
    outcome: str,
    reason: str | None,
    *,
    status: int | None = None,
    at: str | None = None,
) -> dict[str, Any]:
    return {
        "key": key,
        "action": action,
        "id": meter_id or None,
        "outcome": outcome,
        "reason": reason,
        "status": status,
        "at": at,
    }


_Place = tuple[str, str, str]


def _place(key: str, action: str, meter_id: str) -> _Place:
    """Return the identity of an effect: a key has one, plus one for each duplicate that is settled."""
    return key, action, meter_id if action == "settle" else ""


def _expected(plan: Plan) -> dict[_Place, str]:
    """Return the effects of a plan that is carried out, with the ids of their meters.

    A key's bookkeeping is an effect of its own where the key has no change: it comes with the change.
    """
    effects = {_place(c.key, c.action, c.id or ""): c.id or "" for c in plan.changes}
    changed = {change.key for change in plan.changes if change.action not in ("settle", "blocked")}
    for entry in plan.bookkeeping:
        if entry.key not in changed:
            changed.add(entry.key)
            effects[_place(entry.key, entry.action, entry.id)] = entry.id
    return effects


def _time(moment: datetime | None) -> str | None:
    """Return a time in UTC as RFC 3339, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


def redaction(secrets: Sequence[str], names: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that takes secrets and private names out of a text.

    `names` has what to write for each. A name counts only as a whole word, or as the beginning of a path.
    Example: with `/home/kim` as `~`, `/home/kim/a.yaml` becomes `~/a.yaml`, and `/home/kimberly` stays.
    """
    parts = [re.escape(secret) for secret in secrets if secret]
    parts += [rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in names if len(name) > 1]
    if not parts:
        return str
    pattern = re.compile("|".join(parts))
    return lambda text: pattern.sub(lambda match: names.get(match[0], "***"), text)
