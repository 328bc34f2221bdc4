"""Lint rules as data: the code, the name and the page of each. Their checks are in the other modules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from polar_iac.lint.rule import SHARED, Rule, declared, ignoring, two_meters
from polar_iac.yaml.scalars import nearest

FAMILIES: Mapping[str, str] = {
    "PI1": "never or always",
    "PI2": "types",
    "PI3": "reach",
    "PI4": "surprise",
    "PI5": "overlap",
    "PI6": "text",
    "PI9": "ignores",
}
"""Titles of the families, by the beginning of their codes."""

_RULES = (
    Rule(
        "PI101",
        "never-matches",
        "warning",
        "A filter, a group or a clause that matches no event.",
        "It bills nobody, and Polar says nothing. The value has the wrong type for the event's own "
        "field, or two "
        "clauses under `and` contradict each other, or no text can be less than an empty one.",
        "{property: name, operator: eq, value: 5}",
        '{property: name, operator: eq, value: "5"}',
    ),
    Rule(
        "PI102",
        "always-matches",
        "warning",
        "A filter or a group that matches every event, or every event that has the property.",
        "It bills for what was meant to be left out: an event is always unequal to one of two "
        "values, and a group "
        "without clauses matches everything.",
        "filter:\n"
        "  conjunction: or\n"
        "  clauses:\n"
        "    - {property: model, operator: ne, value: small}\n"
        "    - {property: model, operator: ne, value: tiny}",
        "filter:\n"
        "  conjunction: and\n"
        "  clauses:\n"
        "    - {property: model, operator: ne, value: small}\n"
        "    - {property: model, operator: ne, value: tiny}",
    ),
    Rule(
        "PI103",
        "redundant-clause",
        "info",
        "A clause or a group without which the filter matches the same events. This is proven.",
        "The bill is right, but whoever edits the clause later expects the bill to change.",
        "filter:\n"
        "  conjunction: and\n"
        "  clauses:\n"
        "    - {property: tokens, operator: gt, value: 10}\n"
        "    - {property: tokens, operator: gt, value: 5}",
        "filter:\n  conjunction: and\n  clauses:\n    - {property: tokens, operator: gt, value: 10}",
    ),
    Rule(
        "PI201",
        "quoted-number",
        "warning",
        "A number in quotes, compared with a property of the metadata.",
        "In quotes it is a text. When events are billed, a text equals no number, is never greater and never "
        "less, and every number is unequal to it.",
        '{property: tokens, operator: gt, value: "100"}',
        "{property: tokens, operator: gt, value: 100}",
    ),
    Rule(
        "PI202",
        "quoted-boolean",
        "warning",
        "A true or false in quotes, compared with a property of the metadata.",
        "In quotes it is a text, which equals no true and no false.",
        '{property: cached, operator: eq, value: "false"}',
        "{property: cached, operator: eq, value: false}",
    ),
    Rule(
        "PI203",
        "text-order",
        "warning",
        "An order operator (`gt`, `gte`, `lt`, `lte`) with a text.",
        'Texts are compared letter by letter, so that "10" is less than "9", and a number is never greater. '
        "Balances sort by the database's language, and may count other events than invoices.",
        "{property: plan, operator: gte, value: pro}",
        "{property: plan, operator: eq, value: pro}",
    ),
    Rule(
        "PI204",
        "boolean-order",
        "warning",
        "A true or false with an order operator, or compared with a timestamp.",
        "Polar stores it when a meter is changed, and then fails to compute the meter. Creating such a meter "
        "fails with a 500.",
        "{property: cached, operator: gt, value: false}",
        "{property: cached, operator: eq, value: true}",
        refused=True,
    ),
    Rule(
        "PI205",
        "aggregated-text",
        "warning",
        "The `sum`, `max`, `min` or `avg` of something that is not a number.",
        "Only numbers are aggregated. The result is 0, and so is the bill.",
        "aggregation: {func: sum, property: name}",
        "aggregation: {func: sum, property: tokens}",
    ),
    Rule(
        "PI206",
        "unique-own-field",
        "warning",
        "`unique` of `name`, `source` or `timestamp`.",
        "`unique` looks in the metadata alone: it counts a property of that name there, which "
        "few events have.",
        "aggregation: {func: unique, property: name}",
        "aggregation: {func: unique, property: user_id}",
    ),
    Rule(
        "PI207",
        "implausible-timestamp",
        "warning",
        "A `timestamp` compared with a number that is unlikely to be a time in this century.",
        "A timestamp is compared in seconds since 1970. The number 20250101 is a day in August 1970, and "
        "milliseconds do not fit into the 32 bits that Polar takes.",
        "{property: timestamp, operator: gte, value: 20250101}",
        "{property: timestamp, operator: gte, value: 1735689600}",
    ),
    Rule(
        "PI208",
        "wrong-type",
        "warning",
        "A property of a declared event, compared with a value of another type.",
        "`events` says what type the property has. A value of another type equals none of them.",
        declared("model: string", "{property: model, operator: eq, value: 4}"),
        declared("model: string", '{property: model, operator: eq, value: "4"}'),
    ),
    Rule(
        "PI301",
        "nested-property",
        "warning",
        "A property with a dot, other than `_cost.…` and `_llm.…`.",
        "A dot walks into an object, and the metadata of a user's event is flat: no event has such "
        "a property, "
        "ever. A key that has a dot itself is out of reach.",
        "{property: usage.tokens, operator: gt, value: 0}",
        "{property: usage_tokens, operator: gt, value: 0}",
    ),
    Rule(
        "PI302",
        "unreachable-property",
        "warning",
        "A property that a filter cannot reach, or that is written in a way Polar does not understand.",
        "A filter sees `name`, `source`, `timestamp` and the metadata. It looks for anything else "
        "in the metadata, "
        "finds nothing there, and bills nobody.",
        "{property: event_name, operator: eq, value: api.request}",
        "{property: name, operator: eq, value: api.request}",
    ),
    Rule(
        "PI303",
        "pattern-in-like",
        "warning",
        "A pattern of SQL, of a shell, or a regular expression, with `like` or `not_like`.",
        "`like` finds a literal text anywhere in the property. With a wildcard in it, it finds "
        "only events that "
        "have this very character.",
        '{property: model, operator: like, value: "gpt-4%"}',
        "{property: model, operator: like, value: gpt-4}",
    ),
    Rule(
        "PI304",
        "undeclared-property",
        "warning",
        "A property that the declared event does not have.",
        "`events` says which properties the event has. A misspelt one matches nothing.",
        declared("tokens: integer", "{property: token, operator: gt, value: 4}"),
        declared("tokens: integer", "{property: tokens, operator: gt, value: 4}"),
    ),
    Rule(
        "PI305",
        "undeclared-event",
        "warning",
        "An event name that is almost a declared one.",
        "A misspelt name matches nothing.",
        declared("tokens: integer", "{property: tokens, operator: gt, value: 4}", "llm.completions"),
        declared("tokens: integer", "{property: tokens, operator: gt, value: 4}", "llm.completion"),
    ),
    Rule(
        "PI401",
        "system-source",
        "warning",
        "A filter that takes only events of the source `system`.",
        "Polar makes these events itself. Dashboards count them, and invoices never do.",
        "{property: source, operator: eq, value: system}",
        "{property: source, operator: eq, value: user}",
    ),
    Rule(
        "PI402",
        "negative-clause",
        "info",
        "A clause with `ne` or `not_like`.",
        "It leaves out the events that lack the property: `cached ne true` does not count an event "
        "without `cached`.",
        "{property: cached, operator: ne, value: true}",
        "{property: cached, operator: eq, value: false}",
    ),
    Rule(
        "PI403",
        "negative-alone",
        "info",
        "A filter that says only what events are not.",
        "Every other event that has the property is billed, those that are invented later too.",
        "filter:\n  conjunction: and\n  clauses: [{property: path, operator: not_like, value: /health}]",
        "filter:\n"
        "  conjunction: and\n"
        "  clauses:\n"
        "    - {property: name, operator: eq, value: api.request}\n"
        "    - {property: path, operator: not_like, value: /health}",
    ),
    Rule(
        "PI404",
        "engines-disagree",
        "info",
        "A clause that billing and `/quantities` read differently, for an event that can be sent.",
        "Invoices and balances then show different numbers. Example: where `tokens` is the text "
        '"150", billing '
        "does not match `tokens gt 100`, and `/quantities` does.",
        "{property: tokens, operator: gt, value: 100}",
        "{property: model, operator: eq, value: large}",
    ),
    Rule(
        "PI405",
        "display-multiplier",
        "info",
        "A `custom_multiplier`.",
        "It changes what customers read, and nothing else: prices stay per single unit.",
        "unit: custom\ncustom_label: minute\ncustom_multiplier: 60",
        "unit: custom\ncustom_label: second",
    ),
    Rule(
        "PI406",
        "per-customer",
        "info",
        "The aggregation `avg`, `max` or `unique`.",
        "It is computed for each customer and each period. The numbers of two periods or customers "
        "do not add up.",
        "aggregation: {func: max, property: bytes}",
        "aggregation: {func: sum, property: bytes}",
    ),
    Rule(
        "PI501",
        "equal-meters",
        "warning",
        "Two meters that count the same.",
        "A product with a price on each bills the same usage twice.",
        SHARED + "  requests: {name: Requests, filter: *calls, aggregation: {func: count}}",
        SHARED + "  bytes: {name: Bytes, filter: *calls, aggregation: {func: sum, property: bytes}}",
    ),
    Rule(
        "PI502",
        "same-name",
        "warning",
        "Two meters with one name.",
        "In the dashboard and on invoices nobody can tell them apart, and one may get the price of "
        "the other.",
        SHARED + "  bytes: {name: Calls, filter: *calls, aggregation: {func: sum, property: bytes}}",
        SHARED + "  bytes: {name: Bytes, filter: *calls, aggregation: {func: sum, property: bytes}}",
    ),
    Rule(
        "PI503",
        "implied-meter",
        "info",
        "A meter whose events another meter counts too, with the same aggregation.",
        "A product with a price on each bills these events twice.",
        two_meters("{property: n, operator: gt, value: 1}", "{property: n, operator: gt, value: 5}"),
        two_meters("{property: n, operator: lte, value: 5}", "{property: n, operator: gt, value: 5}"),
    ),
    Rule(
        "PI601",
        "white-space",
        "warning",
        "A text that begins or ends with white space, or that holds a line break.",
        "Nobody sees it, and no event's text equals it.",
        '{property: name, operator: eq, value: "api.request "}',
        "{property: name, operator: eq, value: api.request}",
    ),
    Rule(
        "PI602",
        "invisible-character",
        "warning",
        "A text with a character that is not shown, such as a zero width space.",
        "Nobody sees it, and no event's text equals it. It comes with text that is copied from a "
        "page or a chat.",
        '{property: name, operator: eq, value: "api\\u200b.request"}',
        "{property: name, operator: eq, value: api.request}",
    ),
    Rule(
        "PI603",
        "typographic-character",
        "warning",
        "A text with a typographic sign where programs write a plain one: a curly quote, a long "
        "dash, a wide space.",
        "Events are sent by programs, which write plain ones. The text equals none of theirs.",
        '{property: model, operator: eq, value: "gpt\\u20134"}',
        "{property: model, operator: eq, value: gpt-4}",
    ),
    Rule(
        "PI604",
        "look-alike-character",
        "warning",
        "A word with a letter of another alphabet that looks like a Latin one.",
        "To people the texts are the same, and to Polar they are not.",
        '{property: model, operator: eq, value: "m\\u043edel"}',
        "{property: model, operator: eq, value: model}",
    ),
    Rule(
        "PI901",
        "ignore-without-reason",
        "warning",
        "A comment `# polar-iac: ignore[…]` without a reason.",
        "Who reads it later cannot tell if it still holds. Without a reason nothing is ignored.",
        ignoring(" # polar-iac: ignore[quoted-number]", "1"),
        ignoring("", "1"),
    ),
    Rule(
        "PI902",
        "unknown-ignore",
        "warning",
        "A comment that ignores a rule that does not exist.",
        "It ignores nothing.",
        ignoring(" # polar-iac: ignore[quoted-nubmer] the SDK sends text", "1"),
        ignoring(" # polar-iac: ignore[quoted-number] the SDK sends text", '"1"'),
    ),
    Rule(
        "PI903",
        "unused-ignore",
        "warning",
        "A comment that ignores what its line does not have.",
        "What it was for is gone. If it stays, it hides the next mistake on this line.",
        ignoring(" # polar-iac: ignore[quoted-number] the SDK sends text", "1"),
        ignoring(" # polar-iac: ignore[quoted-number] the SDK sends text", '"1"'),
    ),
)

RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}
"""All rules, by name, in the order of their codes."""


@cache
def _by_word() -> Mapping[str, Rule]:
    return {word: rule for rule in _RULES for word in (rule.name, rule.code.lower())}


def rule_of(word: str) -> Rule | None:
    """Return the rule of this name or code, in upper or lower case."""
    return _by_word().get(word.strip().lower())


def nearest_rule(word: str) -> str | None:
    """Return the name of the rule that was probably meant."""
    return nearest(word, tuple(RULES))
