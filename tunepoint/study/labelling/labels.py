"""Labels of pool inputs: who said what is right, and what that makes of each answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tunepoint.files.text import write_text
from tunepoint.study.labelling.inputs import read_lines

LABELS = "pool_labels.jsonl"
"""In the folder of the study."""
MIN_SECOND_OPINIONS = 10
"""Inputs with two opinions from which their agreement is said."""


@dataclass(frozen=True)
class PoolLabel:
    """What one person said of one input."""

    item: str
    right: str | None
    """The right answer; None if none of those shown is right."""
    by: str
    """Who said it; empty if nobody wrote it down."""
    scores: Mapping[str, float]
    """Answer -> its score, 0..1, by the task's metric."""


def person(name: str) -> str:
    """Return a name as people tell each other apart, whatever its case and spaces."""
    return " ".join(name.casefold().split())


def read_labels(folder: Path) -> list[PoolLabel]:
    """Return the labels of a study's pool, in the order in which they came.

    Raises:
        StudyError: the file is damaged.

    """
    return read_lines(folder / LABELS, lambda row: PoolLabel(**row), "is no label; take the line out")


def write_labels(folder: Path, labels: Sequence[PoolLabel]) -> None:
    """Write all labels of a study's pool."""
    lines = (json.dumps(asdict(label), ensure_ascii=False) + "\n" for label in labels)
    write_text(folder / LABELS, "".join(lines))


def by_item(labels: Sequence[PoolLabel]) -> dict[str, list[PoolLabel]]:
    """Return the labels of each input."""
    grouped: dict[str, list[PoolLabel]] = defaultdict(list)
    for label in labels:
        grouped[label.item].append(label)
    return dict(grouped)


@dataclass(frozen=True)
class Agreement:
    """How two people agree who labelled the same inputs."""

    inputs: int
    share: float
    """Of the inputs on which they said the same."""
    kappa: float | None
    """Cohen's kappa; None where chance alone would make them agree always."""


def agreement(labels: Sequence[PoolLabel]) -> Agreement | None:
    """Return how two people agree on inputs that both labelled, each with a name; None with too few.

    Kappa is agreement beyond chance (Cohen 1960, "A coefficient of agreement for nominal scales").
    """
    pairs = []
    for opinions in by_item(labels).values():
        named = {person(label.by): label.right for label in opinions if label.by}
        if len(named) > 1:
            first, second = sorted(named)[:2]  # always the same side: kappa compares two people
            pairs.append((named[first], named[second]))
    if len(pairs) < MIN_SECOND_OPINIONS:
        return None
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    share = sum(one == other for one, other in pairs) / len(pairs)
    by_chance = (
        sum(sides[0].count(answer) * sides[1].count(answer) for answer in {*sides[0], *sides[1]})
        / len(pairs) ** 2
    )
    kappa = (share - by_chance) / (1 - by_chance) if by_chance < 1 else None
    return Agreement(len(pairs), share, kappa)


def reliability(labels: Sequence[PoolLabel]) -> float | None:
    """Return the share of a true difference between answers that one person's labels show; None with too few.

    Two people who err alike and independently see r times each difference, so the product of what they see
    is r squared times its square: r is the root of their mean product over their mean square, the
    reliability of Spearman 1904 ("The proof and measurement of association between two things").

    Returns:
        0..1; 0 where they agree no more than by chance.

    """
    products, squares = [], []
    for opinions in by_item(labels).values():
        named = {person(label.by): label for label in opinions if label.by}
        if len(named) > 1:
            first, second = (named[name].scores for name in sorted(named)[:2])
            answers = sorted(first.keys() & second.keys())
            seen = np.array([[scores[answer] for answer in answers] for scores in (first, second)])
            seen -= seen.mean(axis=1, keepdims=True)
            products.append(float(seen[0] @ seen[1]))
            squares.append(float((seen**2).sum()) / 2)
    if len(products) < MIN_SECOND_OPINIONS or sum(squares) == 0:
        return None
    return float(np.sqrt(np.clip(sum(products) / sum(squares), 0, 1)))
