"""`GET /v1/organizations/`: the one organization of a token, whole."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from polar_iac.local.answers import NotFoundError
from polar_iac.local.listing import Pairs, SortKeys, page_of, read_list
from polar_iac.local.query import Parameter, page_parameters
from polar_iac.local.store import JsonObject
from polar_iac.local.validation import read_id

NAME = "Local"

_ON = (
    "order_confirmation payment_method_expiration_reminder subscription_cancellation"
    " subscription_confirmation subscription_cycled subscription_cycled_after_trial"
    " subscription_past_due subscription_paused subscription_resumed subscription_renewal_reminder"
    " subscription_revoked subscription_trial_conversion_reminder subscription_uncanceled"
    " subscription_updated"
)
_FEATURES = (
    "issue_funding seat_based_pricing unit_based_pricing wallets member_model checkout_localization"
    " reset_proration_behavior off_session_charges meter_cycling slack_benefit preview_access"
    " disputes sso dispute_auto_accept compass merchant_migration"
)
_CAPABILITIES = "checkout_payments subscription_renewals payouts refunds api_access dashboard_access"
_UNKNOWN = (
    "avatar_url bio company blog location twitter_username default_upfront_split_to_contributors"
    " email website details_submitted_at onboarding_resubmission_requested_at country"
)


class OrganizationSortProperty(StrEnum):
    """Sort criteria of organizations (read)."""

    created_at = "created_at"
    created_at_desc = "-created_at"
    organization_name = "name"
    organization_name_desc = "-name"


_SORT_KEYS: SortKeys = {
    "created_at": lambda organization: organization["created_at"],
    "name": lambda organization: organization["name"],
}


@cache
def _parameters() -> tuple[Parameter, ...]:
    oldest_first = (OrganizationSortProperty.created_at,)
    return (
        *page_parameters(),
        Parameter("slug", TypeAdapter(str | None)),
        Parameter("sorting", TypeAdapter(list[OrganizationSortProperty]), oldest_first, many=True),
    )


def organization_document(organization_id: str) -> JsonObject:
    """Return the organization as recorded for a new one, except its name."""
    settings: dict[str, Any] = {
        "proration_behavior": "prorate",
        "allow_customer_updates": True,
    }
    return {
        "created_at": "2025-01-01T00:00:00Z",
        "modified_at": None,
        "id": organization_id,
        "name": NAME,
        "slug": NAME.lower(),
        **dict.fromkeys(_UNKNOWN.split()),
        **settings,
        "pledge_minimum_amount": 0,
        "pledge_badge_show_amount": False,
        "socials": [],
        "status": "active",
        "sso_enforced": False,
        "default_presentment_currency": "usd",
        "default_tax_behavior": "location",
        "feature_settings": {
            **{f"{name}_enabled": False for name in _FEATURES.split()},
            "overview_metrics": None,
        },
        "subscription_settings": {
            **settings,
            "allow_multiple_subscriptions": False,
            "benefit_revocation_grace_period": 0,
            "prevent_trial_abuse": False,
        },
        "customer_email_settings": dict.fromkeys(_ON.split(), True),
        "customer_portal_settings": {
            "usage": {"show": True},
            "subscription": {"update_seats": True, "update_plan": True},
            "customer": {"allow_email_change": False},
        },
        "dispute_settings": {"auto_accept_below_amount": None},
        "embed_hosts": [],
        "embed_hosts_enforced": True,
        "account_id": None,
        "payout_account_id": None,
        "capabilities": dict.fromkeys(_CAPABILITIES.split(), True),
        "notification_settings": {
            "new_order": True,
            "new_subscription": True,
            "chargeback_prevention": True,
            "subscription_renewal": False,
        },
    }


def list_organizations(organization_id: str, pairs: Pairs) -> JsonObject:
    """Return a page of the one organization. Raises RequestError."""
    wanted = read_list(_parameters(), pairs)
    document = organization_document(organization_id)
    return page_of([document] if wanted["slug"] in (None, document["slug"]) else [], wanted, _SORT_KEYS)


def get_organization(organization_id: str, id_text: str) -> JsonObject:
    """Return the one organization. Raises RequestError, and NotFoundError for any other."""
    if read_id(id_text) != organization_id:
        raise NotFoundError
    return organization_document(organization_id)
