"""Schema of lockfiles and journals: pydantic models in strict mode, through which both files are read.

Strict means that nothing is converted. Example: the text "false" is not a boolean, and is refused.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, with_config
from typing_extensions import TypedDict

from polar_iac.meter.live import UUID
from polar_iac.meter.spec import MeterSpec

Id = Annotated[str, Field(pattern=f"^{UUID.pattern}$")]


def _spec_from(data: Any) -> MeterSpec:
    """Parse a canonical spec. Raises ValueError, which pydantic reports at the field."""
    if isinstance(data, MeterSpec):
        return data
    try:
        spec = MeterSpec.from_json(data)
        _ = spec.fingerprint  # forces the canonical form, so wrong types inside raise here, not in a plan
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a meter spec") from error
    return spec


def _optional_spec_from(data: Any) -> MeterSpec | None:
    return None if data is None else _spec_from(data)


Spec = Annotated[MeterSpec, PlainValidator(_spec_from)]
OptionalSpec = Annotated[MeterSpec | None, PlainValidator(_optional_spec_from)]
"""A spec, or null for a meter to which nothing was ever applied."""


@with_config(ConfigDict(strict=True, extra="allow"))
class RecordFields(TypedDict):
    """Lockfile entry of one key. Extra fields are those of later versions, and are kept."""

    id: Id
    frozen: NotRequired[bool]
    ignored: NotRequired[list[str]]
    spec: NotRequired[OptionalSpec]


@with_config(ConfigDict(strict=True, extra="allow"))
class LockfileFields(TypedDict):
    """Lockfile content, without the fields that say what it is about: version, environment and project.

    `RecordFields` reads the `meters`, one at a time. Extra fields are those of later versions, and are kept.
    """

    organization_id: NotRequired[Id | None]
    meters: dict[str, Any]


# Typed dictionaries, because 10,000 model instances are slow to make and to collect.
RECORD: TypeAdapter[Any] = TypeAdapter(RecordFields)
LOCKFILE: TypeAdapter[Any] = TypeAdapter(LockfileFields)


class _Entry(BaseModel):
    """Journal entry. The order of the fields is the order in the file. Unknown fields are ignored."""

    # Built when the first journal is read: most plans have none.
    model_config = ConfigDict(strict=True, frozen=True, defer_build=True)


class Begin(_Entry):
    """First entry: the owner of the journal, and the digest of the lockfile that it starts from."""

    effect: Literal["begin"] = "begin"
    key: str
    environment: str
    project: str
    lockfile: str


class OrganizationLearned(_Entry):
    """The token belongs to this organization."""

    effect: Literal["organization"] = "organization"
    key: str
    id: Id


class CreateIntended(_Entry):
    """A POST is about to be sent. `at` is missing in journals of earlier versions."""

    effect: Literal["create"] = "create"
    key: str
    marker: str
    spec: Spec
    at: str = ""


class NotCreated(_Entry):
    """The last POST of the key is known to have created nothing."""

    effect: Literal["gave-up"] = "gave-up"
    key: str


class Created(_Entry):
    """A 201 answer returned this meter, and no sweep has yet checked it for duplicates."""

    effect: Literal["made"] = "made"
    key: str
    id: Id


class DuplicatesSettled(_Entry):
    """None of the created meters is a duplicate."""

    effect: Literal["swept"] = "swept"
    key: str


class Forgotten(_Entry):
    """The key is no longer this meter. Without an id, the key is no longer any meter."""

    effect: Literal["forget"] = "forget"
    key: str
    id: Id | None = None


class Recorded(_Entry):
    """The key is now this meter.

    `was` is the key that it replaces. `created` means that a 201 answered the create. `found` means that a
    lookup resolved a create: it is the time of that create, or true for one of an earlier version without a
    time.
    """

    effect: Literal["record"] = "record"
    key: str
    id: Id
    spec: OptionalSpec
    frozen: bool
    ignored: list[str] = []
    was: str | None = None
    created: bool = False
    found: str | bool = False


Entry = (
    Begin
    | OrganizationLearned
    | CreateIntended
    | NotCreated
    | Created
    | DuplicatesSettled
    | Forgotten
    | Recorded
)
_ENTRY: TypeAdapter[Entry] = TypeAdapter(
    Annotated[Entry, Field(discriminator="effect")], config=ConfigDict(defer_build=True)
)


def entry_from(line: bytes) -> Entry:
    """Parse one line of a journal. Raises ValueError or RecursionError when it is not an entry."""
    data = json.loads(line.decode())
    if b"\\ud" in line.lower():
        json.dumps(data, ensure_ascii=False).encode()  # half a character could not be written again
    return _ENTRY.validate_python(data)


def line_of(entry: Entry) -> str:
    """Return the line of an entry in the journal: the fields that were set, in the order of the model."""
    names = entry.model_fields_set | {"effect"}
    data = {name: getattr(entry, name) for name in type(entry).model_fields if name in names}
    if isinstance(data.get("spec"), MeterSpec):
        data["spec"] = data["spec"].canonical
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"
