"""Check as text and as JSON, and its sentences, which the action's issue also uses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from polar_iac.errors import SourceSpan
from polar_iac.facts import words
from polar_iac.facts.model import Gap, Price, Source
from polar_iac.plan.check import (
    Archived,
    BlockedKey,
    Check,
    Drifted,
    Finding,
    NeverCounted,
    Stopped,
    Uncounted,
    Watched,
)
from polar_iac.report.layout import display_width, paint
from polar_iac.report.wording import Quote, agree, listed, quantity
from polar_iac.sanitize import printable

FORMAT_VERSION = 1
_NAMES = 3
"""Most products, fields or keys that a line lists."""
_LINES = 20
"""Most event names that the text lists."""
_LARGE = 1e18
"""Quantity whose digits nobody reads any more."""
_REMARK_COLUMN = 60
"""Widest text that shifts the column of remarks, in columns."""
_BLOCKED: Mapping[str, str] = {
    "mismatch": "its record and its marker disagree",
    "duplicates": "several meters bear its marker, and more than one may bill",
    "unknown-id": "Polar does not know the id that is recorded",
    "unknown-parts": "Polar has parts of it that this version does not know",
    "import": "the meter that `import` names cannot be taken over",
    "unowned": "a meter without an owner is like it",
    "frozen": "it is frozen, and the manifest has another filter or aggregation",
    "unlisted": "it is gone from the manifest and still active",
    "elsewhere": "it is declared for other environments only, and active here",
    "limits": "Polar would refuse what the manifest says",
    "metadata-limit": "it would have too many metadata keys",
    "attached": "products or benefits use it, and it cannot be archived",
}
"""Short reasons, by the cause of a blocked change. `plan` shows the full reason."""
_LACKING: Mapping[Source, str] = {
    "usage": "what meters count",
    "names": "event names",
    "events": "events",
    "products": "prices",
    "benefits": "benefits",
}


@dataclass(frozen=True)
class Line:
    """A finding in words: its subject, the problem, and a remark."""

    subject: str
    text: str
    remark: str = ""


def day(moment: str, today: str) -> str:
    """Return the date of an RFC 3339 time as `Nov 24`, with the year if it is not the current one."""
    date_ = date.fromisoformat(moment[:10])
    text = words.short_day(date_)
    return text if moment[:4] == today[:4] else f"{text}, {date_.year}"


def line(finding: Finding, today: str, environment: str, quote: Quote) -> Line:
    """Say what is wrong. `today` is a date in UTC; `quote` makes a value safe where the line is shown."""
    match finding:
        case Stopped(watched, last, daily, prices):
            counted = "counted" if daily is None else f"counted {_amount(daily)} a day"
            text = f"{counted} until {day(last, today)}, nothing since."
            return Line(quote(watched.key), text, _price_on(prices, quote))
        case Uncounted(name):
            events = f"{quantity(name.occurrences, 'event')} since {day(name.first_seen, today)}"
            return Line(quote(name.name), f"{events}, counted by no meter.", _nearest(finding, quote))
        case Archived(watched, prices):
            since = day(watched.meter.archived_at or "", today)
            text = f"archived on {since}: it counts and bills nothing."
            return Line(quote(watched.key), text, _price_on(prices, quote))
        case NeverCounted(watched, prices):
            text = f"counted nothing since it was created on {day(watched.meter.created_at, today)}."
            remarks = [_unseen(finding, quote), _price_on(prices, quote) if prices else ""]
            return Line(quote(watched.key), text, " ".join(filter(None, remarks)))
        case BlockedKey(change):
            reason = _BLOCKED.get(change.cause or "", "an apply leaves it as it is")
            return Line(
                quote(change.key), f"blocked: {reason}.", f"See: {quote(f'polar-iac plan -e {environment}')}"
            )
        case Drifted(meter):
            paths = listed([quote(field.path) for field in meter.fields], _NAMES)
            what = f"changed at Polar since the last apply: {paths}." if paths else "cannot be compared."
            return Line(quote(meter.key), what, f"See: {quote(f'polar-iac drift -e {environment}')}")


def _unseen(finding: NeverCounted, quote: Quote) -> str:
    if finding.unseen is None:
        return ""
    nearest = f"; nearest: {quote(finding.nearest)}" if finding.nearest is not None else ""
    return f"No event is named {quote(finding.unseen)}{nearest}."


def source(finding: Finding) -> SourceSpan | None:
    """Return the place in the manifest that a finding is about, if there is one."""
    match finding:
        case Uncounted():
            return None
        case BlockedKey(change):
            return change.source
        case Drifted(meter):
            return meter.source
        case _:
            return finding.watched.source


def _amount(daily: float) -> str:
    """Return a daily quantity as a whole number, or with a decimal if it is small. Usage is never 0."""
    rounded = round(daily, 1)
    if not rounded or abs(rounded) >= _LARGE:
        return f"{daily:.1g}"
    return f"{rounded:,.0f}" if abs(rounded) >= 10 or rounded.is_integer() else f"{rounded:,}"


def _price_on(prices: Sequence[Price] | None, quote: Quote) -> str:
    if prices is None:
        return "Prices are not known."
    return f"Price on: {_products(prices, quote)}"


def _products(prices: Sequence[Price], quote: Quote) -> str:
    names = list(dict.fromkeys(price.product for price in prices))
    more = [f"{len(names) - _NAMES:,} more"] if len(names) > _NAMES else []
    return ", ".join([*map(quote, names[:_NAMES]), *more])


def _nearest(finding: Uncounted, quote: Quote) -> str:
    if finding.nearest is None or finding.meter is None:
        return ""
    meter = quote(finding.key) if finding.key else f"meter {quote(finding.meter.name)}"
    return f"Nearest: {quote(finding.nearest)} ({meter})"


# Text


def check_text(check: Check, manifest_file: str) -> str:
    """Return what is wrong in one environment, one line each, and what could not be checked."""
    return "".join(f"{one}\n" for one in _lines(check, manifest_file))


def _lines(check: Check, manifest_file: str) -> Iterator[str]:
    drift = check.drift
    organization = f" · organization {drift.organization_id[:8]}" if drift.organization_id else ""
    yield f"{printable(manifest_file)} → {drift.environment}{organization}"
    yield ""
    if check.findings:
        yield from _table(check)
        yield ""
    if check.gaps:
        yield f"not checked: {not_checked(check.gaps, printable)}"
    yield summary(check)


def _table(check: Check) -> Iterator[str]:
    """Yield a line for each finding, in columns. Event names beyond the first ones are only counted."""
    shown, rest = first_names(check.findings, _LINES)
    lines = [line(one, check.as_of[:10], check.drift.environment, printable) for one in shown]
    subject = max(display_width(one.subject) for one in lines)
    widths = [display_width(one.text) for one in lines if one.remark]
    text = max((width for width in widths if width <= _REMARK_COLUMN), default=0)
    for one in lines:
        name = one.subject + " " * (subject - display_width(one.subject))
        gap = " " * (max(0, text - display_width(one.text)) + 3) if one.remark else ""
        yield f"{paint('blocked', f'! {name}')}  {one.text}{gap}{one.remark}"
    if rest:
        yield f"  and {quantity(rest, 'more event name')} that no meter counts"


def first_names(findings: Sequence[Finding], most: int) -> tuple[list[Finding], int]:
    """Return the findings with only the first event names, and the number of names left out."""
    names = [one for one in findings if isinstance(one, Uncounted)]
    left_out = set(map(id, names[most:]))
    return [one for one in findings if id(one) not in left_out], len(left_out)


def summary(check: Check) -> str:
    """Sum up the check in one line."""
    count = len(check.findings)
    looked = f"{quantity(check.watched, 'meter')} {agree(check.watched, 'was', 'were')} looked at."
    if count:
        return f"Check: {quantity(count, 'thing')} {agree(count, 'is', 'are')} wrong. {looked}"
    far = " in what could be read" if check.gaps else ""
    return f"Check: nothing is wrong{far}. {looked}"


def not_checked(gaps: Sequence[Gap], quote: Quote) -> str:
    """Say in one line what could not be checked, and why. Each reason appears once."""
    by_reason: dict[str, list[str]] = {}
    for gap in gaps:
        what = _LACKING[gap.source]
        if gap.keys:
            what = f"what {listed([quote(key) for key in gap.keys], _NAMES)} {_counts(len(gap.keys))}"
        by_reason.setdefault(gap.text, []).append(what)
    return "; ".join(f"{listed(what)} ({quote(reason)})" for reason, what in by_reason.items())


def _counts(number: int) -> str:
    return "counts" if number == 1 else "count"


# JSON


def check_json(checks: Sequence[Check]) -> str:
    """Return the documented JSON: pure ASCII, one entry for each environment that could be read."""
    document = {"format_version": FORMAT_VERSION, "check": [_document(check) for check in checks]}
    return json.dumps(document, indent=2) + "\n"


def _document(check: Check) -> dict[str, Any]:
    drift = check.drift
    return {
        "environment": drift.environment,
        "organization_id": drift.organization_id,
        "project": drift.project,
        "manifest": drift.manifest,
        "lockfile": drift.lockfile,
        "as_of": check.as_of,
        "watched": check.watched,
        "drifted": len(drift.meters),
        "findings": [_finding(one, check) for one in check.findings],
        "not_checked": [
            {"source": gap.source, "lack": gap.lack, "text": gap.text, "keys": list(gap.keys)}
            for gap in check.gaps
        ],
        "requests": check.requests,
    }


def _finding(finding: Finding, check: Check) -> dict[str, Any]:
    said = line(finding, check.as_of[:10], check.drift.environment, str)
    text = f"{said.text} {said.remark}".rstrip()
    data: dict[str, Any]
    match finding:
        case Stopped(watched, last, daily, prices):
            data = {"last": last, "daily": daily, "products": _product_documents(prices)}
            return {"kind": "stopped", **_of_meter(watched), "text": text, "data": data}
        case Archived(watched, prices):
            data = {"archived_at": watched.meter.archived_at, "products": _product_documents(prices)}
            return {"kind": "archived", **_of_meter(watched), "text": text, "data": data}
        case NeverCounted(watched, prices, unseen, nearest):
            data = {
                "created_at": watched.meter.created_at,
                "products": _product_documents(prices),
                "unseen": unseen,
                "nearest": nearest,
            }
            return {"kind": "never-counted", **_of_meter(watched), "text": text, "data": data}
        case Uncounted():
            about = {"key": None, "id": None, "name": None, "source": None}
            return {"kind": "uncounted", **about, "text": text, "data": _uncounted(finding)}
        case BlockedKey(change):
            kind = "frozen" if change.cause == "frozen" else "blocked"
            data = {"cause": change.cause, "reason": change.reason}
            about = _about(change.key, change.id, change.name, change.source)
            return {"kind": kind, **about, "text": text, "data": data}
        case Drifted(meter):
            data = {"fields": [field.path for field in meter.fields], "reason": meter.reason}
            about = _about(meter.key, meter.id, meter.name, meter.source)
            return {"kind": "drift", **about, "text": text, "data": data}


def _uncounted(finding: Uncounted) -> dict[str, Any]:
    name, meter = finding.name, finding.meter
    nearest = meter and {
        "event": finding.nearest,
        "key": finding.key,
        "id": meter.id,
        "name": meter.name,
    }
    return {
        "event": name.name,
        "occurrences": name.occurrences,
        "first_seen": name.first_seen,
        "last_seen": name.last_seen,
        "nearest": nearest,
    }


def _of_meter(watched: Watched) -> dict[str, Any]:
    return _about(watched.key, watched.meter.id, watched.meter.name, watched.source)


def _about(key: str, meter_id: str | None, name: str, span: SourceSpan | None) -> dict[str, Any]:
    return {"key": key, "id": meter_id, "name": name, "source": span and span.json}


def _product_documents(prices: Sequence[Price] | None) -> list[dict[str, Any]] | None:
    if prices is None:
        return None
    return [
        {
            "id": price.product_id,
            "name": price.product,
            "price_id": price.id,
            "unit_amount": price.unit_amount,
        }
        for price in prices
    ]
