"""The options of a decision as a table of texts: for the terminal, Markdown and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunepoint.decision.numbers import percent, seconds, usd
from tunepoint.report.advice import error_usd
from tunepoint.report.names import Names
from tunepoint.report.words import months_words, ranked_finalists


@dataclass(frozen=True)
class OptionRow:
    """One option."""

    name: str
    wins: bool
    cells: tuple[str, ...]
    """Under the heads after the first."""


def options_table(decision: Mapping[str, Any], *, whole: bool = True) -> tuple[list[str], list[OptionRow]]:
    """Return the heads and a row for each option, the winner first.

    Args:
        decision: the content of decision.json.
        whole: whether the parts of the total have columns of their own.

    """
    parts = ["build", "run", "errors", "total"] if whole else ["total"]
    if error_usd(decision) is None:
        parts = [part for part in parts if part != "errors"]
    heads = ["option", "right answers", *parts[:-1], f"total, {months_words(decision)}", "p95"]
    names = Names.of(decision)
    rows = []
    for finalist in ranked_finalists(decision):
        score, expected = finalist["score"], finalist.get("expected_usd") or {}
        right = f"{percent(score['estimate'])} ({100 * score['low']:.0f}–{100 * score['high']:.0f})"
        dollars = [usd(expected.get(part)) for part in parts]
        cells = (right, *dollars, seconds(finalist["p95_seconds"]))
        rows.append(OptionRow(names.short(finalist["arm"]), finalist["arm"] == decision["winner"], cells))
    return heads, rows
