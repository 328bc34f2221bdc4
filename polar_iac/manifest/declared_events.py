"""Block `events`: the properties of events, and their types."""

from __future__ import annotations

from polar_iac.manifest.node_reader import NodeReader
from polar_iac.meter.canonical import canonical_property
from polar_iac.meter.declared import MODEL_OBJECTS, TYPES, DeclaredEvents, DeclaredProperty
from polar_iac.yaml import tree

_EXAMPLE = "{llm.completion: {tokens: integer}}"


def read_events(reader: NodeReader, node: tree.Node) -> DeclaredEvents:
    """Return the declared events. Reports faults to the reader."""
    events = reader.map(node, "events", _EXAMPLE)
    declared: dict[str, dict[str, DeclaredProperty]] = {}
    for name in events.keys if events else ():
        reader.text(name, "the name of an event")
        value = events.entries[name.text] if events else name
        properties = reader.map(value, "an event", "{tokens: integer}")
        declared[name.text] = {
            key.text: _property(reader, key, properties.entries[key.text])
            for key in (properties.keys if properties else ())
            if properties
        }
    return declared


def _property(reader: NodeReader, key: tree.Scalar, node: tree.Node) -> DeclaredProperty:
    """Return one property: its type, or a map with `type` and `optional`."""
    name = reader.text(key, "a property")
    if name in MODEL_OBJECTS:
        reader.fault(key, f"{name} needs no declaration: ingestion says what is in it")
    elif name is not None and name.startswith("metadata."):
        reader.fault(key, f"write the key of the metadata alone, `{canonical_property(name)}`")
    elif name is not None and "." in name:
        reader.fault(
            key, "a property cannot have a dot: metadata is flat, and a filter reaches no key with a dot"
        )
    if not isinstance(node, tree.Map):
        return DeclaredProperty(_type(reader, node))
    reader.keys(node, ("type", "optional"), ("type",), node)
    entries = node.entries
    optional = "optional" in entries and reader.boolean(entries["optional"], "optional")
    return DeclaredProperty(_type(reader, entries["type"]) if "type" in entries else "string", optional)


def _type(reader: NodeReader, node: tree.Node) -> str:
    return reader.choice(node, "a type", tuple(TYPES))
