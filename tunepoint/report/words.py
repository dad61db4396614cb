"""A decision in plain words, from the content of decision.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunepoint.decision.numbers import (
    about_usd,
    at_start,
    points,
    points_range,
    significant,
    volume_interval,
)
from tunepoint.decision.sides import PROMPTED_KINDS
from tunepoint.models.gguf.catalog import parameters_in_words
from tunepoint.models.providers import short_names
from tunepoint.report.names import Names
from tunepoint.stats.ranges import Quantiles

MODEL_TITLES = {"embedded:minilm": "all-MiniLM-L6-v2, an encoder"}
KIND_WORDS = {
    "prompt": "prompt",
    "tuned": "fine-tuned",
    "hybrid": "fine-tuned, with a prompt",
    "cascade": "two models",
    "incumbent": "runs today",
    "baseline": "no language model",
}
CONCLUSION_WORDS = {
    "better": "better",
    "worse": "worse",
    "not worse": "not worse by more than the margin",
    "unresolved": "too uncertain to tell",
}
SIDE_WORDS = {
    "prompt": "prompting",
    "fine-tune": "fine-tuning",
    "hybrid": "fine-tuning with a prompt",
}
QUANTITY_WORDS = {
    "traffic.queries_per_month": "queries a month",
    "costs.hourly_usd": "dollars of an hour of work",
    "costs.label_usd": "dollars of a label",
    "costs.label_minutes": "minutes to label an example",
    "costs.core_hour_usd": "dollars of an hour of a processor core",
    "costs.cleaning_hours": "hours of cleaning data",
    "costs.evaluation_hours": "hours of evaluation",
    "costs.review_hours_per_month": "hours of review a month",
    "costs.reprompt_hours": "hours of moving a prompt to another model",
    "costs.retrain_hours": "hours of each retraining",
}
"""Assumptions of task.toml: key -> what people read."""


def ranked_finalists(decision: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the finalists: the winner and its equals, then the others from the best score down."""
    tied = {arm: place for place, arm in enumerate((decision["winner"], *decision.get("equals", ())))}
    return sorted(
        decision["finalists"], key=lambda f: (tied.get(f["arm"], len(tied)), -f["score"]["estimate"])
    )


def scope_words(decision: Mapping[str, Any]) -> str | None:
    """Return what the verdict is not about; None where a language model was prompted."""
    kinds = Names.of(decision).kinds.values()
    if any(kind in PROMPTED_KINDS for kind in kinds):
        return None
    return (
        "No language model was prompted, so nothing here is about prompting, only about tuning. To ask "
        "'prompt or fine-tune?', name one in task.toml ([[models]]). The model embedded:qwen2.5-coder-0.5b "
        "needs no key (`tunepoint models pull qwen2.5-coder-0.5b`)."
    )


def models_words(decision: Mapping[str, Any]) -> str | None:
    """Return which models were prompted and tuned, with their sizes; None where nobody noted them."""
    models = decision.get("models", ())
    names = dict(zip((m["name"] for m in models), short_names([m["name"] for m in models]), strict=True))

    def listed(role: str) -> str:
        return ", ".join(
            f"{MODEL_TITLES.get(m['name'], names[m['name']])} ({_size(m)}{_origin(m)})"
            for m in models
            if m["role"] == role
        )

    sentences = [f"{role.capitalize()}: {listed(role)}." for role in ("prompted", "tuned") if listed(role)]
    return " ".join(sentences) or None


def _size(model: Mapping[str, Any]) -> str:
    count = model["parameters"]
    return "size not known" if count is None else parameters_in_words(count)


def _origin(model: Mapping[str, Any]) -> str:
    return f"; replies recorded on {model['recorded']['day']}" if "recorded" in model else ""


def migration_words(decision: Mapping[str, Any]) -> list[str]:
    """Return which options are not worse than what has to be replaced; nothing where nothing has to be."""
    migration = decision.get("migration")
    if migration is None:
        return []
    names, left = Names.of(decision), migration["months_left"]
    goes = f"{at_start(names.title(migration['replaced']))} has to be replaced"
    if left is not None:
        goes += f"; it is shut down in {left * 365.25 / 12:.0f} days"
    months, margin = months_words(decision), migration["margin"]
    options = [_replacement_words(option, names, margin, months) for option in migration["options"]]
    if all(option["saved_usd"] is None for option in migration["options"]):
        goes += "; its log has no price, so nothing is said of what a move saves ([[models]] price)"
    return [f"{goes}.", *options]


def _replacement_words(option: Mapping[str, Any], names: Names, margin: float, months: str) -> str:
    """One option against what has to be replaced."""
    if option["conclusion"] == "better":
        verdict = "better than today"
    elif option["high"] < -margin:
        verdict = f"worse than today by more than {100 * margin:g} points"
    elif option["low"] > -margin:
        verdict = f"not worse than today by more than {100 * margin:g} points"
    else:
        verdict = f"not clear whether it is worse than today by more than {100 * margin:g} points"
    words = (
        f"{at_start(names.title(option['arm']))}: {verdict} ({points(option['estimate'])}, "
        f"{points_range(option['low'], option['high'])}; {_sure(option['probability'])} that it is not)."
    )
    saved = option["saved_usd"]
    if saved is None:
        return words
    return f"{words} It {'saves' if saved >= 0 else 'costs another'} {about_usd(abs(saved))} over {months}."


def _sure(probability: float) -> str:
    if probability > 0.99:
        return "over 99% sure"
    return "under 1% sure" if probability < 0.01 else f"{probability:.0%} sure"


def sentence(text: str) -> str:
    """Return a text that ends like a sentence; decisions of older versions hold fragments."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def distinct_crossings(crossings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the break-evens of arms that differ in cost; all of them where none does."""
    distinct = [c for c in crossings if c["queries_per_month"] is None or c["queries_per_month"]["high"] >= 1]
    return distinct or list(crossings)


def crossing_words(crossing: Mapping[str, Any], names: Names) -> str:
    """Return a break-even in a sentence or two."""
    band = crossing["queries_per_month"]
    build, run = names.title(crossing["from"]), names.title(crossing["to"])
    if band is None:
        return f"{at_start(run)} never becomes cheaper than {build}."
    if band["high"] < 1:
        return f"{at_start(run)} and {build} cost the same to build, and {run} costs no more to run."
    if not crossing.get("realistic", True):
        about = significant(band["likely"], 2)
        title = at_start(run)
        return (
            f"{title} has no realistic break-even with {build}: it would take about {about} queries a month."
        )
    tuning = names.is_prompted(crossing["from"]) and not names.is_prompted(crossing["to"])
    volume, until = volume_interval(Quantiles(**band)), crossing.get("queries_until")
    where = f"above {volume}"
    if until is not None:
        end = significant(until["likely"], 2)
        where = f"from {volume} to about {end}, where caches make {build} cheaper again"
    words = f"{at_start(run)} instead of {build} pays off {where}."
    if tuning and crossing["to"] in names.kinds:
        words = f"Fine-tuning pays off {where}: {run} instead of {build}."
    if crossing["probability_never"] >= 0.01:
        words += f" In {crossing['probability_never']:.0%} of the simulations it never does."
    return words


def worth_words(worth: Mapping[str, Any]) -> str:
    """Return what one more piece of evidence is worth, in a sentence."""
    single = worth["more"] == 1
    kind = worth["kind"].replace("_", " ")
    kind, verb = (kind.removesuffix("s"), "is") if single else (kind, "are")
    evidence = f"{worth['more']} more {kind}"
    if worth["value_usd"] < 0.005:
        return f"{evidence} {verb} worth nothing."
    value, price = about_usd(worth["value_usd"]), about_usd(worth["price_usd"])
    pays = "worth it" if worth["value_usd"] > worth["price_usd"] else "not worth it"
    return f"{evidence} {verb} worth about {value} and would cost about {price}: {pays}."


def settling_words(decision: Mapping[str, Any]) -> str | None:
    """Return what would settle an undecided study; None where it is decided."""
    needed = decision["evidence_needed"]
    if not needed:
        return None
    worth = decision.get("worth", ())
    winner = next(f for f in decision["finalists"] if f["arm"] == decision["winner"])
    regret = winner.get("expected_regret_usd")
    pays = any(step["value_usd"] > step["price_usd"] for step in worth)
    kinds = ("labels", "test_items", "training_seeds", "training_examples")
    would_settle = any(needed.get(kind) for kind in kinds)
    too_dear = not needed.get("recommended", True)
    if too_dear or regret is None or not worth or pays or not would_settle:
        return sentence(needed["why"])
    return (
        f"Too close to matter at your volume: the best option so far loses {about_usd(regret)} on average "
        "against the truly best one, and no further evidence is worth its price. Take the simpler option."
    )


def signal_words(signal: Mapping[str, Any]) -> str:
    """Return whether a signal favors its side; a dash where it was not measured."""
    side = SIDE_WORDS[signal["points_to"]]
    return {True: f"favors {side}", False: f"does not favor {side}", None: "–"}[signal["holds"]]


def months_words(decision: Mapping[str, Any]) -> str:
    """Return the horizon as people say it, such as '12 months'."""
    traffic = decision["provenance"].get("assumptions", {}).get("traffic", {})
    months = traffic.get("horizon_months")
    if months is None:
        return "the whole period"
    return "1 month" if months == 1 else f"{months:g} months"
