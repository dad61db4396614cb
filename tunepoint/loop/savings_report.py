"""Shows realized savings: sentences, realised.json and the report of the study."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunepoint.capture.store import Store
from tunepoint.costs.break_even import BreakEven
from tunepoint.costs.prices import money
from tunepoint.decision.numbers import usd
from tunepoint.files.text import write_json
from tunepoint.loop.savings import ArmSavings, RealizedSavings
from tunepoint.report.html import REALIZED_FILE, rebuild_report


def save_savings_words(store: Store, task: str, savings: RealizedSavings) -> None:
    """Keep the savings so far in the store, for the gateway's dashboard."""
    store.set_state(f"savings/{task}", _state(savings))


def _state(savings: RealizedSavings) -> dict[str, Any]:
    saved = float(money(savings.saved.likely))
    return {"words": savings_words(savings), "until": savings.until, "saved_usd": saved}


def write_savings(study: Path, savings: RealizedSavings) -> Path:
    """Write realised.json into the study and rebuild its report; return the report's path."""
    write_json(study / REALIZED_FILE, savings_document(savings))
    return rebuild_report(study)


def savings_document(savings: RealizedSavings) -> dict[str, Any]:
    """Return the content of realised.json."""
    document = asdict(savings)
    document["arms"] = [{**asdict(arm), "words": _arm_words(arm)} for arm in savings.arms]
    document["saved"] = {name: float(money(value)) for name, value in asdict(savings.saved).items()}
    document["words"] = savings_words(savings)
    return document


def savings_words(savings: RealizedSavings) -> list[str]:
    """Describe the savings in sentences."""
    rate = "" if savings.volume is None else f", {savings.volume:,.0f} a month"
    saved, more = savings.saved, "more" if savings.built >= 0 else "less"
    return [
        f"{savings.requests:,} questions were answered from {savings.since} to {savings.until}{rate}; "
        f"the forecast was {savings.forecast_volume:,.0f} a month.",
        f"Serving {savings.arm} in place of {savings.against} has saved {_usd(saved.likely)} so far "
        f"({_usd(saved.low)} to {_usd(saved.high)}); building it cost {usd(abs(savings.built))} {more}.",
        f"Break-even at measured prices and volume: {_break_even_words(savings.break_even)}; "
        f"forecast: {_break_even_words(savings.forecast_break_even)}.",
        f"At what was measured, the verdict is {savings.verdict}: {savings.winner}.",
        *(f"{note[:1].upper()}{note[1:]}." for note in savings.notes),
    ]


def _usd(value: float) -> str:
    """Dollars; parts of a cent are shown, where `usd` would round them to nothing."""
    return f"{'-' if value < 0 else ''}${abs(value):.2g}" if 0 < abs(value) < 0.01 else usd(value)


def _break_even_words(break_even: BreakEven) -> str:
    band = break_even.queries_per_month
    if band is None:
        return f"{break_even.cheaper_to_run} never becomes cheaper than {break_even.cheaper_to_build}"
    return (
        f"{break_even.cheaper_to_run} is cheaper than {break_even.cheaper_to_build} from {band.likely:,.0f} "
        f"({band.low:,.0f} to {band.high:,.0f}) queries a month"
    )


def _arm_words(arm: ArmSavings) -> str:
    """How far the measured cost of an answer is from its forecast."""
    if arm.measured is None:
        return "too few priced answers, or paid by the hour"
    if arm.measured.low <= arm.forecast.high and arm.forecast.low <= arm.measured.high:
        return "as forecast"
    if not arm.forecast.likely:
        return "forecast as free"
    share = arm.measured.likely / arm.forecast.likely - 1
    return f"{abs(share):.0%} {'dearer' if share > 0 else 'cheaper'} than forecast"
