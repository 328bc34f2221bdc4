"""Golden texts: outputs that are kept word for word. `REGENERATE=1` writes them anew; read the difference."""

from __future__ import annotations

import os
import re
from pathlib import Path


def golden(path: Path, text: str) -> None:
    """Compare a text with the golden file at `path`."""
    if renews():
        path.write_text(text, encoding="utf-8", newline="\n")
    assert text == path.read_text(encoding="utf-8")


def golden_block(path: Path, name: str, text: str) -> None:
    """Compare a text with the block after `<!-- output: NAME -->` in a Markdown file."""
    block = re.compile(rf"(<!-- output: {name} -->\n```\n)(.*?)(```\n)", re.DOTALL)
    document = path.read_text(encoding="utf-8")
    if renews():
        document = block.sub(lambda match: match[1] + text + match[3], document)
        path.write_text(document, encoding="utf-8")
    match = block.search(document)
    assert match is not None
    assert match[2] == text


def renews() -> bool:
    """True where golden texts are written anew."""
    return bool(os.environ.get("REGENERATE"))
