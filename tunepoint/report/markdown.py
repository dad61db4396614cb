"""A decision as Markdown, for a pull request or a wiki."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunepoint.decision.numbers import percent, seconds, usd
from tunepoint.report.advice import error_usd
from tunepoint.report.first_screen import first_screen
from tunepoint.report.names import Names
from tunepoint.report.words import months_words, ranked_finalists, scope_words, sentence

LIGHTS = {"go": "🟢", "likely": "🔶", "open": "⬜"}
"""Circle, diamond and square: their shapes tell them apart too."""


def markdown(decision: Mapping[str, Any], not_run: Sequence[Mapping[str, Any]], study: str) -> str:
    """Return the verdict, the options, what comes next, and the caveats.

    Args:
        decision: the content of decision.json.
        not_run: what was not tried, from measurements.json.
        study: folder of the study, as commands name it.

    """
    screen, scope = first_screen(decision, not_run, study), scope_words(decision)
    lines = [f"## {LIGHTS[screen.light]} {as_text(screen.title)}", "", f"**{screen.strength}**"]
    lines += ["", f"> {as_text(scope)}"] if scope else []
    lines += ["", as_text(screen.choice), "", *_table(decision), "", "**What to do next**", ""]
    lines += [f"- {as_text(sentence(step.what))} `{step.command}`" for step in screen.steps]
    for title, entries in (
        ("When this would be wrong", screen.wrong_when),
        ("What was tried", screen.tried),
        ("Caveats", [sentence(line) for line in decision["caveats"]]),
    ):
        if entries:
            lines += ["", f"**{title}**", "", *(f"- {as_text(entry)}" for entry in entries)]
    test = f"{decision['items']} test examples in {decision['groups']} groups"
    return "\n".join([*lines, "", f"<sub>Tunepoint · {as_text(decision['task'])} · {test}</sub>", ""])


def _table(decision: Mapping[str, Any]) -> list[str]:
    names, priced = Names.of(decision), error_usd(decision) is not None
    parts = ["build", "run", *(["errors"] if priced else []), "total"]
    heads = ["option", "right answers (95%)", *parts[:-1], f"total, {months_words(decision)}", "p95"]
    rows = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for finalist in ranked_finalists(decision):
        name, score = as_text(names.short(finalist["arm"])), finalist["score"]
        expected = finalist.get("expected_usd") or {}
        cells = [
            f"**{name}**" if finalist["arm"] == decision["winner"] else name,
            f"{percent(score['estimate'])} ({100 * score['low']:.0f}–{100 * score['high']:.0f})",
            *(usd(expected.get(part)) for part in parts),
            seconds(finalist["p95_seconds"]),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def as_text(text: str) -> str:
    """Return a text of data or of people with the signs that Markdown would act on set apart."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
