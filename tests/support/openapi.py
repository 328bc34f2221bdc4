"""The bodies that go to Polar, held against its OpenAPI document, where that lies beside the repository."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

_FILE = Path(__file__).parents[3] / "shared" / "polar-openapi.json"

needed = pytest.mark.skipif(
    not _FILE.exists(),
    reason="needs shared/polar-openapi.json beside the repository: no body is held against it",
)
"""For one test that says so: where the document is missing, `check` can hold nothing against it."""


@cache
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    document = json.loads(_FILE.read_text(encoding="utf-8"))
    reference = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    return jsonschema.Draft202012Validator(reference)


def check(bodies: Iterable[tuple[str, Any]]) -> None:
    """Each body, given with the method that it is sent by, is one that Polar documents."""
    if not _FILE.exists():
        return
    for method, body in bodies:
        if method in ("POST", "PATCH"):
            _validator("MeterCreate" if method == "POST" else "MeterUpdate").validate(body)
