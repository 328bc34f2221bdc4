"""Findings of lint in a manifest: with positions, and without those that are ignored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from polar_iac.errors import Diagnostic, Severity, SourceSpan
from polar_iac.lint.checks import meter_findings, pair_findings, rules_for
from polar_iac.lint.overlap import Declared
from polar_iac.lint.registry import RULES, nearest_rule
from polar_iac.lint.rule import Finding, Rule
from polar_iac.lint.subject import Subject
from polar_iac.lint.unremarkable import is_unremarkable
from polar_iac.manifest.ignores import Ignore, read_ignores
from polar_iac.manifest.model import DesiredMeter, Manifest


@dataclass(frozen=True)
class PlacedFinding:
    """A finding about the meter `key`, at its position in the manifest."""

    key: str
    finding: Finding
    span: SourceSpan

    @property
    def rule(self) -> Rule:
        return RULES[self.finding.rule]


def findings_of(manifest: Manifest, changed: Collection[str]) -> list[PlacedFinding]:
    """Return the warnings about some meters, for a plan that changes them. Infos are not for plans."""
    return _kept(_found(manifest, changed, infos=False), read_ignores(manifest.document))


def diagnostics(manifest: Manifest, *, infos: bool = False) -> list[Diagnostic]:
    """Return what lint finds in the whole manifest, by position, and what is wrong with comments that ignore.

    What several meters share by an anchor is reported once.
    """
    ignores = read_ignores(manifest.document)
    # An info that is ignored has to be found, or the comment would seem unused.
    deep = infos or any(RULES[name].severity == "info" for ignore in ignores for name in ignore.rules)
    found = _found(manifest, None, infos=deep)
    kept = [f for f in _kept(found, ignores) if infos or f.rule.severity == "warning"]
    shown = dict.fromkeys(_diagnostic(manifest, f.span, f.finding.message, f.rule.name) for f in kept)
    return sorted([*shown, *_faults(manifest, ignores, found)])


def _diagnostic(manifest: Manifest, span: SourceSpan, message: str, rule: str) -> Diagnostic:
    severity: Severity = RULES[rule].severity
    return manifest.document.diagnose_span(span, message, severity, RULES[rule].title)


def _found(manifest: Manifest, changed: Collection[str] | None, *, infos: bool) -> list[PlacedFinding]:
    rules = rules_for(manifest.lint.ignore, infos=infos)
    found: list[PlacedFinding] = []

    def place(meter: DesiredMeter, finding: Finding) -> None:
        found.append(PlacedFinding(meter.key, finding, manifest.span(meter.key, finding.path)))

    for key, meter in manifest.meters.items():
        if meter.spec.archived or (changed is not None and key not in changed):
            continue  # What is archived bills nobody, rightly or wrongly.
        if not infos and not manifest.events and is_unremarkable(meter.spec):
            continue
        for finding in meter_findings(Subject(meter.spec, manifest.events), rules):
            place(meter, finding)
    declared = [Declared(meter.key, meter.spec, meter.environments) for meter in manifest.meters.values()]
    for key, finding in pair_findings(declared, rules, changed):
        if changed is None or key in changed:
            place(manifest.meters[key], finding)
    return found


def _kept(found: Sequence[PlacedFinding], ignores: Sequence[Ignore]) -> list[PlacedFinding]:
    """Return the findings that no comment with a reason ignores."""
    ignored = {(ignore.line, name) for ignore in ignores if ignore.reason for name in ignore.rules}
    return [f for f in found if (f.span.line, f.rule.name) not in ignored]


def _faults(
    manifest: Manifest, ignores: Sequence[Ignore], found: Sequence[PlacedFinding]
) -> Iterator[Diagnostic]:
    """Yield what is wrong with the comments that ignore."""
    there = {(f.span.line, f.rule.name) for f in found}

    def fault(ignore: Ignore, rule: str, message: str) -> Iterator[Diagnostic]:
        if rule not in manifest.lint.ignore:
            yield _diagnostic(manifest, ignore.span, message, rule)

    for ignore in ignores:
        for word in ignore.unknown:
            guess = nearest_rule(word)
            hint = f": did you mean {guess}?" if guess else ""
            yield from fault(ignore, "unknown-ignore", f"there is no rule {word}{hint}")
        if not ignore.rules and not ignore.unknown:
            yield from fault(ignore, "unknown-ignore", "this names no rule: write one between the brackets")
        elif not ignore.reason:
            yield from fault(
                ignore, "ignore-without-reason", "say why after the bracket: until then, nothing is ignored"
            )
        for name in ignore.rules if ignore.reason else ():
            # Only some pairs are looked at for this one, so that nothing is known of others.
            if (
                (ignore.line, name) not in there
                and name not in manifest.lint.ignore
                and name != "implied-meter"
            ):
                message = f"line {ignore.line} has nothing that {name} finds: remove this"
                yield from fault(ignore, "unused-ignore", message)
