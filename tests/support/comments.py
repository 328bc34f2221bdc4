"""Parsers that judge our output as a reader of a comment and a runner of GitHub Actions do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token

HOME = "https://github.com/acme/billing"

_BLOCKS = {
    "heading",
    "paragraph",
    "bullet_list",
    "ordered_list",
    "list_item",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
_SUMMARY = re.compile(r"<details>\n<summary>([A-Za-z0-9 ,:]+(<code>[a-z0-9-]+</code>[a-z ,]+)?)</summary>\n")
_MARKER = re.compile(r"<!-- polar-iac:[A-Za-z0-9_.:+/-]* -->\n")
# Neither @, #, /, <, & nor anything else that means something to Markdown or to GitHub.
_PLAIN = re.compile(r"[A-Za-z0-9 .,;:?()'\"·→–−±+%…⚠️🛑ℹ🔴⛔🟠⚪-]*")
_REFERENCE = re.compile(
    r"\.(?=[A-Za-z])|(?<![0-9])\.(?=[0-9])"  # a host, a file; not 10.25
    r"|:[a-z0-9_+-]+:"  # an emoji
    r"|\b[0-9a-fA-F]{7,}\b"  # a commit
    r"|\b[A-Za-z]+-[0-9]+\b"  # an issue elsewhere
)
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass
class Comment:
    """A comment as a parser reads it."""

    skeleton: list[str] = field(default_factory=list)
    """Everything but the words: block and inline tokens in their order."""
    words: list[str] = field(default_factory=list)
    """Text outside code."""
    code: list[str] = field(default_factory=list)
    """The contents of code spans and fences."""
    links: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)


def read_comment(text: str) -> Comment:
    """Parse a comment, and hold it to what a comment of ours may consist of."""
    comment = Comment()
    depth = 0
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    for index, token in enumerate(tokens):
        comment.skeleton.append(token.type)
        if token.type == "html_block":
            html = token.content
            if _SUMMARY.fullmatch(html):
                depth += 1
            elif html == "</details>\n":
                depth -= 1
            else:
                assert _MARKER.fullmatch(html), f"HTML that is not ours: {html!r}"
                assert index == len(tokens) - 1, "the marker is not last"
            assert depth in (0, 1, 2, 3), "details are not balanced"
        elif token.type == "fence":
            assert token.info in ("", "diff", "yaml"), f"a fence of {token.info!r}"
            comment.code += token.content.split("\n")
        elif token.type == "paragraph_open" and token.level > 1:
            assert token.hidden, "a list fell apart, or swallowed what follows"
        elif token.type == "inline":
            _read_inline(token.children or [], comment)
            if tokens[index - 1].type == "heading_open":
                comment.headings.append(token.content)
        else:
            assert token.type.removesuffix("_open").removesuffix("_close") in _BLOCKS, token.type
    assert tokens[-1].type == "html_block", "no marker"
    assert depth == 0, "details are not closed"
    for line in comment.code:
        assert not any(unicodedata.category(c) in _UNPRINTABLE for c in line if c != "\u200d"), repr(line)
    return comment


def _read_inline(tokens: list[Token], comment: Comment) -> None:
    for token in tokens:
        comment.skeleton.append(token.type)
        if token.type == "code_inline":
            comment.code.append(token.content)
        elif token.type == "link_open":
            url = str(token.attrs["href"])
            assert re.fullmatch(HOME + r"/(blob/[0-9a-f]{40}/[\w.%~/-]+(#L\d+)?|actions/runs/\d+)", url), url
            comment.links.append(url)
        elif token.type == "text":
            assert _PLAIN.fullmatch(token.content), f"not plain: {token.content!r}"
            assert not _REFERENCE.search(token.content), f"a reference: {token.content!r}"
            comment.words.append(token.content)
        elif token.type == "html_inline":
            assert token.content == "<br>", f"HTML that is not ours: {token.content!r}"
        else:
            assert token.type in ("strong_open", "strong_close", "link_close", "softbreak"), token.type


_REGISTERED = {
    *("error", "warning", "notice", "debug", "group", "endgroup", "echo", "add-mask", "add-matcher"),
    *(
        "remove-matcher",
        "set-output",
        "save-state",
        "set-env",
        "add-path",
        "stop-commands",
        "internal-set-repo-path",
    ),
}
_PASSED_OVER = re.compile("[\u034f\u180b-\u180d\u180f\u200d\ufe00-\ufe0f]")


@dataclass(frozen=True)
class Command:
    name: str
    properties: dict[str, str]
    message: str


def read_commands(log: str) -> Iterator[Command]:
    """The commands that the runner of GitHub Actions finds in a log, in either of the two ways of writing."""
    for raw in re.split("\r\n|\r|\n", log):
        line = _PASSED_OVER.sub("", re.sub(r"\x1b\[[0-9;]*m", "", raw)).lstrip()
        command = _new_way(line) or _old_way(line)
        if command:
            yield command


def _new_way(line: str) -> Command | None:
    head, colons, message = line[2:].partition("::")
    name, _, parameters = head.partition(" ")
    if not line.startswith("::") or not colons or name.lower() not in _REGISTERED:
        return None
    pairs = (pair.split("=", 1) for pair in parameters.strip().split(",") if pair)
    mapping = ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C"), ("%", "%25")
    properties = {pair[0]: _unescaped(pair[1], *mapping) for pair in pairs if len(pair) == 2}
    return Command(name, properties, _unescaped(message, ("\r", "%0D"), ("\n", "%0A"), ("%", "%25")))


def _old_way(line: str) -> Command | None:
    head, bracket, message = line.partition("##[")[2].partition("]")
    name = head.partition(" ")[0]
    return Command(name, {}, message) if bracket and name.lower() in _REGISTERED else None


def _unescaped(text: str, *mapping: tuple[str, str]) -> str:
    for token, escape in mapping:
        text = text.replace(escape, token)
    return text


def read_outputs(text: str) -> dict[str, str]:
    """Parse the file GITHUB_OUTPUT as the runner does."""
    outputs = {}
    lines = iter(re.split("\r\n|\r|\n", text))
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if heredoc >= 0 and (equals < 0 or heredoc < equals):
            end = line[heredoc + 2 :]
            outputs[line[:heredoc]] = "\n".join(iter(lambda: next(lines), end))
        else:
            assert equals > 0, f"neither: {line!r}"
            assert line[:equals] not in outputs, f"twice: {line!r}"
            outputs[line[:equals]] = line[equals + 1 :]
    return outputs
