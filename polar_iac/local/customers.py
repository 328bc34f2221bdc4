"""Customers, as events and customer meters show them."""

from __future__ import annotations

import hashlib
import uuid

from polar_iac.local.store import JsonObject


def customer_document(
    organization_id: str, created_at: str, *, external_id: str | None, email: str, name: str | None
) -> JsonObject:
    """Return a new individual customer with a verified e-mail. `first_user_event_at` comes from events."""
    avatar = hashlib.sha256(email.lower().encode()).hexdigest()
    return {
        "id": str(uuid.uuid4()),
        "created_at": created_at,
        "modified_at": None,
        "metadata": {},
        "external_id": external_id,
        "email": email,
        "email_verified": True,
        "type": "individual",
        "name": name,
        "billing_name": name,
        "billing_address": None,
        "tax_id": None,
        "locale": None,
        "organization_id": organization_id,
        "default_payment_method_id": None,
        "deleted_at": None,
        "first_user_event_at": None,
        "avatar_url": f"https://www.gravatar.com/avatar/{avatar}?d=404",
    }
