"""Numbers and findings in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

VERDICT_WORDS = {
    "prompt": "Keep prompting",
    "fine-tune": "Fine-tune",
    "hybrid": "Use the hybrid",
    "keep": "Keep what you have",
    "undecided": "Not enough evidence yet",
}


def headline(decision: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    words = VERDICT_WORDS[decision["verdict"]]
    if decision["strength"] is None:
        return f"{words}: the best bet is {decision['winner']}."
    return f"{words}: {decision['winner']} ({decision['strength']})."


def usd(value: float | None) -> str:
    """Dollars as a person writes them."""
    if value is None:
        return "–"
    sign, size = ("-" if value < 0 else ""), abs(value)
    return f"{sign}${size:,.0f}" if size >= 100 else f"{sign}${size:,.2f}"


def tiny_usd(value: float | None) -> str:
    """Dollars of one answer, which may be millionths."""
    if value is None:
        return "–"
    return f"${value:.2g}" if 0 < value < 0.01 else f"${value:.4f}"


def seconds(value: float | None) -> str:
    """Seconds, in milliseconds below one."""
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def significant_digits(crossings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Break-evens of arms that differ in cost; all of them where none does."""
    different = [
        c for c in crossings if c["queries_per_month"] is None or c["queries_per_month"]["high"] >= 1
    ]
    return different or list(crossings)


def crossing_words(crossing: Mapping[str, Any]) -> str:
    """A break-even in a sentence."""
    band = crossing["queries_per_month"]
    one, other = crossing["from"], crossing["to"]
    if band is None:
        return f"{other} never becomes cheaper than {one}"
    if band["high"] < 1:
        return f"{other} and {one} cost the same to build; {other} is not dearer to run"
    counted = ", what errors cost included," if crossing.get("counts_errors") else ""
    return (
        f"{other} is cheaper than {one}{counted} from {band['likely']:,.0f} queries a month "
        f"({band['low']:,.0f} to {band['high']:,.0f}; never: {crossing['probability_never']:.0%})"
    )


def worth_words(one: Mapping[str, Any]) -> str:
    """What one more piece of evidence is worth, in a sentence."""
    kind = one["kind"].replace("_", " ")
    kind = kind.removesuffix("s") if one["more"] == 1 else kind
    if one["value_usd"] < 0.005:
        return f"{one['more']} more {kind}: worth nothing."
    pays = "" if one["value_usd"] > one["price_usd"] else ", not worth its price"
    return f"{one['more']} more {kind}: worth {usd(one['value_usd'])} for {usd(one['price_usd'])}{pays}."
