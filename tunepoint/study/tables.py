"""Tables for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.contract import Arm
from tunepoint.data.prepare import Prepared
from tunepoint.study.directory import Study
from tunepoint.trials.table import Table
from tunepoint.trials.tabulation import mean_interval
from tunepoint.trials.trial import Trial


def ladder(study: Study, candidates: CandidateArms, winners: Sequence[Arm] = ()) -> list[dict[str, Any]]:
    """Return a row for every candidate with its score on the validation set."""
    rows: list[dict[str, Any]] = []
    races = study.manifest.races
    for arm in {arm.name: arm for arm in (*candidates.arms, *winners)}.values():
        trials = study.dev.of(arm.name)
        if len({trial.cluster or trial.item for trial in trials}) < 2:
            continue  # one group of items gives no interval
        score = mean_interval(trials)
        rows.append(
            {
                "arm": arm.name,
                "label": arm.label,
                "family": arm.family,
                "kind": arm.kind,
                "items": len({trial.item for trial in trials}),
                "dev_score": score.estimate,
                "low": score.low,
                "high": score.high,
                "stopped_by": races[arm.name].stopped_by if arm.name in races else None,
                "unreadable": arm.name in races and races[arm.name].unreadable is not None,
            }
        )
    return rows


def disagreements(
    prepared: Prepared, table: Table, trials: Sequence[Trial], most: int = 12
) -> list[dict[str, Any]]:
    """Return the test examples on which the finalists differ most, with every finalist's answer."""
    means = np.stack([arm.scores.mean(axis=0) for arm in table.arms])
    spread = means.std(axis=0)
    answers = {(t.arm, t.item): t.answer for t in reversed(trials)}  # of several answers the first
    examples = {example.id: example for example in prepared.split.test}
    widest = [i for i in np.argsort(-spread, kind="stable")[:most].tolist() if spread[i] > 0]
    return [
        {
            "item": table.items[i],
            "input": examples[table.items[i]].input,
            "target": examples[table.items[i]].target,
            "answers": {name: answers[name, table.items[i]] for name in table.names},
        }
        for i in widest
    ]
