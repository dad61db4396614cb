"""In which order the inputs of a pool are labelled."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from tunepoint.decision.verdict import Decision
from tunepoint.stats.arrays import Floats
from tunepoint.stats.disagreements import OTHERS_WEIGHT
from tunepoint.study.labelling.pool import Pool


def label_times(pool: Pool, alone: Decision, draws: Floats) -> Floats:
    """Return (N,) of each input, when its turn comes: the smallest first.

    Within a stratum the order is random. Between strata, inputs come earlier on which the winner of the test
    set differs from the option that puts it most in doubt, up to four times earlier than where it differs
    from none. No label changes it: an order that follows the labels would make the labelled inputs of a
    stratum another sample than a random one.

    Args:
        pool: the inputs with their answers.
        alone: the verdict of the test set, without the pool.
        draws: (N,) uniform on 0..1.

    """
    weights = np.ones(len(pool.inputs))
    if alone.winner in pool.arms:
        winner, names = pool.arms.index(alone.winner), alone.evidence.costs.arms
        doubts = alone.evidence.doubts_about(names.index(alone.winner))[[names.index(a) for a in pool.arms]]
        doubts /= max(float(np.delete(doubts, winner).max()), 1e-12)
        for stratum in np.unique(pool.strata).tolist():
            inside = np.flatnonzero(pool.strata == stratum)
            first = np.array([runs[0] for runs in pool.patterns[inside[0]]])
            if first.any():  # else only later runs differ
                differs = first != first[winner]
                weights[inside] = max(OTHERS_WEIGHT, doubts[differs].max(initial=0.0))
    # the smallest of exponential times: an order with chances in proportion to the weights
    times: Floats = -np.log1p(-draws) / weights
    return times


def next_inputs(pool: Pool, times: Floats, count: int, labelled: Collection[int]) -> Sequence[int]:
    """Return the positions of the next disputed inputs without a label."""
    left = [i for i in pool.disputed if i not in labelled]
    return sorted(left, key=times.__getitem__)[:count]
