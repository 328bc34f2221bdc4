"""Marker of a comment or an issue: the hidden last line by which an action finds its own text again.

It is made of inputs alone, so that it is found when the manifest is gone. The actions run this from their
checkout, also where nothing could be installed: only the standard library, and Python 3.7.
"""

from __future__ import annotations

import os
import re
from typing import Iterable, Mapping, Optional, Tuple  # noqa: UP035  Python 3.7 runs this

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./")


def marker_of(variables: Mapping[str, str]) -> str:
    """Return the marker of a step's inputs: working directory, file and environments.

    Neither the spelling of the path nor the order of the environments counts.
    """
    path = f"{variables['INPUT_WORKING_DIRECTORY']}/{variables['INPUT_FILE']}"
    environments = " ".join(sorted(set(variables["INPUT_ENVIRONMENTS"].split())))
    return f"<!-- polar-iac:{_encoded(_normal(path))}:+{_encoded(environments)} -->"


def _normal(path: str) -> str:
    """Return one spelling of a path: `./eu//meters.yaml` and `eu/./meters.yaml` are one file."""
    return "/".join(part for part in re.split("/+", path) if part not in ("", "."))


def _encoded(text: str) -> str:
    """Return a part of a marker: it cannot end an HTML comment, and no two texts give the same."""
    return "".join(chr(byte) if byte in _SAFE else f":{byte:02x}" for byte in os.fsencode(text))


def with_marker(report: str, marker: str, more: str = "") -> str:
    """Return a report of polar-iac with a marker in place of its last line, and before it one paragraph."""
    body = report.rstrip("\n").rpartition("\n")[0].rstrip("\n")
    return "\n\n".join(filter(None, [body, more, marker])) + "\n"


def is_marked(body: str, marker: str) -> bool:
    """Tell whether the last line of a text is the marker. A quotation of it is none."""
    return re.split("\r\n|\r|\n", body.rstrip())[-1] == marker


def own(texts: Iterable[Tuple[str, str, bool]], marker: str) -> Optional[str]:  # noqa: UP006, UP045
    """Return the first id of `(id, body, is by us)` that is by us and bears the marker.

    Anyone can quote a marker, but nobody else can write as us.
    """
    return next((number for number, body, by_us in texts if by_us and is_marked(body, marker)), None)
