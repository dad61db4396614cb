"""What a verdict tells people to do, and what that saves, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunepoint.decision.numbers import about_usd
from tunepoint.report.names import Names
from tunepoint.report.words import months_words

ADVICE = {
    "prompt": "Keep prompting",
    "tuned": "Fine-tune a model",
    "hybrid": "Fine-tune a model and give it a light prompt",
    "cascade": "Use two models",
    "incumbent": "Keep what runs today",
    "baseline": "Use a simple method without a language model",
}
"""What to do, by the kind of the winner."""
ADVICE_BY_VERDICT = {
    "prompt": ADVICE["prompt"],
    "fine-tune": ADVICE["tuned"],
    "hybrid": ADVICE["hybrid"],
    "keep": ADVICE["incumbent"],
    "baseline": ADVICE["baseline"],
}
NO_DIFFERENCE = {
    "hybrid": "Its prompt makes no measurable difference.",
    "cascade": "Its score does not differ measurably from that of a tuned model alone.",
}
"""What to add where the winner is more than a tuned model, and its score is not."""
UNDECIDED = "not sure yet"
SMALL_MODEL = 4e9
"""Parameters up to which a model is called small: it runs on one small machine."""
KEPT_KINDS = ("prompt", "incumbent")
"""Kinds whose choice changes little: what the others would cost is what there is to say."""
OTHER_SIDE = {
    "prompt": "Prompting",
    "tuned": "Fine-tuning",
    "hybrid": "Fine-tuning",
    "cascade": "A cascade of two models",
    "incumbent": "What runs today",
    "baseline": "A simple method",
}
"""An option as the subject of a sentence, by its kind."""
LEAST_USD = 1.0
"""A smaller saving over the horizon is none."""
COUNT_WORDS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six", 7: "Seven", 8: "Eight", 9: "Nine"}


def advice_words(decision: Mapping[str, Any], arm: str | None = None) -> str:
    """Return what to do if an arm is chosen; the winner if none is given."""
    arm, kinds = arm or decision["winner"], Names.of(decision).kinds
    kind = kinds.get(arm, "")
    # The kind says more than the verdict: "hybrid" is one model with a prompt, or two models.
    advice = ADVICE.get(kind, ADVICE_BY_VERDICT.get(decision["verdict"], UNDECIDED))
    if kind == "hybrid" and arm == decision["winner"] and _equals_a_tuned_model(decision):
        advice = ADVICE["tuned"]
    if _tunes_small_models(decision):
        advice = advice.replace("Fine-tune a model", "Fine-tune a small model")
    if "migration" in decision:
        advice = f"Replace what runs today: {advice[:1].lower()}{advice[1:]}"
    return advice


def _tunes_small_models(decision: Mapping[str, Any]) -> bool:
    sizes = [model["parameters"] for model in decision.get("models", ()) if model["role"] == "tuned"]
    return bool(sizes) and all(size is not None and size <= SMALL_MODEL for size in sizes)


def no_difference_words(decision: Mapping[str, Any]) -> str | None:
    """Return that a winner is more than a tuned model, and its score is not; None where that is not so."""
    kind = Names.of(decision).kinds.get(decision["winner"], "")
    return NO_DIFFERENCE.get(kind) if _equals_a_tuned_model(decision) else None


def money_words(decision: Mapping[str, Any]) -> str | None:
    """Return what the verdict saves, in a sentence; None where there is nothing to compare with."""
    saved = decision.get("saving")  # decisions of older versions lack it
    if saved is None or saved["usd"] is None:
        return None
    kinds, against = Names.of(decision).kinds, saved["against"]
    shown = (d for d in decision["differences"] if d["against"] == against and not d["low"] <= 0 <= d["high"])
    lead = next((d["estimate"] for d in shown), 0.0)
    kind, included = kinds[decision["winner"]], ", errors included" if error_usd(decision) is not None else ""
    return saving_sentence(kind, kinds[against], saved["usd"], lead, period_words(decision), included)


def saving_sentence(kind: str, other: str, usd: float, lead: float, period: str, included: str = "") -> str:
    """Return what choosing an option of a kind saves against one of another kind; report.js says the same.

    Args:
        kind: of the option that is chosen.
        other: kind of the option it is compared with.
        usd: dollars saved over the period; negative if it costs more.
        lead: its score less the other's; 0 where the interval of the difference holds 0.
        period: the time in words.
        included: what is said of the errors.

    """
    size, size_of_lead = about_usd(abs(usd)), f"{abs(100 * lead):.1f} points"
    side = OTHER_SIDE[other]
    against = f"{side[:1].lower()}{side[1:]}" if side != OTHER_SIDE[kind] else "the next best option"
    keeps = kind in KEPT_KINDS and other not in KEPT_KINDS
    if abs(usd) < LEAST_USD:
        same = f"{side} would cost about the same."
        return same if keeps else f"It should cost about as much as {against}."
    if keeps and usd > 0:
        gain = f", for {size_of_lead} more right answers" if lead < 0 else ""
        return f"{side} should cost about {size} more {period}{included}{gain}."
    if keeps:
        fewer = f", with {size_of_lead} fewer right answers" if lead > 0 else ""
        return f"{side} should save about {size} {period}{included}{fewer}."
    if usd > 0:
        fewer = f", with {size_of_lead} fewer right answers" if lead < 0 else ""
        return f"It should save about {size} {period} against {against}{included}{fewer}."
    gain = f", for {size_of_lead} more right answers" if lead > 0 else ""
    return f"It should cost about {size} more {period} than {against}{included}{gain}."


def period_words(decision: Mapping[str, Any]) -> str:
    """Return the time of a saving, such as 'a year'."""
    months = months_words(decision)
    return "a year" if months == "12 months" else f"over {months}"


def error_usd(decision: Mapping[str, Any]) -> float | None:
    """Return what a wrong answer costs; None where errors have no price."""
    value = decision["provenance"].get("assumptions", {}).get("value", {}).get("error_usd")
    return None if value is None else float(value)


def equals_words(decision: Mapping[str, Any]) -> str | None:
    """Return how many options do as well as the winner; None where none does."""
    kinds = Names.of(decision).kinds
    equals = [kinds.get(arm) for arm in decision.get("equals", ())]
    if not equals:
        return None
    alike = all(kind == kinds.get(decision["winner"]) for kind in equals)
    count = COUNT_WORDS.get(len(equals) + 1, str(len(equals) + 1))
    options = "variants" if alike else "options"
    return f"{count} {options} are equal within the noise; this is the simplest."


def _equals_a_tuned_model(decision: Mapping[str, Any]) -> bool:
    """Whether the winner's score does not differ measurably from that of the best tuned model alone."""
    tuned = [finalist for finalist in decision.get("finalists", ()) if finalist["kind"] == "tuned"]
    best = max(tuned, key=lambda finalist: finalist["score"]["estimate"])["arm"] if tuned else None
    return any(d["against"] == best and d["low"] <= 0 <= d["high"] for d in decision.get("differences", ()))
