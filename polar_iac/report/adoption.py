"""Meters that no manifest owns, and the outcome of an import, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from polar_iac.manifest.adopt import Adoption, NearMiss
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.spec import MeterSpec
from polar_iac.report.filters import aggregation, expression, filter_of
from polar_iac.report.wording import agree, listed, quantity, value

_LONGEST = 300
"""Characters of a definition that a list shows. A filter may have thousands of clauses."""
OF_ALL_TIME = ("avg", "unique")
"""Functions whose total Polar computes over all time, whatever days are asked for (observed)."""


def unowned_text(meters: Sequence[LiveMeter], usage: Mapping[str, float | None], days: int) -> str:
    """Return the list of meters that no manifest owns. `usage` holds quantities by id, of those asked for."""
    lines = []
    for meter in meters:
        lines.append(f"{meter.id}  {value(meter.name)}")
        counted, *unit = _definition(meter.spec)
        facts = [*unit, f"created {meter.created_at[:10]}"]
        facts += [f"archived {meter.archived_at[:10]}"] if meter.archived_at else []
        facts += [_usage(meter.spec, usage[meter.id], days)] if meter.id in usage else []
        lines += [f"    {counted}", f"    {', '.join(facts)}"]
    return "".join(f"{line}\n" for line in lines)


def _definition(spec: MeterSpec | None) -> list[str]:
    if spec is None:
        return ["has parts that this version does not know"]
    counted = f"{aggregation(spec.canonical['aggregation'])} over {expression(filter_of(spec))}"
    counted = counted if len(counted) <= _LONGEST else f"{counted[: _LONGEST - 1]}…"
    unit = f"unit {value(spec.custom_label)}" if spec.custom_label else f"unit {spec.unit}"
    multiplier = f" × {spec.custom_multiplier:,}" if spec.custom_multiplier else ""
    return [counted, f"{unit}{multiplier}"]


def _usage(spec: MeterSpec | None, total: float | None, days: int) -> str:
    span = "of all time" if spec and spec.aggregation.func in OF_ALL_TIME else f"in the last {days} days"
    return f"usage {span}: {'unknown' if total is None else f'{total:,.10g}'}"


def adoption_text(adoption: Adoption, command: str, verb: str) -> str:
    """Return the outcome of an import. `command` imports one more meter; `verb` says what was done."""
    lines = []
    for meters, where in ((adoption.new, "under a new key"), (adoption.known, "under a declared key")):
        if meters:
            lines.append(f"{verb} {quantity(len(meters), 'meter')} {where}:")
            lines += [f"  {key}  {meter.id}  {value(meter.name)}" for key, meter in meters.items()]
    if adoption.near:
        count = len(adoption.near)
        which = agree(count, "it resembles a meter", "they resemble meters")
        lines.append(f"Left out {quantity(count, 'meter')}, since {which} of the manifest:")
        for miss in adoption.near:
            lines += [f"  {line}" for line in _near_miss(miss, command)]
    if adoption.left_out:
        lines.append(f"Left out {quantity(len(adoption.left_out), 'meter')} that a manifest cannot declare:")
        lines += [f"  {meter.id}  {value(meter.name)}: {reason}" for meter, reason in adoption.left_out]
    return "".join(f"{line}\n" for line in lines)


def _near_miss(miss: NearMiss, command: str) -> Iterator[str]:
    keys = listed([f"`{key}`" for key in miss.keys])
    declare = agree(len(miss.keys), "declares", "declare")
    likeness = {
        "name": f"has the name of {keys}, and another filter or aggregation",
        "meaning": f"has the filter and aggregation of {keys}, and another name",
        "several": f"is as {keys} {declare}, and not the only one",
        "elsewhere": f"is as {keys} {declare} for other environments only",
    }
    yield f"{miss.meter.id}  {value(miss.meter.name)} {likeness[miss.likeness]}"
    for key in miss.keys:
        way = (
            f"add this environment to the `environments` of `{key}`, and import it again"
            if miss.likeness == "elsewhere"
            else f"{command} {miss.meter.id} --key {key}"
        )
        yield f"  if it is the same meter:  {way}"
    yield f"  if it is another meter:   {command} {miss.meter.id} --key {miss.new_key}"


def quoted_names(meters: Sequence[LiveMeter]) -> str:
    """Return meters for a sentence. Example: `7fcc0b52-… "API calls"`."""
    return listed([f"{meter.id} {json.dumps(meter.name, ensure_ascii=False)}" for meter in meters], 5)
