"""What the two benchmarks of the decision share: was a verdict right, and tables of how often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.decision.rule import Evidence
from tunepoint.decision.verdict import Decision
from tunepoint.stats.racing import Race, look_sizes
from tunepoint.trials.table import ArmScores, Table

Row = dict[str, Any]
Floats = NDArray[np.float64]
CHOOSERS = ("ours", "highest mean", "rule of thumb")


def rule_of_thumb(volume: float, prompted: int, tuned: int, highest: int) -> int:
    """Under 10,000 queries a month prompt, over 100,000 fine-tune; "do the math" is left to the score."""
    return prompted if volume < 10_000 else tuned if volume > 100_000 else highest


def arm_scores(name: str, scores: Floats, format_ok: float = 1.0) -> ArmScores:
    """Scores (seeds, items) as an arm of a table."""
    seeds = tuple(map(str, range(len(scores)))) if len(scores) > 1 else (None,)
    nothing = np.array([])
    tokens = np.full((scores.size, 3), np.nan)
    return ArmScores(name, scores, seeds, format_ok, 0.0, (), nothing, nothing, tokens)


def outcome(decision: Decision, table: Table, truth: Evidence, thumb: int, error_usd: float) -> Row:
    """What was decided, and what the truth says of it and of the two simple choosers.

    Args:
        truth: one draw of scores and costs, the true one: the rule with nothing left to guess.
        thumb: position of the arm that the rule of thumb takes.
        error_usd: what a wrong answer costs, for regret in dollars over the horizon.

    """
    winner = table.names.index(decision.winner)
    highest = int(np.argmax([arm.scores.mean() for arm in table.arms]))
    net = replace(truth, error_usd=error_usd).total()[0]
    chosen = dict(zip(CHOOSERS, (winner, highest, thumb), strict=True))
    return {
        "strength": decision.strength or "undecided",
        "stated": decision.risks.wrong,
        **{f"wrong {name}": truth.risks_of(arm).wrong > 0 for name, arm in chosen.items()},
        **{f"regret {name}": float(net[arm] - net.min()) for name, arm in chosen.items()},
    }


def race_items(scores: Mapping[str, Floats], clusters: NDArray[np.intp] | None = None) -> tuple[int, str]:
    """Answers that a race of arms takes until one is left, and the one with the highest mean among the last.

    Args:
        scores: (items,) of each arm, in an order that says nothing, clusters side by side.

    """
    items = len(next(iter(scores.values())))
    codes = np.arange(items) if clusters is None else clusters
    ends = np.flatnonzero(np.diff(codes, append=-1)) + 1
    course = Race(list(scores), int(np.diff(ends, prepend=0).max()))
    asked = before = 0
    for size in look_sizes(items):
        end = int(ends[ends >= size][0])
        asked += len(course.running) * (end - before)
        before = end
        course.eliminate({name: scores[name][:end] for name in course.running}, codes[:end])
        if len(course.running) == 1:
            break
    return asked, max(course.running, key=lambda name: float(scores[name][:before].mean()))


def share(values: Iterable[float | bool]) -> float | None:
    """Mean of values, or None where there are none."""
    found = list(values)
    return float(np.mean(found)) if found else None


def summary(rows: Sequence[Row], more: Sequence[str] = ()) -> Row:
    """Figures of a set of studies.

    Args:
        more: further columns, averaged where they are not None.

    """
    by = {name: [r for r in rows if r["strength"] == name] for name in ("confident", "leaning", "undecided")}
    return {
        "studies": len(rows),
        **{name: len(found) / len(rows) for name, found in by.items()},
        **{f"wrong when {name}": share(r["wrong ours"] for r in found) for name, found in by.items()},
        **{f"wrong, {name}": share(r[f"wrong {name}"] for r in rows) for name in CHOOSERS},
        **{f"regret, {name}": share(r[f"regret {name}"] for r in rows) for name in CHOOSERS},
        **{key: share(r[key] for r in rows if r[key] is not None) for key in more},
    }


def split_by(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    """Rows by the value of a column."""
    return {f"{value:,}": [r for r in rows if r[key] == value] for value in sorted({r[key] for r in rows})}


def reliability(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what the decision itself said of the probability that it is wrong."""
    edges = (0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.01)
    return {
        f"{low:.0%} to {min(high, 1):.0%}": [r for r in rows if low <= r["stated"] < high]
        for low, high in pairwise(edges)
    }


VERDICTS: tuple[tuple[str, str], ...] = (
    ("studies", "d"),
    ("confident", ".0%"),
    ("wrong when confident", ".1%"),
    ("leaning", ".0%"),
    ("wrong when leaning", ".1%"),
    ("undecided", ".0%"),
)
CHOICES: tuple[tuple[str, str], ...] = (
    *((f"wrong, {name}", ".1%") for name in CHOOSERS),
    *((f"regret, {name}", ",.0f") for name in CHOOSERS),
)


def show(
    title: str,
    groups: Mapping[str, Sequence[Row]],
    columns: Sequence[tuple[str, str]],
    more: Sequence[str] = (),
) -> dict[str, Row]:
    """Print a table in Markdown, one line a group, and return its figures."""
    found = {name: summary(rows, more) for name, rows in groups.items() if rows}
    print(f"\n| {title} | " + " | ".join(head for head, _ in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, figures in found.items():
        cells = ["" if figures[key] is None else format(figures[key], form) for key, form in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")
    return found
