"""The draws behind a decision, for the sliders of the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunepoint.costs.caching import PrefixDraws
from tunepoint.costs.cost_draws import CostDraws
from tunepoint.decision.guards import too_few
from tunepoint.decision.verdict import Decision
from tunepoint.stats.arrays import Floats
from tunepoint.task.task import Task

MAX_REPORT_DRAWS = 60_000
"""Draws times arms that travel into the report for its sliders: 4,000 draws of up to 15 arms."""


def economics(decision: Decision, task: Task) -> dict[str, Any]:
    """Return what the report needs to recompute costs and verdict for another volume or horizon."""
    evidence = decision.evidence
    costs, limits = evidence.costs, evidence.limits
    # The page tests the limit on running cost itself, at every volume.
    without_monthly_limit = replace(evidence, limits=limits.model_copy(update={"monthly_usd": None}))
    draws = slice(0, MAX_REPORT_DRAWS // len(costs.arms))
    queries = task.traffic.queries_per_month
    return {
        "arms": list(costs.arms),
        "sides": list(evidence.sides or costs.arms),
        "simplicity": list(evidence.simplicity or range(len(costs.arms))),
        "kinds": [decision.finalist(arm).kind for arm in costs.arms],
        "volume": queries.likely,
        "traffic": [queries.low, queries.high],
        "months": costs.months,
        "growth": costs.schedule.growth,
        "discount": costs.schedule.discount,
        "machines": _machines(costs, draws),
        "prefixes": _prefixes(costs, draws),
        "base_model_months": task.costs.base_model_months,
        "retires_months": list(costs.retires_months),
        "retrain_months": task.costs.retrain_months,
        "margin": limits.margin,
        "min_score": limits.min_score,
        "materiality": evidence.materiality,
        "error_usd": evidence.error_usd,
        "monthly_limit": limits.monthly_usd,
        "capped": decision.risks.strength == "confident" and decision.strength == "leaning",
        "enough": not too_few(decision.groups),
        "replaced": evidence.replaced,
        "fit": [bool(flag) for flag in without_monthly_limit.eligible()],
        "draws": {
            "score": _rows(evidence.scores[draws]),
            "upfront": _rows(costs.upfront[draws]),
            "monthly": _rows(costs.monthly[draws]),
            "per_query": _rows(costs.per_query[draws]),
            "retrain": _rows(costs.retraining_once[draws]),
            "follow": _rows(costs.following_once[draws]),
            "volume": _short(costs.volume[draws].tolist()),
        },
    }


def _machines(costs: CostDraws, draws: slice) -> dict[int, dict[str, Any]]:
    """Reserved machines by the position of their arm."""
    return {
        arm: {
            "hours": hosting.hours_per_month,
            "queries": hosting.queries_per_machine,
            "least": hosting.least,
            "hourly": _short(hourly[draws].tolist()),
        }
        for arm, (hosting, hourly) in costs.machines.items()
    }


def _prefixes(costs: CostDraws, draws: slice) -> dict[int, list[dict[str, Any]]]:
    """Cached prefixes by the position of their arm, in the numbers that the share of hits follows from."""
    return {arm: [_prefix(p.for_draws(draws)) for p in drawn] for arm, drawn in costs.prefixes.items()}


def _prefix(drawn: PrefixDraws) -> dict[str, Any]:
    prefix, spells = drawn.prefix, drawn.spells
    return {
        "hit": prefix.hit,
        "saved": prefix.usd_saved_by_hit,
        "added": prefix.usd_added_by_miss,
        "renewed": prefix.renewed,
        "asked_for": prefix.asked_for,
        "bursts": _short(spells.bursts.tolist()),
        "calls": _short(spells.calls_per_burst.tolist()),
        "lifetime": _short(spells.lifetime.tolist()),
        "per_spell": _short((1 / spells.minutes).tolist()),
        "reached": _short(drawn.reached.tolist()),
    }


def _rows(values: Floats) -> list[list[float]]:
    return [_short(row) for row in values.tolist()]


def _short(values: list[float]) -> list[float]:
    """Ten digits: enough for the page, in half the bytes."""
    return [float(f"{value:.10g}") for value in values]
