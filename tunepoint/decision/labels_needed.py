"""How many labels stand for more test items, where only inputs are labelled on which options disagree.

A label of a random input says nothing where two options give the same answer. With q the share of inputs on
which they differ, r the mean square of their difference in score and d its mean, the variance of d is
(r - d^2) / n from n random labels, and (q r - d^2) / m from m labels where they differ (`tunepoint.stats.
disagreements`; the answers without a label are taken to be many). So about q times as many do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from tunepoint.decision.numbers import rounded_up
from tunepoint.decision.rule import Evidence
from tunepoint.stats.disagreements import OTHERS_WEIGHT
from tunepoint.stats.paired import JointScores
from tunepoint.trials.table import Table
from tunepoint.trials.trial import ArmKind

RIVAL = 0.01
"""Probability of beating the winner from which an option is still compared with it."""


@dataclass(frozen=True)
class LabelsNeeded:
    """Labels where options disagree."""

    labels: int
    inputs: int
    """Inputs without a label that the options answer, to find enough on which they disagree."""


def labels_needed(
    table: Table, kinds: Sequence[ArmKind], joint: JointScores, evidence: Evidence, factor: float
) -> LabelsNeeded | None:
    """Return the labels that make the study as sure as `factor` times its evidence; None if that is unknown.

    Args:
        table: with the answers of the test set.
        kinds: of the arms; what runs today has a log, and answers nothing new.
        joint: of its scores, and of the pool's if there is one.
        evidence: draws of the scores.
        factor: multiple of the evidence, over 1.

    """
    winner = evidence.best_bet()
    beats = (evidence.scores > evidence.scores[:, [winner]]).mean(axis=0)
    rivals = [arm for arm in range(len(beats)) if arm != winner and beats[arm] > RIVAL]
    compared = {kinds[arm] for arm in (winner, *rivals)}
    if table.answers is None or not rivals or "incumbent" in compared:
        return None
    differs = table.answers[rivals] != table.answers[winner]
    relevant, any_differs = differs.any(axis=0).mean(), (table.answers != table.answers[0]).any(axis=0).mean()
    labelled_share = relevant / (relevant + OTHERS_WEIGHT * (any_differs - relevant)) if relevant else 0.0
    known = 0 if table.pool is None else len(table.pool.labelled)
    most, inputs = 0.0, 0.0
    for rival, differing in zip(rivals, differs, strict=True):
        share = float(differing.mean())
        labels = _labels(joint, (winner, rival), share, factor)
        if labels is None:
            return None
        own = share / relevant * labelled_share
        most, inputs = max(most, labels / own), max(inputs, (known * own + labels) / share)
    answered = 0 if table.pool is None else len(table.pool.strata)
    return LabelsNeeded(rounded_up(ceil(most)), rounded_up(max(0, ceil(inputs) - answered)))


def _labels(joint: JointScores, pair: tuple[int, int], disagreement: float, factor: float) -> float | None:
    """Return the labels where two options differ that multiply the precision of their difference.

    Args:
        joint: of all evidence.
        pair: positions of the options.
        disagreement: share of inputs on which their answers differ.
        factor: by which the precision grows.

    """
    alone = joint.tested or joint
    assert alone.means is not None
    lead = alone.means[:, pair[0]] - alone.means[:, pair[1]]
    weights = np.zeros(len(joint.estimates))
    weights[list(pair)] = 1.0, -1.0
    spread = float(lead.var())
    if not disagreement or not spread:
        return None
    design = float(weights @ alone.item_covariance @ weights) * alone.items / spread
    of_one = max(disagreement * float((lead**2).mean()) - float(lead.mean()) ** 2, 0.0) * design
    return of_one * (factor - 1) / float(weights @ joint.item_covariance @ weights)
