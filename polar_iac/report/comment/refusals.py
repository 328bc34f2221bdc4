"""The part of a comment that explains a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polar_iac.plan.model import UNKNOWN_HERE, Change, Plan
from polar_iac.report.comment.budget import TruncatableBlock, folded
from polar_iac.report.comment.escape import code, prose, size
from polar_iac.report.comment.remarks import CommentContext, clipped
from polar_iac.report.wording import snippets_to_allow


def refusal_parts(plans: Sequence[Plan], context: CommentContext, room: int) -> Iterator[str]:
    """Yield why `apply` would refuse a whole plan, and the lines of the manifest that would permit it."""
    for cause, told in (("unknown-id", _unknown), ("unlisted", _unlisted)):
        found = [index for index, plan in enumerate(plans) if plan.refusal and plan.refusal.cause == cause]
        if found:
            where = context.where(found).removesuffix(": ")
            whole = f"the plan for {where} as a whole" if where else "this plan as a whole"
            yield f"🛑 **`apply` will refuse {whole}, before any effect:** " + told(
                [plans[index] for index in found], context, room
            )


def _unknown(plans: Sequence[Plan], _scene: CommentContext, _room: int) -> str:
    ids = {change.id: change.key for plan in plans for change in _at_fault(plan)}
    named = [f"{code(clipped(key))} ({code(str(id_))})" for id_, key in ids.items()]
    more = f" and {len(named) - 5:,} more" if len(named) > 5 else ""
    return (
        f"Polar knows none of the ids in the lockfile: {', '.join(named[:5])}{more}. "
        f"This is {prose(UNKNOWN_HERE)}."
    )


def _unlisted(plans: Sequence[Plan], context: CommentContext, room: int) -> str:
    keys = {change.key for plan in plans for change in _at_fault(plan)}
    gone = "1 meter is" if len(keys) == 1 else f"{len(keys):,} meters are"
    parts = [f"{gone} gone from the manifest and still bill{'s' * (len(keys) == 1)}."]
    moved, blocks = snippets_to_allow(plans)
    if moved:
        parts += [
            "If meters only have new keys, say so in the manifest, and nothing is archived:",
            TruncatableBlock(moved, language="yaml").markdown(room // 3, context.whole),
        ]
    fitting = [n for n in range(1, len(blocks) + 1) if size("".join(blocks[:n])) <= room]
    their = "its block" if len(keys) == 1 else "their blocks"
    to_archive = f"To archive, put {their} back into the manifest, with `archived: true`"
    if fitting:
        lines = ["meters:", *"".join(blocks[: len(fitting)]).rstrip("\n").split("\n")]
        lines += [f"  # and {len(keys) - len(fitting):,} more"] if len(fitting) < len(keys) else []
        parts += [f"{to_archive}:", folded(lines, "yaml")]
    else:
        parts.append(f"{to_archive}; the log has {their}.")
    parts.append("Or allow it this once with `--allow-archive` (in the actions, the input `allow-archive`).")
    return "\n\n".join(parts)


def _at_fault(plan: Plan) -> list[Change]:
    return [change for change in plan.changes if plan.refusal and change.key in plan.refusal.keys]
