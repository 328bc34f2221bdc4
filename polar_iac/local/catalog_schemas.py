"""Models of requests about products and benefits that mirror Polar's own.

Names of classes, tags and the order of fields appear in the `loc` of an error (read). They are built when the
first such request comes, since most runs send none. Prices and benefits have the types that matter to a
meter, and the simplest other types.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import UUID4, AfterValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from polar_iac.local.schemas import Metadata, Schema

INT32_MAX = 2**31 - 1


class Visibility(StrEnum):
    draft = "draft"
    private = "private"
    public = "public"


class RecurringInterval(StrEnum):
    day = "day"
    week = "week"
    month = "month"
    year = "year"


class Currency(StrEnum):
    """Currencies of a price (read)."""

    aud = "aud"
    brl = "brl"
    cad = "cad"
    chf = "chf"
    eur = "eur"
    inr = "inr"
    gbp = "gbp"
    jpy = "jpy"
    sek = "sek"
    usd = "usd"


class AmountType(StrEnum):
    fixed = "fixed"
    custom = "custom"
    free = "free"
    metered_unit = "metered_unit"


PriceAmount = Annotated[int, Field(ge=1)]


class _Deferred(Schema):
    model_config = ConfigDict(defer_build=True)


class ProductPriceCreateBase(_Deferred):
    amount_type: AmountType
    price_currency: Currency = Currency.usd
    tax_behavior: Literal["location", "inclusive", "exclusive"] | None = None


class ProductPriceFixedCreate(ProductPriceCreateBase):
    amount_type: Literal[AmountType.fixed]
    price_amount: PriceAmount


class ProductPriceCustomCreate(ProductPriceCreateBase):
    amount_type: Literal[AmountType.custom]
    minimum_amount: int = Field(50, ge=0)
    maximum_amount: PriceAmount | None = None
    preset_amount: PriceAmount | None = None


class ProductPriceFreeCreate(ProductPriceCreateBase):
    amount_type: Literal[AmountType.free]


class ProductPriceMeteredUnitCreate(ProductPriceCreateBase):
    amount_type: Literal[AmountType.metered_unit]
    meter_id: UUID4
    unit_amount: Decimal = Field(gt=0, max_digits=17, decimal_places=12)
    cap_amount: int | None = Field(None, ge=0, le=INT32_MAX)


PriceCreate = Annotated[
    ProductPriceFixedCreate
    | ProductPriceCustomCreate
    | ProductPriceFreeCreate
    | ProductPriceMeteredUnitCreate,
    Discriminator("amount_type"),
]

ProductName = Annotated[str, AfterValidator(str.strip), Field(min_length=3, max_length=64)]
Description = Annotated[str | None, AfterValidator(lambda text: text or None)]


class ProductCreateBase(_Deferred):
    metadata: Metadata = Field(default_factory=dict)
    name: ProductName
    description: Description = None
    visibility: Visibility = Visibility.public
    prices: Annotated[list[PriceCreate], Field(min_length=1)]
    organization_id: UUID4 | None = None


class ProductCreateRecurring(ProductCreateBase):
    recurring_interval: RecurringInterval
    recurring_interval_count: int = Field(1, ge=1, le=999)


class ProductCreateOneTime(ProductCreateBase):
    recurring_interval: None = None
    recurring_interval_count: None = None


def _recurring_or_not(value: Any) -> str:
    given = value.get("recurring_interval") if isinstance(value, dict) else None
    return "one_time" if given is None else "recurring"


ProductCreate = Annotated[
    Annotated[ProductCreateRecurring, Tag("recurring")] | Annotated[ProductCreateOneTime, Tag("one_time")],
    Discriminator(_recurring_or_not),
]


class ExistingProductPrice(_Deferred):
    """A price of the product that stays."""

    id: UUID4


PriceUpdate = Annotated[ExistingProductPrice | PriceCreate, Field(union_mode="left_to_right")]


class ProductUpdate(_Deferred):
    metadata: Metadata = Field(default_factory=dict)
    name: ProductName | None = None
    description: Description = None
    is_archived: bool | None = None
    visibility: Visibility | None = None
    prices: list[PriceUpdate] | None = None


class ProductBenefitsUpdate(_Deferred):
    benefits: list[UUID4]


class BenefitType(StrEnum):
    """Types of benefits, in the order in which an error lists them (observed)."""

    custom = "custom"
    discord = "discord"
    github_repository = "github_repository"
    downloadables = "downloadables"
    license_keys = "license_keys"
    meter_credit = "meter_credit"
    feature_flag = "feature_flag"
    slack_shared_channel = "slack_shared_channel"


class BenefitCreateBase(_Deferred):
    metadata: Metadata = Field(default_factory=dict)
    type: BenefitType
    description: str = Field(min_length=3, max_length=42)
    organization_id: UUID4 | None = None
    visibility: Visibility | None = None


class BenefitCustomCreateProperties(_Deferred):
    note: str | None = None


class BenefitCustomCreate(BenefitCreateBase):
    type: Literal[BenefitType.custom]
    properties: BenefitCustomCreateProperties


class BenefitMeterCreditCreateProperties(_Deferred):
    units: Annotated[int, Field(gt=0, le=INT32_MAX)]
    rollover: bool
    meter_id: UUID4


class BenefitMeterCreditCreate(BenefitCreateBase):
    type: Literal[BenefitType.meter_credit]
    properties: BenefitMeterCreditCreateProperties


BenefitCreate = Annotated[BenefitCustomCreate | BenefitMeterCreditCreate, Discriminator("type")]


@cache
def product_create() -> TypeAdapter[ProductCreateRecurring | ProductCreateOneTime]:
    """Return the validator of a new product, built once."""
    return TypeAdapter(ProductCreate)


@cache
def product_update() -> TypeAdapter[ProductUpdate]:
    """Return the validator of a product's PATCH, built once."""
    return TypeAdapter(ProductUpdate)


@cache
def product_benefits_update() -> TypeAdapter[ProductBenefitsUpdate]:
    """Return the validator of a product's benefits, built once."""
    return TypeAdapter(ProductBenefitsUpdate)


@cache
def benefit_create() -> TypeAdapter[BenefitCustomCreate | BenefitMeterCreditCreate]:
    """Return the validator of a new benefit, built once."""
    return TypeAdapter(BenefitCreate)
