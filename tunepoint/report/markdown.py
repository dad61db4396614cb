"""A decision as Markdown, for a pull request or a wiki."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunepoint.report.first_screen import first_screen
from tunepoint.report.options_table import options_table
from tunepoint.report.words import scope_words, sentence

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
    heads, options = options_table(decision)
    rows = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for option in options:
        name = as_text(option.name)
        rows.append(f"| {' | '.join((f'**{name}**' if option.wins else name, *option.cells))} |")
    return rows


def as_text(text: str) -> str:
    """Return a text of data or of people with the signs that Markdown would act on set apart."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
