"""The pages of the lint rules: one for a terminal, and all as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from polar_iac.lint.registry import FAMILIES, RULES
from polar_iac.lint.rule import Rule

_INTRODUCTION = """\
# Lint rules

A meter can be valid and bill wrongly. `polar-iac validate` warns about that and shows the line; so do the
pre-commit hook, `plan` and the comment. Nothing here stops a plan or an apply. `validate` still exits 0, or 3
with `--strict`. Only `validate -v` shows infos. `polar-iac explain NAME` shows one page.

If a finding is intended, ignore its rule everywhere or on one line, by name or code. On a line, give a
reason:

```yaml
lint: {ignore: [negative-clause], strict: false}
```

```yaml
# polar-iac: ignore[quoted-number] our SDK sends text
- {property: tokens, operator: eq, value: "5"}
```

[Declared events](reference.md#declared-events) make the rules about types and properties certain. This
page is generated from `polar_iac/lint/registry.py`.
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
