"""The baselines of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunepoint.arms.baselines.nearest_examples import FixedExamples, NearestExamples
from tunepoint.arms.baselines.nearest_label import NearestLabelDescription, NearestLabelName
from tunepoint.arms.baselines.neighbor_vote import NeighborVote
from tunepoint.arms.baselines.word_counts import WordCountsBaseline
from tunepoint.arms.contract import Arm
from tunepoint.data.examples import Example
from tunepoint.data.licences import why_untrainable
from tunepoint.models.chat import Embed
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.models.encoder import Encoder

NEIGHBORS = (8, 32)
"""Numbers of similar examples that the embedded encoder compares an input with."""


def label_baselines(
    task: Task,
    train: Sequence[Example],
    encoder: Encoder | None,
    embed: Embed,
    voters: Sequence[int] = (),
) -> tuple[Arm, ...]:
    """Return the controls of a task with labels.

    Args:
        task: of the study.
        train: limits how many examples there can be.
        encoder: compares inputs with labels and examples; None where it is not installed.
        embed: what a chat model's retrieved examples are similar by.
        voters: numbers of similar examples that chat models are shown.

    """
    arms: list[Arm] = [] if why_untrainable(task, train) else [WordCountsBaseline()]
    arms += [NeighborVote(embed, k) for k in voters]
    return (*arms, *(_nearest(task, train, encoder) if encoder else ()))


def _nearest(task: Task, train: Sequence[Example], encoder: Encoder) -> tuple[Arm, ...]:
    """Everything that the embedded encoder can compare an input with."""
    per_label = max(1, len(train) // max(1, len({example.target for example in train})))
    counts = [k for k in (1, 3, 5, 10) if k <= per_label] or [1]
    arms: list[Arm] = [NearestLabelName(encoder)]
    if any((task.answer.labels or {}).values()):
        arms.append(NearestLabelDescription(encoder))
    arms += [FixedExamples(encoder, k) for k in counts]
    neighbors = neighbor_counts(train)
    return (*arms, *(NearestExamples(encoder, k, weight) for k in neighbors for weight in (0.5, 0.7, 0.9)))


def neighbor_counts(train: Sequence[Example]) -> list[int]:
    """Return the numbers of similar examples that a training set allows."""
    return [k for k in NEIGHBORS if k <= len(train)] or [len(train)]
