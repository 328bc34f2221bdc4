"""Saved plans as they are in a file: strict models, which refuse a document that is not one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from polar_iac import SLUG
from polar_iac.errors import PolarIacError
from polar_iac.facts.model import Lack, Source
from polar_iac.meter.fields import Impact
from polar_iac.meter.live import UUID
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.document import FORMAT_VERSION
from polar_iac.plan.model import Action, Cause, Freeze, Housekeeping, Origin
from polar_iac.sanitize import printable

FIRST_FORMAT = 1
"""A format without markers, notes and settled duplicates. Such a plan can be shown but never applied."""


class _Strict(BaseModel):
    """Part of a saved plan. Values of another type are refused, not converted; unknown keys are ignored."""

    model_config = ConfigDict(strict=True)


def _check_id(text: str) -> str:
    if not UUID.fullmatch(text):
        raise ValueError("must be a UUID")
    return text


def _check_environment(text: str) -> str:
    if not re.fullmatch(SLUG, text):
        raise ValueError("must be the name of an environment")
    return text


@dataclass(frozen=True)
class SavedSpec:
    """A spec, and the JSON data that it was read from."""

    spec: MeterSpec
    data: Any


def _read_spec(data: Any) -> SavedSpec | None:
    if data is None:
        return None
    try:
        spec = MeterSpec.from_json(data)
        _ = spec.fingerprint  # wrong types inside raise here
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError("must be a meter") from None
    return SavedSpec(spec, data)


_Id = Annotated[str, AfterValidator(_check_id)]
_Natural = Annotated[int, Field(ge=0)]
_Spec = Annotated[SavedSpec | None, PlainValidator(_read_spec)]


class SavedSource(_Strict):
    file: str
    line: _Natural
    column: _Natural


class SavedField(_Strict):
    path: str
    before: Any
    after: Any
    impact: Impact
    origin: Origin
    source: SavedSource | None


class SavedNote(_Strict):
    kind: str
    severity: Literal["info", "warning"]
    text: str
    source: str
    as_of: str | None
    data: dict[str, Any] = {}
    key: str | None = None


class SavedMarker(_Strict):
    before: str | None
    after: str | None


class SavedMeter(_Strict):
    id: _Id
    name: str
    marker: str | None
    created_at: str
    archived_at: str | None


class SavedChange(_Strict):
    key: str
    action: Action
    id: _Id | None
    name: str
    before: _Spec
    after: _Spec
    digest: str
    fields: list[SavedField]
    source: SavedSource | None
    reason: str | None
    cause: Cause | None
    freeze: Freeze
    evidence: list[SavedNote]
    marker: SavedMarker | None = None
    meters: list[SavedMeter] = []
    duplicate_of: _Id | None = None


class SavedBookkeeping(_Strict):
    key: str
    action: Housekeeping
    id: _Id
    was: str | None = None


class SavedRefusal(_Strict):
    cause: Literal["unknown-id", "unlisted"]
    keys: list[str]


class SavedOptions(_Strict):
    targets: list[str] = []
    allow_archive: bool = False


class SavedTests(_Strict):
    passed: _Natural
    failed: _Natural
    errors: _Natural


class SavedGap(_Strict):
    source: Source
    lack: Lack
    text: str
    keys: list[str]


class SavedFacts(_Strict):
    requests: _Natural = 0
    gaps: list[SavedGap] = []


class SavedPlan(_Strict):
    format_version: Literal[1, 2]
    environment: Annotated[str, AfterValidator(_check_environment)]
    organization_id: _Id | None
    project: str
    refreshed: bool
    manifest: str | None
    lockfile: str | None
    summary: dict[str, _Natural]
    changes: list[SavedChange]
    notes: list[SavedNote]
    bookkeeping: list[SavedBookkeeping]
    digest: str
    unowned: _Natural = 0
    tests: SavedTests | None = None
    facts: SavedFacts = SavedFacts()
    options: SavedOptions = SavedOptions()
    refusal: SavedRefusal | None = None


class _Versioned(_Strict):
    format_version: Any


def read_saved(data: Any) -> SavedPlan:
    """Read a document of any format. Raises PolarIacError, which names the value that is wrong."""
    try:
        version = _Versioned.model_validate(data).format_version
        if type(version) is not int or version not in (FIRST_FORMAT, FORMAT_VERSION):
            raise PolarIacError(
                f"this plan file has format version {printable(json.dumps(version))}, "
                f"and this polar-iac reads {FORMAT_VERSION}: plan again"
            )
        return SavedPlan.model_validate(_completed(data) if version == FIRST_FORMAT else data)
    except ValidationError as error:
        raise PolarIacError(f"not a plan file of polar-iac: {_fault(error)}") from None


def _completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of the first format with the keys that it did not have."""
    changes = data.get("changes")
    if isinstance(changes, list):
        changes = [{**change, "cause": None} if isinstance(change, dict) else change for change in changes]
    return {**data, "changes": changes, "notes": [], "manifest": None, "lockfile": None}


_FAULTS = {
    "missing": "is missing",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
}


def _fault(error: ValidationError) -> str:
    """Return the first fault with its place. Example: "`changes.0.id` must be a UUID"."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    message = _FAULTS.get(first["type"]) or first["msg"].replace("Input should be", "must be")
    message = message.removeprefix("Value error, ")
    return printable(f"`{place}` {message}" if place else f"the document {message}")
