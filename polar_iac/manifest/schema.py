"""JSON Schema of the manifest, for editors: it completes keys, explains them, and marks what is wrong.

It says less than the reader, which also knows positions, other entries, and what YAML makes of a text. What
it refuses, the reader refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from polar_iac import ENVIRONMENTS, SLUG
from polar_iac.lint.registry import RULES
from polar_iac.manifest.check_settings import MAX_EVENT_NAME
from polar_iac.manifest.environments import SERVERS
from polar_iac.meter.declared import MODEL_OBJECTS, TYPES
from polar_iac.meter.fields import FIELDS, IGNORABLE, MAX_METADATA_KEY, text_schema
from polar_iac.meter.filter import (
    CLAUSE_KEYS,
    CONJUNCTIONS,
    EVENT_FIELDS,
    FILTER_KEYS,
    FUNCS,
    INT32,
    MAX_VALUE_TEXT,
    OPERATORS,
    ORDER_OPERATORS,
)
from polar_iac.meter.marker import MARKER

Schema = dict[str, Any]

_UUID4 = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"


def manifest_schema() -> Schema:
    """Return the schema, of draft 7, which editors support best."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "polar-iac manifest",
        "description": "Polar meters as code: what customers are billed by usage for.",
        **_map(_top(), ("version", "project", "meters"), patternProperties={"^x-": True}),
        "definitions": {
            "slug": {"type": "string", "pattern": f"^{SLUG}$"},
            "uuid": {"type": "string", "pattern": _UUID4},
            "meter": _meter(),
            "filter": _filter(),
            "clause": _clause(),
            "aggregation": _aggregation(),
        },
    }


def schema_json() -> str:
    """Return the schema as the text that the package ships."""
    return json.dumps(manifest_schema(), indent=2) + "\n"


def _map(properties: Mapping[str, Schema], required: tuple[str, ...] = (), **more: Any) -> Schema:
    """Return the schema of a map that has these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        **({"required": list(required)} if required else {}),
        "additionalProperties": False,
        **more,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _described(description: str, schema: Mapping[str, Any]) -> Schema:
    """Return a schema with a description. In draft 7 a `$ref` hides what is beside it."""
    return {"description": description, **({"allOf": [schema]} if "$ref" in schema else schema)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _top() -> dict[str, Schema]:
    """Return the schemas of the keys at the top."""
    return {
        "version": {"description": "Version of the manifest's format.", "type": "integer", "const": 1},
        "project": _described("Part of each meter's ownership marker: never rename it.", _ref("slug")),
        "environments": _environments(),
        "lint": _lint(),
        "checks": _checks(),
        "events": _events(),
        "import": _entries(
            "Meters that exist already, and that this manifest takes over. Done entries are harmless.",
            to=_described("The key of the block that declares the meter as it is.", _ref("slug")),
            id=_described(
                "Id of the meter at Polar, by environment.",
                {
                    "type": "object",
                    "propertyNames": _ref("slug"),
                    "additionalProperties": _ref("uuid"),
                    "minProperties": 1,
                },
            ),
        ),
        "moved": _entries(
            "Renamed keys: the meter stays the same one.",
            **{
                "from": _described("The former key.", _ref("slug")),
                "to": _described("The key that it has now.", _ref("slug")),
            },
        ),
        "removed": _entries(
            "Keys that are managed no more: the meter stays at Polar as it is.",
            **{"from": _described("The former key.", _ref("slug"))},
        ),
        "meters": {
            "description": "Meters, each under a key that stays the same.",
            "type": "object",
            "propertyNames": _ref("slug"),
            "additionalProperties": _ref("meter"),
        },
    }


def _entries(description: str, **keys: Schema) -> Schema:
    """Return the schema of a list of maps that each have all these keys."""
    return _described(description, _list(_map(keys, tuple(keys))))


def _environments() -> Schema:
    """Return the schema of the environments: those that need no definition only pin their organization."""
    id_ = _described("Id of the organization at Polar: a token of another one is refused.", _ref("uuid"))
    server = _described(
        "Polar's server. Another address comes from POLAR_BASE_URL_NAME alone.", {"enum": list(SERVERS)}
    )
    pinned = _map({"organization_id": id_}, ("organization_id",))
    return {
        "description": "Organizations and servers of the environments; each name but production, sandbox and "
        "local needs a server.",
        "type": "object",
        "properties": dict.fromkeys(ENVIRONMENTS, pinned),
        "propertyNames": _ref("slug"),
        "additionalProperties": _map({"server": server, "organization_id": id_}, ("server",)),
    }


def _lint() -> Schema:
    rules = [word for rule in RULES.values() if not rule.refused for word in (rule.name, rule.code)]
    ignored = _described("Rules that are ignored everywhere, by name or code.", _list({"enum": rules}))
    strict = {"description": "Warnings fail `validate`, as with --strict.", "type": "boolean"}
    return _described("Settings of the lint rules.", _map({"ignore": ignored, "strict": strict}))


def _checks() -> Schema:
    name = {**text_schema(), "minLength": 1, "maxLength": MAX_EVENT_NAME}
    uncounted = _described("Names of events that no meter needs to count.", _list(name))
    idle = _described("Meters that may count nothing.", _list(_ref("slug")))
    return _described(
        "What `polar-iac check` leaves out.",
        _map({n: _map({"ignore": i}, ("ignore",)) for n, i in (("uncounted", uncounted), ("idle", idle))}),
    )


def _events() -> Schema:
    """Return the schema of declared events: a type by property, or a map with the type."""
    type_ = {"enum": list(TYPES)}
    optional = {"description": "Some events of this name lack it.", "type": "boolean"}
    property_ = {
        "if": {"type": "object"},
        "then": _map({"type": type_, "optional": optional}, ("type",)),
        "else": type_,
    }
    key = {"pattern": "^[^.\\u0000]*$", "not": {"enum": list(MODEL_OBJECTS)}}
    return {
        "description": "The events that are sent, with what is in their metadata.",
        "type": "object",
        "propertyNames": text_schema(),
        "additionalProperties": {"type": "object", "propertyNames": key, "additionalProperties": property_},
    }


def _meter() -> Schema:
    """Return the schema of a meter: the table of fields, and what is no field of Polar's."""
    fields = {name: _described(field.description, field.json_schema) for name, field in FIELDS.items()}
    return _map(
        {**fields, "lifecycle": _lifecycle(), "environments": _exists_in()},
        tuple(name for name, field in FIELDS.items() if field.required),
        description="A meter: which events count, and what of them.",
    )


def _exists_in() -> Schema:
    return _described(
        "Where the meter exists. Without it: in every environment.",
        {**_list(_ref("slug")), "minItems": 1, "uniqueItems": True},
    )


def _lifecycle() -> Schema:
    key = {
        "type": "string",
        "pattern": f"^metadata\\.[^\\u0000]{{1,{MAX_METADATA_KEY}}}$",
        "not": {"const": f"metadata.{MARKER}"},
    }
    entry = {"anyOf": [{"enum": list(IGNORABLE)}, key]}
    ignored = _described("Fields that are left to whoever edits them at Polar.", _list(entry))
    return _described("How polar-iac treats this meter.", _map({"ignore_changes": ignored}))


def _filter() -> Schema:
    is_filter = {
        "anyOf": [{"required": ["clauses"]}, {"required": ["conjunction"], "not": {"required": ["property"]}}]
    }
    part = {"if": is_filter, "then": _ref("filter"), "else": _ref("clause")}
    return _map(
        {
            "conjunction": _described(
                "`and`: every clause has to match. `or`: one is enough.", {"enum": list(CONJUNCTIONS)}
            ),
            "clauses": _described("Clauses and filters. Without any, every event matches.", _list(part)),
        },
        FILTER_KEYS,
    )


def _clause() -> Schema:
    """Return the schema of a clause, without the ones that Polar stores and then cannot compute."""

    def with_property(*names: str) -> Schema:
        # `metadata.` before a property's name has no effect.
        return {"properties": {"property": {"pattern": f"^(metadata\\.)*({'|'.join(names)})$"}}}

    def with_operator(*names: str) -> Schema:
        return {"properties": {"operator": {"enum": list(names)}}}

    text_fields = tuple(name for name in EVENT_FIELDS if name != "timestamp")
    others = tuple(name for name in OPERATORS if name not in ORDER_OPERATORS)
    return _map(
        {
            "property": _described(
                "`name`, `source` and `timestamp` are the event's own. Any other is in its metadata.",
                text_schema(),
            ),
            "operator": _described(
                "`like` finds a text anywhere in the property.", {"enum": list(OPERATORS)}
            ),
            "value": _described(
                'A text, a whole number, true or false: `5`, `"5"` and `true` are three values.',
                {
                    "anyOf": [
                        text_schema(maxLength=MAX_VALUE_TEXT),
                        {"type": "integer", "minimum": INT32[0], "maximum": INT32[-1]},
                        {"type": "boolean"},
                    ]
                },
            ),
        },
        CLAUSE_KEYS,
        **{
            "if": {"properties": {"value": {"type": "boolean"}}, "required": list(CLAUSE_KEYS)},
            "then": {
                "allOf": [
                    {"anyOf": [with_operator(*others), with_property(*text_fields)]},
                    {"anyOf": [with_operator("like", "not_like"), {"not": with_property("timestamp")}]},
                ]
            },
        },
    )


def _aggregation() -> Schema:
    return _map(
        {
            "func": _described("`unique` counts how many different values.", {"enum": list(FUNCS)}),
            "property": _described("What it is computed from. `count` takes none.", text_schema()),
        },
        ("func",),
        **{
            "if": {"properties": {"func": {"const": "count"}}},
            "then": {"properties": {"property": False}},
            "else": {"required": ["property"]},
        },
    )
