"""The first screen of a decision: what to do, what it saves, how sure that is, what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunepoint.decision.evidence_needed import SURE
from tunepoint.decision.numbers import about_usd, at_start, percent, points, significant, tiny_usd
from tunepoint.decision.rule import strength_of
from tunepoint.report.advice import (
    advice_words,
    equals_words,
    error_usd,
    money_words,
    no_difference_words,
)
from tunepoint.report.names import Names
from tunepoint.report.words import models_words, sentence, settling_words

MAX_REVERSALS = 3
CENT = 0.01
STRENGTHS = {"confident": "Confident", "leaning": "Likely", None: "Not sure yet"}
LIGHTS = {"confident": "go", "leaning": "likely", None: "open"}
"""Strength -> the lamp that is lit; each has a shape of its own, for those who cannot tell the colors."""


@dataclass(frozen=True)
class Tile:
    """One number of the first screen."""

    id: str
    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Step:
    """What to do next, and the command that does it."""

    what: str
    command: str


@dataclass(frozen=True)
class FirstScreen:
    """All that the first screen shows."""

    title: str
    strength: str
    light: str
    choice: str
    """Which option it is, and which others do as well."""
    tiles: tuple[Tile, ...]
    steps: tuple[Step, ...]
    wrong_when: tuple[str, ...]
    """What would turn the verdict."""
    tried: tuple[str, ...]
    """Which models were tried, and what was not."""


def first_screen(
    decision: Mapping[str, Any], not_run: Sequence[Mapping[str, Any]], study: str
) -> FirstScreen:
    """Return the first screen.

    Args:
        decision: the content of decision.json.
        not_run: what was not tried, from measurements.json.
        study: folder of the study, as commands name it.

    """
    return FirstScreen(
        title=headline(decision),
        strength=strength_sentence(decision),
        light=LIGHTS[decision["strength"]],
        choice=choice_words(decision),
        tiles=_tiles(decision),
        steps=next_steps(decision, study),
        wrong_when=tuple(sentence(line) for line in decision.get("reversal", ())[:MAX_REVERSALS]),
        tried=_tried(decision, not_run),
    )


def headline(decision: Mapping[str, Any]) -> str:
    """Return the verdict in two sentences: what to do, and what that saves."""
    names = Names.of(decision)
    best = names.short(decision["winner"])
    if _nothing_reaches(decision):
        return f"Nothing measured here can replace what runs today. Nearest: {best}."
    if decision["strength"] is None:
        return f"Not sure yet. Best so far: {best}."
    return " ".join(filter(None, (f"{advice_words(decision)}.", money_words(decision))))


def strength_sentence(decision: Mapping[str, Any]) -> str:
    """Return how sure the verdict is, with the chance that it is wrong."""
    words = STRENGTHS[decision["strength"]]
    wrong = decision.get("risks", {}).get("wrong")  # decisions of older versions lack it
    if wrong is None:
        return f"{words}."
    if _nothing_reaches(decision):
        return f"{'Over 99%' if wrong > 0.99 else f'{wrong:.0%}'} sure that it is not as good as today."
    chance = "under 1%" if wrong < 0.01 else f"{wrong:.0%}"
    # A guard, such as one for too few examples, may make a verdict weaker than its draws say.
    guarded = "" if strength_of(wrong) == decision["strength"] else ", caveats not counted"
    risk = "it is not as good as today" if _falls_short(decision) else "another choice is better"
    return f"{words}: {chance} chance that {risk}{guarded}."


def _falls_short(decision: Mapping[str, Any]) -> bool:
    """Whether the risk is to fall behind what has to be replaced, more than to pass over a better choice."""
    risks = decision["risks"]
    return "migration" in decision and bool(risks["unacceptable"] > risks["passed_over"])


def _nothing_reaches(decision: Mapping[str, Any]) -> bool:
    """Whether even the best option is surely not as good as what has to be replaced."""
    wrong = decision.get("risks", {}).get("wrong")
    return decision["strength"] is None and wrong is not None and wrong > SURE and _falls_short(decision)


def choice_words(decision: Mapping[str, Any]) -> str:
    """Return which option the verdict names, in place of what, which others do as well, and what is saved."""
    saved = decision.get("saving")
    known = saved and saved["usd"] is not None and decision["strength"] is not None
    money = _saving_interval(saved, error_usd(decision)) if saved and known else None
    lines = (option_words(decision), equals_words(decision), no_difference_words(decision), money)
    return " ".join(filter(None, lines))


def option_words(decision: Mapping[str, Any]) -> str:
    """Return which option the verdict names, and in place of what."""
    names, saved = Names.of(decision), decision.get("saving")
    words = at_start(names.short(decision["winner"]))
    if saved and decision["strength"] is not None:
        today = "what runs today, " if saved["today"] else ""
        words += f" instead of {today}{names.short(saved['against'])}"
    return f"{words}."


def _saving_interval(saved: Mapping[str, Any], error: float | None) -> str:
    """How uncertain the saving is, and what it counts."""
    what, ends = "saving", (saved["low"], saved["high"])
    if saved["usd"] < 0:
        what, ends = "extra cost", (-saved["high"], -saved["low"])
    low, high = map(about_usd, ends)
    price = "" if error is None else about_usd(error) if error >= CENT else tiny_usd(error)
    counts = f" A wrong answer counts {price} (value.error_usd)." if price else ""
    return f"90% of the simulations put the {what} between {low} and {high}.{counts}"


def next_steps(decision: Mapping[str, Any], study: str) -> tuple[Step, ...]:
    """Return what to do next: collect what settles it, or serve it and compare with the forecast."""
    study = shlex.quote(study)
    change = Step("See what another volume would change", f"tunepoint whatif {study} --volume 100000")
    needed = decision.get("evidence_needed")
    if "task_sha256" not in decision["provenance"]:  # another tool measured it, and can serve it
        what = settling_words(decision) or "Decide again when there are more trials, or other prices"
        return (Step(what, "tunepoint decide --trials TRIALS.jsonl --task task.toml --arms arms.toml"),)
    if decision["strength"] is None:
        settling = settling_words(decision) or "More evidence would settle it."
        if needed and needed.get("labels"):
            return (Step(settling, f"tunepoint label {study} --pool INPUTS.csv"), change)
        return (Step(settling, "tunepoint run"), change)
    kind = Names.of(decision).kinds.get(decision["winner"])
    if kind == "incumbent":
        return (Step("Nothing has to change. Look again when prices or traffic do", change.command),)
    return (
        Step("Serve it, at an address that OpenAI's clients understand", f"tunepoint serve {study}"),
        Step("Later, compare what it saves with this forecast", f"tunepoint savings {study}"),
        change,
    )


def _tiles(decision: Mapping[str, Any]) -> tuple[Tile, ...]:
    """The four numbers; what is compared with is what runs today, or the best option of the other side."""
    names, finalists = Names.of(decision), {f["arm"]: f for f in decision["finalists"]}
    winner, saved = finalists[decision["winner"]], decision.get("saving")
    if "expected_usd" not in winner:  # a study of an older version
        return ()
    before = finalists[saved["against"]] if saved else None
    other = ""
    if saved:
        other = f"{'Today' if saved['today'] else names.short(saved['against'])}: "
    months = decision["provenance"].get("assumptions", {}).get("traffic", {}).get("horizon_months")
    built = winner["upfront_usd"]
    tiles = [
        Tile(
            "right",
            "Right answers",
            percent(winner["score"]["estimate"]),
            f"{other}{percent(before['score']['estimate'])}" if before else f"{decision['items']} examples",
        ),
        Tile(
            "build",
            "Cost to build",
            about_usd(winner["expected_usd"]["build"]),
            f"90%: {about_usd(built['low'])} to {about_usd(built['high'])}",
        ),
    ]
    if months:
        run = Tile(
            "run",
            "Cost to run, a month",
            _monthly(winner, months),
            f"{other}{_monthly(before, months)}" if before else "",
        )
        tiles.append(run)
    if saved:
        avoided = saved["errors_a_month"]
        name = "Errors avoided, a month" if avoided >= 0 else "More errors, a month"
        tiles.append(Tile("errors", name, significant(abs(avoided)), _against(decision, names)))
    return tuple(tiles)


def _monthly(finalist: Mapping[str, Any], months: float) -> str:
    run = finalist["expected_usd"]["run"]
    return "not known" if run is None else about_usd(run / months)


def _against(decision: Mapping[str, Any], names: Names) -> str:
    """The difference in right answers behind the errors avoided."""
    against = decision["saving"]["against"]
    lead = next((d for d in decision["differences"] if d["against"] == against), None)
    if lead is None:
        return f"against {names.short(against)}"
    return f"{points(lead['estimate'])} ({100 * lead['low']:+.1f} to {100 * lead['high']:+.1f})"


def _tried(decision: Mapping[str, Any], not_run: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Which models were prompted and tuned, by name and size, and what was left out."""
    lines = [line for line in (models_words(decision),) if line]
    if not_run:
        names = Names.of(decision)
        lines.append(f"Not tried: {', '.join(names.title(each['name']) for each in not_run)}.")
    return tuple(lines)
