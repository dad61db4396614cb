"""What the blog posts would say, and the measured break-even beside it."""

from __future__ import annotations

import numpy as np

from tunepoint.costs.break_even import BreakEven
from tunepoint.decision.numbers import about_usd, is_realistic, volume, volume_interval
from tunepoint.decision.verdict import Decision
from tunepoint.stats.ranges import Range


def rule_of_thumb(volume: float) -> str:
    """Return what the rule of thumb says at this many queries a month; it knows nothing else."""
    if volume < 10_000:
        return "under 10,000 queries a month: prompt"
    if volume <= 100_000:
        return "10,000 to 100,000 queries a month: do the math"
    return "over 100,000 queries a month: fine-tune"


def measured_beside_the_rule(decision: Decision, traffic: Range) -> str | None:
    """Return the measured break-even with the rival, and its reason; None where there is no rival.

    Args:
        decision: with winner and rival.
        traffic: declared queries a month.

    """
    pair = {decision.winner, decision.rival}
    crossing = next((c for c in decision.break_even if {c.cheaper_to_build, c.cheaper_to_run} == pair), None)
    if crossing is None:
        return None
    build, run = (decision.titles[arm] for arm in (crossing.cheaper_to_build, crossing.cheaper_to_run))
    reason = _reason(decision, crossing)
    if crossing.queries_per_month is None:
        return f"Measured here: {run} never becomes cheaper than {build}. {reason}"
    if not is_realistic(crossing.queries_per_month, traffic):
        return f"Measured here: {run} has no realistic break-even with {build}. {reason}"
    where = f"above {volume_interval(crossing.queries_per_month)}"
    if crossing.queries_until is not None:
        until = volume(crossing.queries_until.likely)
        where = f"from {volume_interval(crossing.queries_per_month)} to about {until}"
    return f"Measured here: {run} is cheaper than {build} {where}. {reason}"


def _reason(decision: Decision, crossing: BreakEven) -> str:
    """The differences in money behind a break-even, in a sentence."""
    evidence, costs = decision.evidence, decision.evidence.costs
    build, run = costs.arms.index(crossing.cheaper_to_build), costs.arms.index(crossing.cheaper_to_run)
    error_usd = evidence.error_usd or 0.0
    extra, monthly = (
        float(np.median(part[:, run] - part[:, build])) for part in (costs.upfront, costs.per_month(0.0))
    )
    running = costs.answer() + error_usd * (1 - evidence.scores)
    saving = 1_000 * float(np.median(running[:, build] - running[:, run]))
    built = f"costs {about_usd(abs(extra))} {'more' if extra >= 0 else 'less'} to build"
    runs = f"saves {about_usd(saving)}" if saving > 0 else f"costs {about_usd(-saving)} more"
    errors = ", errors included" if error_usd else ""
    sentence = f"It {built} and {runs} on 1,000 answers{errors}"
    if abs(monthly) >= 0.005:
        fixed = f"{about_usd(abs(monthly))} a month {'more' if monthly > 0 else 'less'}"
        sentence += f"; its fixed costs are {fixed}"
    return f"{sentence}."
