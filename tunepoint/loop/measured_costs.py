"""The cost of an arm as its captured answers have it, in place of its forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tunepoint.capture.totals import ServedTotals
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.stats.moments import Mean
from tunepoint.stats.ranges import Range

MIN_PRICED_ANSWERS = 30
"""Answers from which an arm's measured cost replaces its forecast."""


def with_measured(cost: ArmCost, totals: Sequence[ServedTotals]) -> ArmCost:
    """Return the cost of an arm with the mean cost of its captured answers, where there are enough.

    An arm that was forecast in money stays so, and one in core seconds too, unless only the other was
    captured.
    """
    dollars, seconds = measured(cost, totals)
    if dollars is None and seconds is None:
        return cost
    dollars, seconds = dollars or Mean(), seconds or Mean()
    return replace(
        cost,
        usd_per_query=Range.parse(dollars.value),
        query_error_usd=dollars.error,
        query_skew=0.0,
        core_seconds_per_query=seconds.value,
        core_seconds_error=seconds.error,
        core_seconds_skew=0.0,
        prefixes=(),  # what was captured was paid with the caches as they were
    )


def measured(cost: ArmCost, totals: Sequence[ServedTotals]) -> tuple[Mean | None, Mean | None]:
    """Return dollars and core seconds of an answer; None where too few were captured.

    Both are None on reserved machines, which cost the same whatever is captured.
    """
    if cost.dedicated is not None or not totals:
        return None, None
    dollars = _mean(
        sum(total.priced for total in totals),
        sum(total.cost_nanousd / 1e9 for total in totals),
        sum(total.cost_squares / 1e18 for total in totals),
    )
    seconds = _mean(
        sum(total.timed for total in totals),
        sum(total.core_seconds for total in totals),
        sum(total.core_squares for total in totals),
    )
    # A price of 0 does not prove that an arm is free: one that was forecast in seconds keeps its forecast.
    if dollars is not None and dollars.value == 0 and seconds is None and cost.core_seconds_per_query:
        return None, None
    return dollars, seconds


def _mean(count: float, total: float, squares: float) -> Mean | None:
    """Mean and standard error from sums; None for too few values."""
    if count < MIN_PRICED_ANSWERS:
        return None
    mean = total / count
    # At least 0: the difference of two large sums can come out slightly negative.
    variance = max(0.0, squares / count - mean**2) * count / (count - 1)
    return Mean(mean, math.sqrt(variance / count))
