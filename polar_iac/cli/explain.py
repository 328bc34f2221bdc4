"""The command `explain`."""

from __future__ import annotations

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.output import print_result
from polar_iac.errors import ExitCode
from polar_iac.lint.page import rule_text
from polar_iac.lint.registry import RULES, nearest_rule, rule_of


@command
@click.argument("names", metavar="[RULE...]", nargs=-1)
def explain(common: options.Options, names: tuple[str, ...]) -> ExitCode:  # noqa: ARG001
    """Explain lint rules, by name or code; without one, list them.

    A page says what the rule finds, why that bills wrongly, and shows a bad and a good example.
    """
    if not names:
        width = max(map(len, RULES))
        print_result("".join(f"{r.code}  {r.name:{width}}  {r.what}\n" for r in RULES.values()))
        return ExitCode.OK
    rules = [rule_of(name) for name in names]
    for name, rule in zip(names, rules, strict=True):
        if rule is None:
            guess = nearest_rule(name)
            hint = f"did you mean {guess}?" if guess else "`polar-iac explain` lists all of them"
            raise click.UsageError(f"there is no rule {name}: {hint}")
    print_result("\n".join(rule_text(rule) for rule in rules if rule))
    return ExitCode.OK
