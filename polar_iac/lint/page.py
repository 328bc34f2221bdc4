"""The pages of the lint rules: one for a terminal, and all as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from polar_iac.lint.registry import FAMILIES, RULES
from polar_iac.lint.rule import Rule

_INTRODUCTION = """\
# Lint rules

A meter can be valid and bill wrongly. `polar-iac validate` warns of that, with the line; so do the pre-commit
hook, `plan` and the comment. Nothing here stops a plan or an apply, and `validate` still exits 0, unless
`--strict` lets it exit 3. Infos are shown by `validate -v` alone. `polar-iac explain NAME` shows one page.

What is meant is ignored, everywhere or on one line. A line needs a reason, and names or codes will do:

```yaml
lint: {ignore: [negative-clause], strict: false}
```

```yaml
# polar-iac: ignore[quoted-number] our SDK sends text
- {property: tokens, operator: eq, value: "5"}
```

[Declared events](reference.md#declared-events) make the rules about types and properties certain. This
page is made of `polar_iac/lint/registry.py`.
"""


def rule_text(rule: Rule) -> str:
    """Return the page of a rule as plain text."""
    return "\n".join(
        [
            f"{rule.title} ({_severity(rule)}, {FAMILIES[rule.family]})",
            "",
            rule.what,
            rule.why,
            "",
            "Bad:",
            *_indented(rule.bad),
            "",
            "Good:",
            *_indented(rule.good),
            "",
        ]
    )


def _severity(rule: Rule) -> str:
    return "error" if rule.refused else rule.severity


def _indented(text: str) -> Iterator[str]:
    yield from (f"    {line}" for line in text.split("\n"))


def rules_markdown() -> str:
    """Return the pages of all rules, after how they are used."""
    parts = [_INTRODUCTION, "| code | name | severity | finds |", "|---|---|---|---|"]
    parts += [
        f"| {rule.code} | [{rule.name}](#{rule.code.lower()}-{rule.name}) | {_severity(rule)} | {rule.what} |"
        for rule in RULES.values()
    ]
    for code, title in FAMILIES.items():
        parts += ["", f"## {code}: {title}"]
        for rule in RULES.values():
            if rule.family == code:
                parts += ["", *_section(rule)]
    return "\n".join(parts) + "\n"


def _section(rule: Rule) -> Iterator[str]:
    yield f"### {rule.code} {rule.name}"
    yield from ("", f"{rule.what} *({_severity(rule)})*", "", rule.why, "")
    yield from ("Bad:", "", "```yaml", rule.bad, "```", "", "Good:", "", "```yaml", rule.good, "```")
