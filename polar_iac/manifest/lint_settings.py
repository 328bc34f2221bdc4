"""Block `lint`: rules that are ignored everywhere, and if warnings fail `validate`."""

from __future__ import annotations

from polar_iac.lint.registry import nearest_rule, rule_of
from polar_iac.manifest.model import LintSettings
from polar_iac.manifest.node_reader import NodeReader, describe
from polar_iac.yaml import tree


def read_lint(reader: NodeReader, node: tree.Node) -> LintSettings:
    """Return the settings. Reports faults to the reader."""
    settings = reader.map(node, "lint", "{ignore: [negative-clause], strict: true}")
    if settings is None:
        return LintSettings()
    entries = settings.entries
    reader.keys(settings, ("ignore", "strict"), (), settings)
    ignored = set[str]()
    if "ignore" in entries:
        for item in reader.list(entries["ignore"], "ignore", "[negative-clause]"):
            ignored.add(_rule(reader, item))
    strict = "strict" in entries and reader.boolean(entries["strict"], "strict")
    return LintSettings(frozenset(ignored - {""}), strict)


def _rule(reader: NodeReader, node: tree.Node) -> str:
    """Return the name of a rule, given its name or code, or an empty text after a fault."""
    text = reader.text(node, "a rule")
    if text is None:
        return ""
    rule = rule_of(text)
    if rule is None:
        guess = nearest_rule(text)
        hint = f"did you mean {guess}?" if guess else "docs/lint-rules.md has all of them"
        reader.fault(node, f"there is no rule {describe(node)}: {hint}")
    elif rule.refused:
        reader.fault(node, f"{rule.name} is an error, and cannot be ignored: remove this")
    else:
        return rule.name
    return ""
