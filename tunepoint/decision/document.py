"""The decision as decision.json: plain values, the same for every reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from typing import Any

import numpy as np

from tunepoint.costs.break_even import BreakEven
from tunepoint.costs.prices import OLD_DAYS, dated_prices, money
from tunepoint.decision.guards import too_few
from tunepoint.decision.signals import PROMPTED, Signal, beside_the_rule, rule_of_thumb
from tunepoint.decision.slices import Sliced, routing_words
from tunepoint.decision.verdict import Decision, Difference, Finalist
from tunepoint.stats.intervals import Interval
from tunepoint.stats.ranges import Quantiles
from tunepoint.task.task import Task
from tunepoint.trials.judge_quality import JudgeQuality

SCHEMA = 1
MAX_REPORT_DRAWS = 60_000
"""Draws times arms that travel into the report for its sliders: 4,000 draws of up to 15 arms."""


def document(
    decision: Decision,
    task: Task,
    signals: Sequence[Signal],
    *,
    optimism: float | None = None,
    slices: Sliced | None = None,
    contamination: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    today: date,
) -> dict[str, Any]:
    """The content of decision.json, version 1."""
    return {
        "schema": SCHEMA,
        "task": decision.task,
        "verdict": decision.verdict,
        "strength": decision.strength,
        "winner": decision.winner,
        "because": verdict_reason(decision),
        "risks": {name: _short(risk) for name, risk in asdict(decision.risks).items()},
        "items": decision.items,
        "groups": decision.groups,
        "finalists": [_finalist(finalist) for finalist in decision.finalists],
        "differences": [_difference(difference) for difference in decision.differences],
        "break_even": [
            _crossing(one, counts_errors=task.value.error_usd is not None) for one in decision.break_even
        ],
        "slices": None if slices is None else _slices(slices),
        "judge": _judge(decision.judged),
        "signals": [asdict(signal) for signal in signals],
        "rule_of_thumb": "; ".join(
            filter(None, (rule_of_thumb(task.traffic.queries_per_month.likely), beside_the_rule(decision)))
        ),
        "evidence_needed": asdict(decision.evidence_needed) if decision.evidence_needed else None,
        "worth": [asdict(worth) for worth in decision.worth],
        "selection_optimism": None if optimism is None else _short(optimism),
        "contamination": contamination or {"test_items_with_near_twin": 0, "score_without_them": {}},
        "reversal": list(decision.reversal),
        "tornado": _tornado(decision),
        "caveats": [*decision.caveats, *_old_prices(today)],
        "provenance": {**(provenance or {}), "prices": _prices(today), "assumptions": _assumptions(task)},
    }


def _crossing(one: BreakEven, *, counts_errors: bool) -> dict[str, Any]:
    """Where two arms cross, and when the one that cost more to build has earned that back."""
    return {
        "from": one.cheaper_to_build,
        "to": one.cheaper_to_run,
        "queries_per_month": _band(one.queries_per_month),
        "probability_never": _short(one.probability_never),
        "dearer_to_build": one.dearer_to_build,
        "payback_days": _band(one.payback_days),
        "probability_no_payback": _short(one.probability_no_payback),
        "base_model_days": None if one.lifetime_days is None else round(one.lifetime_days),
        "counts_errors": counts_errors,
    }


def _tornado(decision: Decision) -> dict[str, Any] | None:
    """What the difference in cost to the rival depends on; None where there is no rival."""
    if decision.rival is None:
        return None
    return {
        "arm": decision.winner,
        "against": decision.rival,
        "swings": [
            {"what": one.what, "low": float(money(one.low)), "high": float(money(one.high))}
            for one in decision.swings
        ],
    }


def _difference(one: Difference) -> dict[str, Any]:
    """The winner against another arm."""
    return {
        "arm": one.arm,
        "against": one.against,
        **_interval(one.difference),
        "conclusion": one.conclusion,
        "p_holm": _short(one.p_holm),
        "bootstrap": {"low": _short(one.bootstrap.low), "high": _short(one.bootstrap.high)},
    }


def _slices(sliced: Sliced) -> dict[str, Any]:
    """Differences by slice, and what routing would bring."""
    routing = sliced.routing
    return {
        "by": sliced.by,
        "arm": sliced.arm,
        "against": sliced.against,
        "slices": [
            {
                "slice": one.name,
                "items": one.items,
                **_interval(one.difference),
                "p_adjusted": _short(one.p_adjusted),
                "better": one.better,
            }
            for one in sliced.slices
        ],
        "too_small": list(sliced.too_small),
        "routing": None
        if routing is None
        else {
            "arms": {arm: list(names) for arm, names in routing.arms.items()},
            "over": routing.single,
            "gain": _interval(routing.gain),
            "optimism": _short(routing.optimism),
            "suggested": routing.wins,
            "words": routing_words(sliced),
        },
    }


def verdict_reason(decision: Decision) -> str:
    """The verdict's reason in one sentence: the score, the rivals, the money."""
    winner = decision.finalist(decision.winner)
    score = winner.score
    text = f"{winner.arm} scores {score.estimate:.3f} ({score.low:.3f} to {score.high:.3f})"
    for rival in _rivals(decision, winner):
        difference = next(d for d in decision.differences if d.against == rival.arm).difference
        text += (
            f", {difference.estimate:+.3f} against {rival.arm} "
            f"({difference.low:+.3f} to {difference.high:+.3f})"
        )
    text += f", and costs about ${winner.horizon_usd.likely:,.0f} over the horizon"
    if decision.evidence_needed is not None:
        text += f"; {decision.evidence_needed.why}"
    return text + "."


def _judge(judged: JudgeQuality | None) -> dict[str, Any] | None:
    """How good the judge is, or None where no judge gave the scores."""
    if judged is None:
        return None
    noise = judged.noise
    return {
        "noise": None
        if noise is None
        else {
            "answers": noise.answers,
            "repeated": noise.repeated,
            "agreement": _short(noise.agreement),
            "swapped": _short(noise.swapped),
            "position": _interval(noise.position),
            "noise_share": _short(noise.noise_share),
        },
        "graded_by_people": dict(judged.graded),
        "calibrations": [
            {
                "arm": one.arm,
                "items": one.items,
                "judged": _short(one.judged),
                "power": _short(one.power),
                "correction": _interval(one.correction),
                "error": _short(one.error),
            }
            for one in judged.calibrations
        ],
    }


def _rivals(decision: Decision, winner: Finalist) -> list[Finalist]:
    """The best arm on the other side of 'prompt or tune', and the best of all others."""
    others = sorted((f for f in decision.finalists if f.arm != winner.arm), key=lambda f: -f.score.estimate)
    words_only = winner.kind in PROMPTED
    across = [f for f in others if (f.kind in PROMPTED) != words_only]
    return list(dict.fromkeys([*across[:1], *others[:1]]))


def _finalist(finalist: Finalist) -> dict[str, Any]:
    return {
        "arm": finalist.arm,
        "kind": finalist.kind,
        "items": finalist.items,
        "score": _interval(finalist.score),
        "format_ok": _short(finalist.format_ok),
        "repaired": _short(finalist.repaired),
        "cost_per_query_usd": _band(finalist.cost_per_query_usd, digits=12),
        "monthly_usd": _dollars(finalist.monthly_usd),
        "horizon_usd": _dollars(finalist.horizon_usd),
        "upfront_usd": _dollars(finalist.upfront_usd),
        "p50_seconds": _short(finalist.p50_seconds),
        "p95_seconds": _short(finalist.p95_seconds),
        "meets_limits": finalist.meets_limits,
        "misses": list(finalist.misses),
        "probability_acceptable": _short(finalist.probability_acceptable),
        "probability_best": _short(finalist.probability_best),
        "expected_regret_usd": (
            None if finalist.expected_regret_usd is None else float(money(finalist.expected_regret_usd))
        ),
        "standard_errors": {name: _short(value) for name, value in asdict(finalist.errors).items()},
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def _interval(interval: Interval) -> dict[str, float | None]:
    return {
        "estimate": _short(interval.estimate),
        "low": _short(interval.low),
        "high": _short(interval.high),
    }


def _band(band: Quantiles | None, digits: int = 2) -> dict[str, float] | None:
    if band is None:
        return None
    return {name: round(value, digits) for name, value in asdict(band).items()}


def _dollars(band: Quantiles) -> dict[str, float]:
    return {name: float(money(value)) for name, value in asdict(band).items()}


def _prices(today: date) -> list[dict[str, Any]]:
    return [
        {
            "name": price.name,
            "value": float(price.value),
            "unit": price.unit,
            "checked": price.checked.isoformat(),
            "age_days": price.age_days(today),
            "source": price.source,
        }
        for price in dated_prices().values()
    ]


def _old_prices(today: date) -> list[str]:
    return [
        f"the price {price.name} was checked {price.age_days(today)} days ago ({price.checked})"
        for price in dated_prices().values()
        if price.age_days(today) > OLD_DAYS
    ]


def _assumptions(task: Task) -> dict[str, Any]:
    return {
        "traffic": task.traffic.model_dump(mode="json"),
        "limits": task.limits.model_dump(mode="json"),
        "value": task.value.model_dump(mode="json"),
        "costs": task.costs.model_dump(mode="json"),
        "currencies": dict(task.currencies),
    }


def economics(decision: Decision, task: Task) -> dict[str, Any]:
    """What the report needs to recompute costs and verdict for another volume or horizon."""
    evidence = decision.evidence
    costs = evidence.costs
    limits = evidence.limits.model_copy(update={"monthly_usd": None})
    unlimited = replace(evidence, limits=limits)  # the page tests this limit at every volume
    few = slice(0, MAX_REPORT_DRAWS // len(costs.arms))

    def rows(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[list[float]]:
        return [[float(f"{value:.10g}") for value in row] for row in values[few].tolist()]

    return {
        "arms": list(costs.arms),
        "kinds": [decision.finalist(arm).kind for arm in costs.arms],
        "volume": task.traffic.queries_per_month.likely,
        "traffic": [task.traffic.queries_per_month.low, task.traffic.queries_per_month.high],
        "months": costs.months,
        "growth": costs.schedule.growth,
        "discount": costs.schedule.discount,
        "machines": {
            arm: {
                "hours": hosting.hours_per_month,
                "queries": hosting.queries_per_machine,
                "least": hosting.least,
                "hourly": [float(f"{value:.10g}") for value in hourly[few].tolist()],
            }
            for arm, (hosting, hourly) in costs.machines.items()
        },
        "base_model_months": task.costs.base_model_months,
        "retires_months": list(costs.retires_months),
        "retrain_months": task.costs.retrain_months,
        "margin": evidence.limits.margin,
        "min_score": evidence.limits.min_score,
        "materiality": evidence.materiality,
        "error_usd": evidence.error_usd,
        "monthly_limit": evidence.limits.monthly_usd,
        "capped": decision.risks.strength == "confident" and decision.strength == "leaning",
        "enough": not too_few(decision.groups),
        "fit": [bool(flag) for flag in unlimited.eligible()],
        "draws": {
            "score": rows(evidence.scores),
            "upfront": rows(costs.upfront),
            "monthly": rows(costs.monthly),
            "per_query": rows(costs.per_query),
            "retrain": rows(costs.retraining_once),
            "follow": rows(costs.following_once),
            "volume": [float(f"{value:.10g}") for value in costs.volume[few].tolist()],
        },
    }
