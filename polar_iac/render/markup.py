"""Values as GitHub's Markdown that cannot break out of it.

Whatever comes from a manifest or from Polar stands in code, in a span or in a fence: there GitHub sees no
markup, HTML, mention, reference, commit, link or emoji. Prose of ours may quote such a value anywhere, so it
is taken apart: plain words stay as they are, all else goes into code spans.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from polar_iac.render.words import printable

_CHUNK = re.compile(r'(?:`[^`]*`|"[^"]*"|\S)+')
"""What stands between spaces; a quoted text is one, with the spaces in it."""
_OUTSIDE = re.compile(r"(\(?)(.*?)([.,;:)]*)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*|[0-9]{1,6}|[·→–…]")
_COMMIT = re.compile(r"[0-9a-fA-F]{7,}")
_SERVER = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""What is printable, and yet not to be seen."""


def size(text: str) -> int:
    """How much of GitHub's room a text takes, in bytes: no way of counting characters comes to more."""
    return len(text.encode("utf-8", "surrogatepass"))


def visible(text: str) -> str:
    """`text` in which two values that differ look different: no line of it ends, nothing in it is unseen, and
    the only space is the plain one."""
    text = printable(text)
    if text.isascii():
        return text
    return "".join(_escaped(c) if _UNSEEN.match(c) or _is_odd_space(c) else c for c in text)


def _is_odd_space(char: str) -> bool:
    return char != " " and unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}"


def code(text: str, *, cell: bool = False) -> str:
    """`text` as a code span; in the `cell` of a table without the sign that ends cells."""
    text = visible(text) or '""'
    if cell:
        text = text.replace("|", "\\u007c")
    ticks = "`" * (_longest_run(text) + 1)
    # One space on either side is taken off again: it parts backticks, and saves a space of the value's own.
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(lines: Iterable[str], language: str = "") -> str:
    """A fenced block that no line of its own can end."""
    body = [visible(line) for line in lines]
    ticks = "`" * max(3, 1 + max(map(_longest_run, body), default=0))
    return "\n".join([ticks + language, *body, ticks])


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def prose(text: str) -> str:
    """A sentence of ours that may hold anything. It must not begin a line."""
    return " ".join(map(_chunk, _CHUNK.findall(printable(text))))


def _chunk(chunk: str) -> str:
    parts = _OUTSIDE.fullmatch(chunk)
    if parts is None or not parts[2]:
        return code(chunk)
    before, core, after = parts.groups()
    # Letters alone may still be a commit to GitHub: `defaced`.
    if not _WORD.fullmatch(core) or _COMMIT.fullmatch(core):
        quoted = len(core) > 2 and core[0] == core[-1] == "`" and core.count("`") == 2
        core = code(core[1:-1] if quoted else core)
    return before + core + after


def details(summary: str, body: str) -> str:
    """What is folded until someone asks. `summary` is words of ours."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


@dataclass(frozen=True)
class Links:
    """Where the manifest stands on GitHub, and the run that planned.

    `directory` is where the run's paths begin, seen from the top of the repository.
    """

    server_url: str
    repository: str
    sha: str
    directory: str = ""
    run_id: str | None = None

    def file(self, path: str, line: int | None = None) -> str | None:
        """The address of a file at the head commit; None where it cannot be told."""
        place = repository_path(path, self.directory)
        if place is None or not self._home or not _SHA.fullmatch(self.sha):
            return None
        anchor = f"#L{line}" if line else ""
        return f"{self._home}/blob/{self.sha}/{quote(place, safe='/', errors='surrogatepass')}{anchor}"

    @property
    def run(self) -> str | None:
        known = self._home and self.run_id and self.run_id.isascii() and self.run_id.isdigit()
        return f"{self._home}/actions/runs/{self.run_id}" if known else None

    @property
    def _home(self) -> str | None:
        fine = _SERVER.fullmatch(self.server_url) and _REPOSITORY.fullmatch(self.repository)
        return f"{self.server_url}/{self.repository}" if fine else None


def repository_path(path: str, directory: str = "") -> str | None:
    """`path` as seen from the top of the repository; None for one outside."""
    if posixpath.isabs(path) or posixpath.isabs(directory):
        return None
    place = posixpath.normpath(posixpath.join(directory, path))
    return None if place in ("..", ".") or place.startswith("../") else place


def linked(text: str, url: str | None) -> str:
    return f"[{code(text)}]({url})" if url else code(text)
