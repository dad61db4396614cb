"""The decision as decision.json: plain values, the same for every reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from tunepoint.costs.break_even import BreakEven
from tunepoint.costs.prices import OLD_DAYS, dated_prices, money
from tunepoint.decision.criteria import Signal
from tunepoint.decision.differences import Difference
from tunepoint.decision.finalists import Finalist
from tunepoint.decision.numbers import is_realistic
from tunepoint.decision.reason import implied_error_usd, verdict_reason
from tunepoint.decision.replacement import Migration
from tunepoint.decision.rule_of_thumb import measured_beside_the_rule, rule_of_thumb
from tunepoint.decision.sides import PROMPTED_KINDS
from tunepoint.decision.slices import Sliced, routing_words
from tunepoint.decision.summary import ExpectedCost, expected_costs, saving
from tunepoint.decision.verdict import Decision
from tunepoint.stats.intervals import Interval
from tunepoint.stats.ranges import Quantiles
from tunepoint.task.task import Task
from tunepoint.trials.judge_quality import JudgeQuality

SCHEMA = 1


def document(
    decision: Decision,
    task: Task,
    signals: Sequence[Signal],
    *,
    optimism: float | None = None,
    slices: Sliced | None = None,
    contamination: Mapping[str, Any] | None = None,
    lenient: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    models: Sequence[Mapping[str, Any]] = (),
    today: date,
) -> dict[str, Any]:
    """Return the content of decision.json, version 1."""
    logs = [finalist.arm for finalist in decision.finalists if finalist.kind == "incumbent"]
    expected = expected_costs(decision.evidence, logs)
    return {
        "schema": SCHEMA,
        "task": decision.task,
        "verdict": decision.verdict,
        "strength": decision.strength,
        "winner": decision.winner,
        "equals": list(decision.equals),
        "prompting_measured": any(finalist.kind in PROMPTED_KINDS for finalist in decision.finalists),
        "models": [dict(model) for model in models],
        "because": verdict_reason(decision),
        "saving": _saving(decision),
        "risks": {name: _rounded(risk) for name, risk in asdict(decision.risks).items()},
        "items": decision.items,
        "groups": decision.groups,
        "finalists": [_finalist(finalist, expected[finalist.arm]) for finalist in decision.finalists],
        "differences": [_difference(difference) for difference in decision.differences],
        "break_even": [_crossing(crossing, task) for crossing in decision.break_even],
        **({} if decision.migration is None else {"migration": _migration(decision.migration)}),
        "slices": None if slices is None else _slices(slices, decision.titles),
        "judge": _judge(decision.judged),
        "signals": [asdict(signal) for signal in signals],
        "rule_of_thumb": _rule_of_thumb(decision, task),
        "implied_error_usd": _implied(decision),
        "evidence_needed": asdict(decision.evidence_needed) if decision.evidence_needed else None,
        "worth": [asdict(worth) for worth in decision.worth],
        "selection_optimism": None if optimism is None else _rounded(optimism),
        "contamination": contamination or {"test_items_with_near_twin": 0, "score_without_them": {}},
        **({} if lenient is None else {"lenient": dict(lenient)}),
        "reversal": list(decision.reversal),
        "tornado": _tornado(decision),
        "caveats": [*decision.caveats, *_old_prices(today)],
        "provenance": {**(provenance or {}), "prices": _prices(today), "assumptions": _assumptions(task)},
    }


def _implied(decision: Decision) -> dict[str, Any] | None:
    """What an error must cost for the dearer of winner and rival to be worth it; None where none would."""
    implied = implied_error_usd(decision)
    return None if implied is None else {**asdict(implied), "usd": round(implied.usd, 12)}


def _saving(decision: Decision) -> dict[str, Any] | None:
    """What the winner saves against today; None where there is no other option."""
    saved = saving(decision)
    if saved is None:
        return None
    return {
        "against": saved.against,
        "today": saved.today,
        "usd": None if saved.usd is None else float(money(saved.usd)),
        "low": None if saved.band is None else float(money(saved.band.low)),
        "high": None if saved.band is None else float(money(saved.band.high)),
        "errors_a_month": round(saved.errors_a_month, 2),
    }


def _finalist(finalist: Finalist, expected: ExpectedCost) -> dict[str, Any]:
    parts = {"build": expected.build, "run": expected.run, "errors": expected.errors, "total": expected.total}
    if not expected.priced:
        parts |= {"run": None, "total": None}
    regret = finalist.expected_regret_usd
    return {
        "arm": finalist.arm,
        # Left out where there is none, so that a decision without labels has the keys it always had.
        **({} if finalist.label is None else {"label": finalist.label}),
        "kind": finalist.kind,
        "items": finalist.items,
        "score": _interval(finalist.score),
        "format_ok": _rounded(finalist.format_ok),
        "repaired": _rounded(finalist.repaired),
        "cost_per_query_usd": _band(finalist.cost_per_query_usd, digits=12),
        **({} if finalist.cache_hit is None else {"cache_hit": _band(finalist.cache_hit)}),
        "monthly_usd": _dollars(finalist.monthly_usd),
        "horizon_usd": _dollars(finalist.horizon_usd),
        "upfront_usd": _dollars(finalist.upfront_usd),
        "expected_usd": {name: None if part is None else float(money(part)) for name, part in parts.items()},
        "p50_seconds": _rounded(finalist.p50_seconds),
        "p95_seconds": _rounded(finalist.p95_seconds),
        "meets_limits": finalist.meets_limits,
        "misses": list(finalist.misses),
        "probability_acceptable": _rounded(finalist.probability_acceptable),
        "probability_best": _rounded(finalist.probability_best),
        "expected_regret_usd": None if regret is None else float(money(regret)),
        "standard_errors": {name: _rounded(value) for name, value in asdict(finalist.errors).items()},
    }


def _difference(difference: Difference) -> dict[str, Any]:
    """The winner against another arm."""
    bootstrap = difference.bootstrap
    return {
        "arm": difference.arm,
        "against": difference.against,
        **_interval(difference.difference),
        "conclusion": difference.conclusion,
        "p_holm": _rounded(difference.p_holm),
        "bootstrap": {"low": _rounded(bootstrap.low), "high": _rounded(bootstrap.high)},
    }


def _migration(migration: Migration) -> dict[str, Any]:
    """Every option against what has to be replaced."""
    return {
        "replaced": migration.replaced,
        "margin": migration.margin,
        "months_left": None if migration.months_left is None else round(migration.months_left, 3),
        "options": [
            {
                "arm": option.arm,
                **_interval(option.difference),
                "conclusion": option.conclusion,
                "probability": _rounded(option.probability),
                "saved_usd": None if option.saved_usd is None else float(money(option.saved_usd)),
            }
            for option in migration.options
        ],
    }


def _crossing(crossing: BreakEven, task: Task) -> dict[str, Any]:
    """Where two arms cross, and when the one that cost more to build has earned that back."""
    lifetime, band = crossing.lifetime_days, crossing.queries_per_month
    return {
        "from": crossing.cheaper_to_build,
        "to": crossing.cheaper_to_run,
        "queries_per_month": _band(band),
        **({} if crossing.queries_until is None else {"queries_until": _band(crossing.queries_until)}),
        "realistic": band is not None and is_realistic(band, task.traffic.queries_per_month),
        "probability_never": _rounded(crossing.probability_never),
        "dearer_to_build": crossing.dearer_to_build,
        "payback_days": _band(crossing.payback_days),
        "probability_no_payback": _rounded(crossing.probability_no_payback),
        "base_model_days": None if lifetime is None else round(lifetime),
        "counts_errors": task.value.error_usd is not None,
    }


def _tornado(decision: Decision) -> dict[str, Any] | None:
    """What the difference in cost to the rival depends on; None where there is no rival."""
    if decision.rival is None:
        return None
    return {
        "arm": decision.winner,
        "against": decision.rival,
        "swings": [
            {"what": swing.what, "low": float(money(swing.low)), "high": float(money(swing.high))}
            for swing in decision.swings
        ],
    }


def _slices(sliced: Sliced, titles: Mapping[str, str]) -> dict[str, Any]:
    """Differences by slice, and what routing would bring."""
    routing = sliced.routing
    return {
        "by": sliced.by,
        "arm": sliced.arm,
        "against": sliced.against,
        "slices": [
            {
                "slice": part.name,
                "items": part.items,
                "labels": part.labels,
                **_interval(part.difference),
                "p_adjusted": _rounded(part.p_adjusted),
                "better": part.better,
            }
            for part in sliced.slices
        ],
        "too_small": list(sliced.too_small),
        "routing": None
        if routing is None
        else {
            "arms": {arm: list(names) for arm, names in routing.arms.items()},
            "over": routing.single,
            "gain": _interval(routing.gain),
            "optimism": _rounded(routing.optimism),
            "suggested": routing.wins,
            "words": routing_words(sliced, titles),
        },
    }


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
            "agreement": _rounded(noise.agreement),
            "swapped": _rounded(noise.swapped),
            "position": _interval(noise.position),
            "noise_share": _rounded(noise.noise_share),
        },
        "graded_by_people": dict(judged.graded),
        "calibrations": [
            {
                "arm": calibration.arm,
                "items": calibration.items,
                "judged": _rounded(calibration.judged),
                "power": _rounded(calibration.power),
                "correction": _interval(calibration.correction),
                "error": _rounded(calibration.error),
            }
            for calibration in judged.calibrations
        ],
    }


def _rule_of_thumb(decision: Decision, task: Task) -> str:
    """What the rule of thumb says, and what was measured beside it."""
    traffic = task.traffic.queries_per_month
    rule = f"{rule_of_thumb(traffic.likely)}."
    return " ".join(filter(None, (rule, measured_beside_the_rule(decision, traffic))))


# -- values ----------------------------------------------------------------------------------


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def _interval(interval: Interval) -> dict[str, float | None]:
    return {
        "estimate": _rounded(interval.estimate),
        "low": _rounded(interval.low),
        "high": _rounded(interval.high),
    }


def _band(band: Quantiles | None, digits: int = 2) -> dict[str, float] | None:
    if band is None:
        return None
    return {name: round(value, digits) for name, value in asdict(band).items()}


def _dollars(band: Quantiles) -> dict[str, float]:
    return {name: float(money(value)) for name, value in asdict(band).items()}


# -- prices and assumptions ------------------------------------------------------------------


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
        f"The price {price.name} was checked {price.age_days(today)} days ago ({price.checked})."
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
