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
    """Prompt under 10,000 queries a month, fine-tune over 100,000, and take the highest score between."""
    return prompted if volume < 10_000 else tuned if volume > 100_000 else highest


def arm_scores(name: str, scores: Floats, format_ok: float = 1.0) -> ArmScores:
    """Wrap scores (seeds, items) as an arm of a table."""
    seeds = tuple(map(str, range(len(scores)))) if len(scores) > 1 else (None,)
    nothing = np.array([])
    tokens = np.full((scores.size, 3), np.nan)
    return ArmScores(name, scores, seeds, format_ok, 0.0, (), nothing, nothing, tokens)


def outcome(decision: Decision, table: Table, truth: Evidence, thumb: int, error_usd: float) -> Row:
    """Compare the decision and two simple choosers with the truth.

    Args:
        truth: one draw of scores and costs, the true one, so that the rule has nothing left to estimate.
        thumb: position of the arm that the rule of thumb takes.
        error_usd: what a wrong answer costs, for regret in dollars over the horizon.

    """
    winner = table.names.index(decision.winner)
    highest = int(np.argmax([arm.scores.mean() for arm in table.arms]))
    net = replace(truth, error_usd=error_usd).total()[0]
    dollars = replace(truth, error_usd=None).total()[0]
    chosen = dict(zip(CHOOSERS, (winner, highest, thumb), strict=True))
    # a verdict that leaves open which variant is best is wrong where none of them is right
    stated: dict[str, tuple[int, ...]] = {name: (arm,) for name, arm in chosen.items()}
    stated[CHOOSERS[0]] = decision.evidence.named()
    return {
        "open": decision.strength is not None and len(stated[CHOOSERS[0]]) > 1,
        "wrong, named": truth.risks_of(winner).wrong > 0,
        "strength": decision.strength or "undecided",
        "stated": decision.risks.wrong,
        **{f"wrong {name}": truth.risks_of(*arms).wrong > 0 for name, arms in stated.items()},
        **{f"regret {name}": float(net[arm] - net.min()) for name, arm in chosen.items()},
        **{f"dollars {name}": float(dollars[arm]) for name, arm in chosen.items()},
        **{f"errors {name}": float((net - dollars)[arm] / error_usd) for name, arm in chosen.items()},
    }


def race_items(scores: Mapping[str, Floats], clusters: NDArray[np.intp] | None = None) -> tuple[int, str]:
    """Race arms until one is left; return the answers that it took and the best of those still running.

    Args:
        scores: (items,) of each arm, in random order, clusters side by side.

    """
    items = len(next(iter(scores.values())))
    codes = np.arange(items) if clusters is None else clusters
    ends = np.flatnonzero(np.diff(codes, append=-1)) + 1
    course = Race(list(scores), int(np.diff(ends, prepend=0).max()))
    answers = done = 0
    for size in look_sizes(items):
        end = int(ends[ends >= size][0])
        answers += len(course.running) * (end - done)
        done = end
        course.eliminate({name: scores[name][:end] for name in course.running}, codes[:end])
        if len(course.running) == 1:
            break
    return answers, max(course.running, key=lambda name: float(scores[name][:done].mean()))


def share(values: Iterable[float | bool]) -> float | None:
    """Return the mean of the values, or None without any."""
    numbers = list(values)
    return float(np.mean(numbers)) if numbers else None


def price_where_equal(rows: Sequence[Row], other: str) -> float | None:
    """Return the dollars of an error from which our choices cost less, errors included, than another's.

    0 where ours cost less whatever an error costs; None where they make as many errors, or more.
    """
    dearer = sum(row["dollars ours"] - row[f"dollars {other}"] for row in rows)
    avoided = sum(row[f"errors {other}"] - row["errors ours"] for row in rows)
    return max(0.0, dearer / avoided) if avoided > 0 else None


def summary(rows: Sequence[Row], extra: Sequence[str] = ()) -> Row:
    """Summarize a set of studies.

    Args:
        extra: further columns, averaged over the rows where they are not None.

    """
    by = {name: [r for r in rows if r["strength"] == name] for name in ("confident", "leaning", "undecided")}
    return {
        "studies": len(rows),
        **{name: len(studies) / len(rows) for name, studies in by.items()},
        **{f"wrong when {name}": share(r["wrong ours"] for r in studies) for name, studies in by.items()},
        **{f"wrong, {name}": share(r[f"wrong {name}"] for r in rows) for name in CHOOSERS},
        **{f"regret, {name}": share(r[f"regret {name}"] for r in rows) for name in CHOOSERS},
        **{f"equal to {name} at $": price_where_equal(rows, name) for name in CHOOSERS[1:]},
        **{key: share(r[key] for r in rows if r[key] is not None) for key in extra},
    }


def split_by(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    """Group rows by the value of a column."""
    return {f"{value:,}": [r for r in rows if r[key] == value] for value in sorted({r[key] for r in rows})}


def reliability(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by the probability of being wrong that the decision itself stated."""
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
    *((f"equal to {name} at $", ".4f") for name in CHOOSERS[1:]),
)


def show(
    title: str,
    groups: Mapping[str, Sequence[Row]],
    columns: Sequence[tuple[str, str]],
    extra: Sequence[str] = (),
) -> dict[str, Row]:
    """Print a Markdown table with one line for each group, and return its figures."""
    summaries = {name: summary(rows, extra) for name, rows in groups.items() if rows}
    print(f"\n| {title} | " + " | ".join(head for head, _ in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, figures in summaries.items():
        cells = ["" if figures[key] is None else format(figures[key], form) for key, form in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")
    return summaries
