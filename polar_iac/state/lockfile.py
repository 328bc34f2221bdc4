"""Lockfile: maps each key to its Polar meter and the spec as last applied. Reviewed, and merged by git."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError, SourceSpan
from polar_iac.files import read_file, state_path, write_atomically
from polar_iac.manifest.model import Manifest
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.record import Record
from polar_iac.state.schema import LOCKFILE, RECORD
from polar_iac.yaml.messages import MARK

VERSION = 1
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})(\s|$)", re.MULTILINE)
_SURROGATE = re.compile(r"\\u[dD][89abABcdefCDEF]")


@dataclass(frozen=True)
class Lockfile:
    """A parsed lockfile.

    `organization_id` is None until an apply learns it. `extra` holds fields of later versions.
    """

    environment: str
    organization_id: str | None
    project: str
    meters: Mapping[str, Record] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def default_path(manifest: Path, environment: str) -> Path:
    """Return the path next to the manifest. Example: `meters.yaml` has `meters.<environment>.lock.json`.

    The one of `local` is of use on this machine only, so it is in the state directory, beside its database.
    Earlier versions wrote it next to the manifest, where it is still used.
    """
    beside = manifest.with_name(f"{manifest.stem}.{environment}.lock.json")
    within = state_path(beside) / beside.name
    return within if environment == "local" and (within.exists() or not beside.exists()) else beside


def read(path: Path, environment: str, project: str) -> Lockfile:
    """Read the lockfile at `path`. Return an empty one when there is no file.

    Raises DiagnosticError with the position of the fault, PolarIacError when the file cannot be read.
    """
    try:
        text = read_file(path).decode("utf-8")
    except FileNotFoundError:
        return Lockfile(environment, None, project)
    except UnicodeDecodeError as error:
        raise PolarIacError(f"{path}: error: the lockfile is not UTF-8 text: restore it from git") from error
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the lockfile: {error.strerror}") from error
    return loads(text, str(path), environment, project)


def loads(text: str, file: str, environment: str, project: str) -> Lockfile:
    """Parse a lockfile's text, and check that it is for this environment and project.

    It may begin with byte order marks, as the manifest may.
    """
    text = text.lstrip(MARK)
    if conflict := _CONFLICT.search(text):
        raise _diagnostic(text, file, conflict.start(), "a git conflict marker: resolve the merge first")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg}; restore it from git"
        raise _diagnostic(text, file, error.pos, message) from error
    except _FaultError as fault:
        raise _located(text, file, fault) from fault
    except (ValueError, RecursionError) as error:
        message = "not a lockfile: a number is too large, or it is nested too deeply"
        raise _diagnostic(text, file, 0, message) from error
    # JSON may escape half a character (`"\ud83d"`), which Python reads but cannot write as UTF-8.
    if half := _SURROGATE.search(text):
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            message = "half of a character (a lone surrogate) is in this file; restore it from git"
            raise _diagnostic(text, file, half.start(), message) from error
    try:
        return _lockfile(data, environment, project)
    except _FaultError as fault:
        raise _located(text, file, fault) from fault


def dumps(lockfile: Lockfile) -> str:
    """Serialize the lockfile; equal states give equal texts.

    Sorted keys, two spaces, a final newline, no timestamps.
    """
    return json.dumps(_document(lockfile), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def digest(lockfile: Lockfile) -> str:
    """Return the SHA-256 of the lockfile's content.

    Equal exactly when `dumps` is equal, and faster to compute.
    """
    text = canonical_json(_document(lockfile))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _document(lockfile: Lockfile) -> dict[str, Any]:
    meters = {
        key: {
            **record.extra,
            "id": record.id,
            "spec": record.spec and record.spec.canonical,
            **({"frozen": True} if record.frozen else {}),
            **({"ignored": sorted(record.ignored)} if record.ignored else {}),
        }
        for key, record in lockfile.meters.items()
    }
    return {
        **lockfile.extra,
        "version": VERSION,
        "environment": lockfile.environment,
        "organization_id": lockfile.organization_id,
        "project": lockfile.project,
        "meters": meters,
    }


def other_organizations(desired: Manifest, environment: str, beside: Path) -> dict[str, str]:
    """Return what the manifest and lockfiles say of other environments' organizations.

    Of the environments that need no definition each has a server of its own, and so another organization.
    """
    others: dict[str, str] = {}
    for name in desired.environments:
        if name == environment or not {name, environment} & desired.servers.keys():
            continue
        organization_id = desired.organizations.get(name)
        # Its own run reports what is wrong with another lockfile.
        with suppress(PolarIacError):
            path = default_path(beside, name)
            organization_id = organization_id or read(path, name, desired.project).organization_id
        if organization_id:
            others[organization_id] = name
    return others


def save(path: Path, lockfile: Lockfile) -> None:
    """Write the lockfile atomically: after a crash, either the old or the new file is there."""
    write_atomically(path, dumps(lockfile))


class _FaultError(Exception):
    """Invalid lockfile content. `path` leads to the value in the JSON."""

    def __init__(self, message: str, *path: str, duplicate: str | None = None) -> None:
        super().__init__(message)
        self.path, self.duplicate = path, duplicate


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _FaultError(f"the key `{key}` appears twice: a merge went wrong, keep one", duplicate=key)
    return data


def _no_constant(name: str) -> Any:
    raise _FaultError(f"{name} is not a JSON number")


def _lockfile(data: Any, environment: str, project: str) -> Lockfile:
    if not isinstance(data, dict):
        raise _FaultError("a lockfile is a JSON object; restore it from git")
    # First what the file is about: another version, environment or project explains all other problems.
    _check_header(data, environment, project)
    fields = _validated(LOCKFILE, data)
    data.clear()
    organization_id, entries = fields.pop("organization_id", None), fields.pop("meters")
    # Each entry is released as soon as it is a record: the garbage collector is slow with many objects.
    records = {key: _record(key, entries.pop(key)) for key in list(entries)}
    key_by_id: dict[str, str] = {}
    for key, record in records.items():
        other = key_by_id.setdefault(record.id, key)
        if other != key:
            raise _FaultError(
                f"`{other}` and `{key}` record the same meter {record.id}: a merge went wrong; keep the one "
                "that the meter's metadata `polar_iac` names",
                "meters",
                key,
                "id",
            )
    return Lockfile(environment, organization_id, project, records, extra=fields)


def _record(key: str, data: Any) -> Record:
    fields = _validated(RECORD, data, "meters", key)
    meter_id, spec = fields.pop("id"), fields.pop("spec", None)
    frozen, ignored = fields.pop("frozen", False), frozenset(fields.pop("ignored", ()))
    return Record(meter_id, spec, frozen, ignored, extra=fields)


def _validated(schema: TypeAdapter[Any], data: Any, *path: str) -> dict[str, Any]:
    """Check the value at `path` against a schema. Raises the fault that comes first."""
    try:
        fields: dict[str, Any] = schema.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _fault_of((*path, *first["loc"])) from error
    return fields


def _check_header(data: dict[str, Any], environment: str, project: str) -> None:
    """Check version, environment and project, and remove them from `data`."""
    version = data.pop("version", None)
    # `True == 1` in Python: `"version": true` must not pass.
    if version != VERSION or isinstance(version, bool):
        raise _FaultError(
            f"lockfile version {json.dumps(version)} is not known to this polar-iac: it reads {VERSION}; "
            "use the polar-iac that wrote it, or a newer one",
            "version",
        )
    actual = data.pop("environment", None)
    if actual != environment:
        raise _FaultError(
            f"this lockfile is of the environment {json.dumps(actual)}, not of {environment}: "
            "choose the environment with -e, or the file with --lockfile",
            "environment",
        )
    actual = data.pop("project", None)
    if actual != project:
        raise _FaultError(
            f"this lockfile is of the project {json.dumps(actual)}, the manifest of {project}: "
            "a project is not renamed, since every ownership marker contains its name",
            "project",
        )


def _fault_of(loc: tuple[int | str, ...]) -> _FaultError:
    """Return the fault at a pydantic `loc`. Example: `("meters", "calls", "ignored", 0)`."""
    match loc:
        case ("organization_id", *_):
            return _FaultError("organization_id is not a UUID; restore it from git", "organization_id")
        case ("meters", str(key)):
            return _FaultError(f"the entry of `{key}` is not an object; restore it from git", "meters", key)
        case ("meters", str(key), str(name), *_):
            message = _RECORD_FAULTS[name].format(key=key)
            return _FaultError(message, "meters", key, name)
        case _:
            return _FaultError("`meters` is not an object; restore it from git", "meters")


_RECORD_FAULTS = {
    "id": "`{key}` has no id: a UUID; restore it from git",
    "frozen": "`frozen` of `{key}` is neither true nor false",
    "ignored": "`ignored` of `{key}` is not a list of fields",
    "spec": "the spec of `{key}` is not a meter; restore it from git",
}


def _located(text: str, file: str, fault: _FaultError) -> DiagnosticError:
    if fault.duplicate is not None:
        needle = re.compile(re.escape(json.dumps(fault.duplicate, ensure_ascii=False)) + r"\s*:")
        places = [m.start() for m in needle.finditer(text)]
        return _diagnostic(text, file, places[-1] if places else 0, str(fault))
    position = 0
    for name in fault.path:
        needle = re.compile(re.escape(json.dumps(name, ensure_ascii=False)) + r"\s*:")
        # Search for each name after the one before it. Example: "meters", then the key, then "id".
        place = needle.search(text, position)
        position = place.start() if place else position
    return _diagnostic(text, file, position, str(fault))


def _diagnostic(text: str, file: str, position: int, message: str) -> DiagnosticError:
    line = text.count("\n", 0, position) + 1
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    excerpt = text[start : end if end >= 0 else len(text)]
    column = position - start + 1
    return DiagnosticError([Diagnostic(SourceSpan(file, line, column, column + 1), message, excerpt)])
