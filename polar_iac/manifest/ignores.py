"""Comments `# polar-iac: ignore[RULE] reason` in the text of a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polar_iac.errors import SourceSpan
from polar_iac.lint.registry import rule_of
from polar_iac.yaml import tree

_COMMENT = re.compile(
    r"(?<=[\s,\[\]{}])#[ \t]*polar-iac:[ \t]*ignore\[([^\]\r\n]*)\][ \t]*([^\r\n]*)|"
    r"^#[ \t]*polar-iac:[ \t]*ignore\[([^\]\r\n]*)\][ \t]*([^\r\n]*)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Ignore:
    """A comment that ignores rules on a line. `rules` are their names, and `unknown` are other words."""

    line: int
    rules: tuple[str, ...]
    unknown: tuple[str, ...]
    reason: str
    span: SourceSpan


def read_ignores(document: tree.Document) -> Sequence[Ignore]:
    """Return the comments: each is about its own line, or where it stands alone about the next one."""
    if "polar-iac:" not in document.text:
        return ()
    matches = list(_COMMENT.finditer(document.text))
    if not matches:
        return ()
    inside = _scalars(document.root)
    return [
        _ignore(document, match)
        for match in matches
        if not any(start < match.start() < end for start, end in inside)
    ]


def _scalars(root: tree.Node) -> Sequence[tuple[int, int]]:
    """Return where the texts with a `#` are: in a text it begins no comment."""
    found, seen, waiting = [], set[int](), [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tree.Scalar):
            if "#" in node.text:
                found.append((node.start, node.end))
        elif id(node) not in seen:
            seen.add(id(node))
            waiting += node.children
    return found


def _ignore(document: tree.Document, match: re.Match[str]) -> Ignore:
    words = [word.strip() for word in (match[1] or match[3] or "").split(",") if word.strip()]
    known = {word: rule_of(word) for word in words}
    span = document.span(match.start(), match.end())
    return Ignore(
        _target(document, match.start(), span.line),
        tuple(rule.name for rule in known.values() if rule is not None),
        tuple(word for word, rule in known.items() if rule is None),
        (match[2] or match[4] or "").strip(" \t-:–—"),
        span,
    )


def _target(document: tree.Document, start: int, line: int) -> int:
    """Return the line that a comment is about. Several comments may stand above one line."""
    lines = document.lines
    if document.text[lines[line - 1] : start].strip():
        return line
    for number, content in _following(document, line):
        if content and not content.startswith("#"):
            return number
    return line


def _following(document: tree.Document, line: int) -> Iterator[tuple[int, str]]:
    lines = document.lines
    for number in range(line, len(lines)):
        end = lines[number + 1] if number + 1 < len(lines) else len(document.text)
        yield number + 1, document.text[lines[number] : end].strip()
