"""The part of a comment that explains a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polar_iac.plan.model import Plan
from polar_iac.report.comment.budget import Budget
from polar_iac.report.comment.context import BLOCKED_SIGN, CommentContext
from polar_iac.report.comment.escape import details, fence, short_code
from polar_iac.report.wording import RefusalPart, Snippet, refusal


def refusal_blocks(plans: Sequence[Plan], context: CommentContext, limit: int) -> Iterator[str]:
    """Yield why `apply` would refuse a whole plan, and the lines of the manifest that would permit it.

    The lines take at most `limit` bytes.
    """
    for cause in ("unknown-id", "unlisted"):
        indices = [index for index, plan in enumerate(plans) if plan.refusal and plan.refusal.cause == cause]
        if indices:
            where = context.where(indices).removesuffix(": ")
            whole = f"the plan for {where} as a whole" if where else "this plan as a whole"
            parts = refusal([plans[index] for index in indices], short_code)
            first, *blocks = _blocks(parts, Budget(limit, separator=""))
            yield f"{BLOCKED_SIGN} **`apply` will refuse {whole}, before any effect:** {first}"
            yield from blocks


def _blocks(parts: Sequence[RefusalPart], budget: Budget) -> Iterator[str]:
    """Yield each sentence, and below it as many items of its snippet as its fair share of the room holds."""
    snippets = [part.snippet for part in parts if part.snippet]
    share = budget.share([budget.cost(*snippet.items) for snippet in snippets])
    for part in parts:
        if part.snippet is None:
            yield part.sentence
        elif count := _fitting(part.snippet, budget.part(share)):
            yield f"{part.sentence}:"
            yield details("Lines to paste", fence(part.snippet.lines(count), "yaml"))
        else:
            yield f"{part.sentence}; the log has the lines to paste."


def _fitting(snippet: Snippet, budget: Budget) -> int:
    """Count the items that fit."""
    for count, item in enumerate(snippet.items):
        if not budget.take(item):
            return count
    return len(snippet.items)
