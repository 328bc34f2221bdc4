"""Models of ingestion that mirror Polar's own, so that a 422 has the same entries.

Names of classes and the order of fields appear in the `loc` of an error. They match the source of Polar
(read). They are built when the first event is ingested, since most runs ingest none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, NotRequired

from pydantic import (
    UUID4,
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from polar_iac.local.schemas import MetadataValue, Schema


class EventSource(StrEnum):
    system = "system"
    user = "user"


def _now() -> datetime:
    return datetime.now(UTC)


def _past(timestamp: datetime) -> datetime:
    timestamp = timestamp.astimezone(UTC)
    if timestamp > _now():
        raise ValueError("Timestamp must be in the past.")
    return timestamp


class CostMetadata(TypedDict):
    amount: Annotated[Decimal, Field(max_digits=17, decimal_places=12)]
    currency: Annotated[str, Field(pattern="usd")]


class LLMMetadata(TypedDict):
    vendor: str
    model: str
    prompt: Annotated[str | None, Field(default=None)]
    response: Annotated[str | None, Field(default=None)]
    input_tokens: int
    cached_input_tokens: NotRequired[int]
    output_tokens: int
    total_tokens: int


class EventMetadata:
    """A dictionary of flat values, but for `_cost` and `_llm`.

    It has a schema of its own, because TypedDict has extra items in newer versions of pydantic only.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.typed_dict_schema(
            {
                "_cost": core_schema.typed_dict_field(handler.generate_schema(CostMetadata), required=False),
                "_llm": core_schema.typed_dict_field(handler.generate_schema(LLMMetadata), required=False),
            },
            extras_schema=handler.generate_schema(MetadataValue),
            extra_behavior="allow",
        )


class EventCreateBase(Schema):
    model_config = ConfigDict(defer_build=True)

    timestamp: Annotated[AwareDatetime, AfterValidator(_past)] = Field(default_factory=_now)
    name: str = Field(max_length=128)
    organization_id: UUID4 | None = None
    external_id: str | None = None
    parent_id: str | None = None
    metadata: Annotated[dict[str, Any], EventMetadata] = Field(default_factory=dict)


class EventCreateCustomer(EventCreateBase):
    customer_id: UUID4
    member_id: UUID4 | None = None


class EventCreateExternalCustomer(EventCreateBase):
    external_customer_id: str
    external_member_id: str | None = None


EventCreate = EventCreateCustomer | EventCreateExternalCustomer


class EventsIngest(Schema):
    model_config = ConfigDict(defer_build=True)

    events: list[EventCreate]


@cache
def ingest_adapter() -> TypeAdapter[EventsIngest]:
    """Return the validator of a batch, built once."""
    return TypeAdapter(EventsIngest)
