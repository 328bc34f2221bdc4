"""Typed access to a tree of positioned values, with a list of everything that is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from polar_iac import SLUG
from polar_iac.errors import Diagnostic, DiagnosticError
from polar_iac.lint.registry import RULES
from polar_iac.meter.filter import OPERATORS
from polar_iac.yaml import tree
from polar_iac.yaml.scalars import Doubtful, Grouped, clip, nearest, resolve, word_of_yaml_1_1

_SLUG = re.compile(SLUG)
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_SLUG_RULE = "1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit"
_HUMP = re.compile("(?<=[a-z0-9])(?=[A-Z])")
"""The beginning of a word in camelCase."""
_SEVERAL: Mapping[str, str] = {
    **dict.fromkeys(("in", "any_of", "one_of", "is_one_of"), "eq"),
    **dict.fromkeys(("not_in", "nin", "none_of", "not_one_of"), "ne"),
}
"""Other tools' operators for several values, and the one that compares with each."""
_OPPOSITE = (
    "Polar has no not: write the opposite operator in each clause (eq and ne, gt and lte, like and not_like),"
    " and `or` for `and`; an event without the property matches neither"
)


def _one_clause_each(operator: str) -> str:
    # Any event is unequal to one of two values, so that these need `and`.
    conjunction = "and" if operator in ("ne", "not_like") else "or"
    clause = f"{{property: …, operator: {operator}, value: …}}"
    return f"write one clause for each value, `{{conjunction: {conjunction}, clauses: [{clause}, …]}}`"


_OTHER_OPERATORS: Mapping[str, str] = {
    **{name: _one_clause_each(operator) for name, operator in _SEVERAL.items()},
    **dict.fromkeys(("between", "range"), "write two clauses, one with gte and one with lte"),
    **dict.fromkeys(
        ("startswith", "starts_with", "begins_with", "prefix", "endswith", "ends_with", "suffix"),
        "Polar looks at no beginnings or ends: like finds a text anywhere in the property",
    ),
    **dict.fromkeys(
        ("regex", "regexp", "matches", "match", "glob", "ilike", "icontains"),
        "Polar knows no patterns: like finds a literal text in the property, upper and lower case differ",
    ),
    **dict.fromkeys(
        ("exists", "is_set", "present", "is_not_null", "not_null"),
        'write `operator: like` and `value: ""`, which every event with the property matches',
    ),
    **dict.fromkeys(
        ("not_exists", "is_not_set", "absent", "missing", "is_null"),
        "Polar cannot ask for it: no clause matches an event without the property",
    ),
}
_OTHER_CHOICES: Mapping[str, Mapping[str, str]] = {
    "operator": _OTHER_OPERATORS,
    "func": {
        **dict.fromkeys(
            ("last", "latest", "current"),
            "Polar has no last value: use max where the value only grows, or sum with events of what changed",
        ),
        **dict.fromkeys(
            ("first", "earliest"), "Polar has no first value: use min where the value only grows"
        ),
    },
    "conjunction": dict.fromkeys(("not", "none", "nor"), _OPPOSITE),
}
"""Advice for other tools' choices that Polar does not have."""
_CLAUSE = "belongs in a clause, in the list `clauses` of a filter"
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("and", "or"), "write it as `conjunction`, and its list as `clauses`"),
    "not": _OPPOSITE,
    **dict.fromkeys(
        ("event_name", "event_type", "event"),
        "write a clause in the filter, `{property: name, operator: eq, value: …}`",
    ),
    "prevent_destroy": "remove it: no meter is archived unless `archived: true` or --allow-archive says so",
    "create_before_destroy": "remove it: a meter is changed in place, and never replaced",
    "depends_on": "remove it: meters do not depend on one another",
    "organization_id": "belongs under environments, at the top of the file",
    **dict.fromkeys(("property", "operator", "value"), _CLAUSE),
    **dict.fromkeys(("conjunction", "clauses"), "belongs under filter"),
    "func": "belongs under aggregation",
    "ignore_changes": "belongs under lifecycle",
}
_MISSING_HINTS = {
    "version": ": begin the file with `version: 1`",
    "meters": ": write `meters: {}` if there are none",
    "server": ": write `server: production` or `server: sandbox`",
}
_SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(("=", "==", "equal", "equals", "is"), "eq"),
    **dict.fromkeys(("!=", "<>", "not", "neq", "not_equal", "not_equals"), "ne"),
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "contains": "like",
    "not_contains": "not_like",
    "like_not": "not_like",
    "average": "avg",
    "mean": "avg",
    "total": "sum",
    "maximum": "max",
    "minimum": "min",
    **dict.fromkeys(("distinct", "count_distinct", "count_unique", "unique_count"), "unique"),
    "all": "and",
    "any": "or",
}
"""Other tools' names for the choices."""


class NodeReader:
    """Typed values of one document.

    A method that finds a fault still returns a value of the right type. That value is never used, because any
    fault raises in the end. `elsewhere` holds advice for keys that belong somewhere else.
    """

    def __init__(self, document: tree.Document, elsewhere: Mapping[str, str] = _ELSEWHERE) -> None:
        self.document = document
        self._elsewhere = elsewhere
        self._faults: dict[tuple[int, str], Diagnostic] = {}

    def fault(self, node: tree.Node, message: str, about: tree.Node | None = None, rule: str = "") -> None:
        """Report a fault once per value, even if aliases repeat it, and never for what the parser reported.

        `about` is the value, when it is not the node that is shown. `rule` is the name of the lint rule that
        it breaks.
        """
        fault = (id(about or node), message)
        if node.blamed or fault in self._faults:
            return
        self._faults[fault] = self.document.diagnose(node, message, RULES[rule].title if rule else "")
        if len(self._faults) >= tree.MAX_PROBLEMS:
            self.finish()

    def finish(self) -> None:
        """Raise all faults that were found.

        Values that the parser already reported are not reported again.
        """
        reported = {problem.span for problem in self.document.problems}
        faults = [fault for fault in self._faults.values() if fault.span not in reported]
        if self.document.problems or faults:
            raise DiagnosticError([*self.document.problems, *faults])

    def keys(
        self, node: tree.Map, allowed: Sequence[str], required: Sequence[str], blamed: tree.Node
    ) -> None:
        """Report missing required keys, and unknown keys, each with the key that was probably meant."""
        meant = set()
        for key in node.keys:
            name = key.text
            if name in allowed or (name.startswith("x-") and "x-…" in allowed):
                continue
            guess = _meant_key(name, [other for other in allowed if other not in node.entries])
            words = _snake_case(name)
            if words in self._elsewhere and words not in allowed:
                hint = self._elsewhere[words]
            elif words in _OTHER_OPERATORS and "operator" in allowed:
                hint = _OTHER_OPERATORS[words]
            elif guess:
                hint = f"did you mean `{guess}`?"
                meant.add(guess)
            else:
                hint = f"expected {'one of ' if len(allowed) > 1 else ''}{', '.join(allowed)}"
            self.fault(key, f"unknown key `{clip(name)}`: {hint}")
        for name in required:
            if name not in node.entries and name not in meant and not node.blamed:
                self.fault(blamed, f"`{name}` is missing{_MISSING_HINTS.get(name, '')}", node)

    def map(self, node: tree.Node, what: str, example: str) -> tree.Map | None:
        if isinstance(node, tree.Map):
            return node
        self.fault(node, f"{what} must be a map such as `{example}`, got {describe(node)}")
        return None

    def list(self, node: tree.Node, what: str, example: str) -> list[tree.Node]:
        if isinstance(node, tree.List):
            return node.children
        self.fault(node, f"{what} must be a list such as `{example}`, got {describe(node)}")
        return []

    def text(self, node: tree.Node, what: str) -> str | None:
        """Return a text, or None (and a fault) for anything else."""
        value = node.value if isinstance(node, tree.Scalar) else None
        if type(value) is str:
            if "\0" not in value:
                return self.without_break(node, what, value) if value[-1:] == "\n" else value
            self.fault(node, f"{what} holds a NUL character: remove it", rule="invisible-character")
        elif isinstance(value, Grouped):
            return str(value)
        elif isinstance(value, Doubtful):
            word = word_of_yaml_1_1(value)
            message = f'{value} without quotes may be {word}: put it in quotes, "{value}"'
            self.fault(node, message if word else value.advice)
        else:
            hint = "" if value is None else ": put it in quotes"
            self.fault(node, f"{what} must be text, got {describe_text(node)}{hint}")
        return None

    def without_break(self, node: tree.Node, what: str, value: str) -> str:
        """Report a text of one line that ends with a line break because it is written as a block.

        A break that is written as an escape is meant. Returns the text without it.
        """
        mark = self.document.text[node.start : node.start + 1]
        if not value.endswith("\n") or mark not in ("|", ">"):
            return value
        message = f"{what} ends with a line break (U+000A), which `{mark}` keeps: write `{mark}-`"
        self.fault(node, message, rule="white-space")
        return value.rstrip("\n")

    def choice(self, node: tree.Node, what: str, choices: Sequence[str]) -> str:
        """Return one of `choices`. An empty text, or one that is not a choice, was reported."""
        text = self.text(node, what)
        if text is None:
            return ""
        if text not in choices:
            guess = _meant_choice(text, choices)
            advice = (
                f"did you mean {guess}?" if guess else _OTHER_CHOICES.get(what, {}).get(_snake_case(text))
            )
            hint = f": {advice}" if advice else ""
            self.fault(node, f"{what} must be one of {', '.join(choices)}, got {describe(node)}{hint}")
        return text

    def slug(self, node: tree.Node, what: str) -> str:
        """Return a name that can be part of the ownership marker, or an empty text after a fault."""
        text = self.text(node, what)
        if text is None or _SLUG.fullmatch(text):
            return text or ""
        valid = _snake_case(text).replace("_", "-")
        hint = f": write {valid}" if _SLUG.fullmatch(valid) else ""
        self.fault(node, f"{what} must be {_SLUG_RULE}, got {describe(node)}{hint}")
        return ""

    def uuid(self, node: tree.Node, what: str) -> str:
        """Return a UUID of version 4 in lower case, or an empty text after a fault.

        Polar answers any other id with a 422 (observed).
        """
        text = self.text(node, what)
        if text is None or UUID4.fullmatch(text):
            return (text or "").lower()
        self.fault(node, f"{what} must be a UUID of version 4, got {describe(node)}")
        return ""

    def json(self, node: tree.Node) -> Any:
        """Return any value as JSON has it."""
        if isinstance(node, tree.Map):
            return {name: self.json(value) for name, value in node.entries.items()}
        if isinstance(node, tree.List):
            return [self.json(value) for value in node.children]
        value = node.value
        if isinstance(value, Doubtful):
            self.fault(node, value.advice)
        elif isinstance(value, float) and not math.isfinite(value):
            self.fault(node, f"a number must be finite, got {describe(node)}")
        return value

    def boolean(self, node: tree.Node, what: str) -> bool:
        value = node.value if isinstance(node, tree.Scalar) else None
        if type(value) is not bool:
            word = word_of_yaml_1_1(value) if isinstance(value, str) else None
            hint = f": write {word}" if word else quotes_hint(node, bool)
            self.fault(node, f"{what} must be true or false, got {describe(node)}{hint}")
        return value is True


def _meant_key(name: str, allowed: Sequence[str]) -> str | None:
    """Return the key that was probably meant: misspelled, shortened (`op`, `label`), or written out.

    Other tools write `displayName` for `name`.
    """
    if len(name) > 1 and name.isalpha():
        near = [k for k in allowed if k.startswith(name) or k.endswith(f"_{name}") or name.startswith(k)]
        if len(near) == 1:
            return near[0]
    words = _snake_case(name)
    return nearest(words, tuple(allowed)) or next((k for k in allowed if words.endswith(f"_{k}")), None)


def _snake_case(text: str) -> str:
    """Return a name of another tool as Polar would write it. Example: `notLike` is `not_like`."""
    return _HUMP.sub("_", text[:100]).lower().replace("-", "_").replace(" ", "_")


def _meant_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the choice that was meant, if beyond doubt: a wrong guess would bill something else."""
    lower = _snake_case(text)
    choice = lower if lower in choices else _SYNONYMS.get(lower)
    if choice in choices:
        return choice
    guess = nearest(text, tuple(choices), 0.8) if len(text) >= 4 else None
    return guess if guess and len(guess) >= 4 and guess[0] == lower[0] else None


def several_values(operator: str) -> str:
    """Return how to compare with several values by an operator, which may be another tool's."""
    meant = _SEVERAL.get(_snake_case(operator)) or _meant_choice(operator, OPERATORS)
    return _one_clause_each(meant or "eq")


def quotes_hint(node: tree.Node, kind: type) -> str:
    """Return what to do about a number, or a true or false, that is in quotes."""
    quoted = isinstance(node, tree.Scalar) and not node.plain and type(resolve(node.text)) is kind
    return ": remove the quotes" if quoted else ""


def describe_text(node: tree.Node) -> str:
    """Describe a value where a text is expected."""
    return f"nothing: {node.hint}" if isinstance(node, tree.Nothing) else describe(node)


def describe(node: tree.Node) -> str:
    """Describe a value in everyday terms."""
    if isinstance(node, tree.List):
        return "a list"
    if isinstance(node, tree.Map):
        return "a map"
    value = node.value
    if value is None:
        return "null" if node.text else "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and node.text.lower().lstrip("+-") in (".inf", ".nan"):
        return node.text
    if isinstance(value, int | float):
        return f"the number {clip(node.text)}"
    return f'"{clip(value)}"'
