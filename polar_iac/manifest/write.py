"""A meter as the YAML lines that declare it."""

from __future__ import annotations

import re
from io import StringIO
from textwrap import indent
from typing import Any

from polar_iac.meter.spec import MeterSpec
from polar_iac.yaml.scalars import is_only_text

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*(?: [A-Za-z0-9_.-]+)*")


def block(key: str, spec: MeterSpec) -> str:
    """Return the YAML lines that declare a meter, indented to fit under `meters:`."""
    from ruamel.yaml import YAML

    declared = spec.declared()
    if spec.archived:
        declared = {"archived": True, **declared}  # first, since it decides whether the rest has any effect

    def quoted(representer: Any, text: str) -> Any:
        """Quote everything except plain words, because YAML parsers disagree on the rest."""
        plain = _PLAIN.fullmatch(text) and is_only_text(text)
        # Single quotes have no escapes, and fold any character that YAML treats as a line break.
        style = None if plain else "'" if text.isprintable() else '"'
        return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    yaml = YAML(typ="safe", pure=True)
    # Set before the first access to `representer`, which copies this setting.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.add_representer(str, quoted)
    yaml.default_flow_style = None
    yaml.width = 100
    text = StringIO()
    yaml.dump({key: declared}, text)
    return indent(text.getvalue(), "  ")
