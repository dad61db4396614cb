"""In which order the inputs of a pool are labelled."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from tunepoint.decision.verdict import Decision
from tunepoint.stats.arrays import Floats
from tunepoint.stats.disagreements import OTHERS_WEIGHT
from tunepoint.study.labelling.pool import Pool


def label_times(pool: Pool, alone: Decision, margin: float, draws: Floats) -> Floats:
    """Return (N,) of each input, when its turn comes: the smallest first.

    Within a stratum the order is random. Between strata, inputs on which the winner of the test set differs
    from an option that may beat it come up to four times earlier. No label changes it: an order that follows
    the labels would make the labelled inputs of a stratum another sample than a random one.

    Args:
        pool: the inputs with their answers.
        alone: the verdict of the test set, without the pool.
        margin: lead of the winner from which an option counts as beaten.
        draws: (N,) uniform on 0..1.

    """
    beaten = {d.against for d in alone.differences if d.difference.low > margin}
    rivals = [place for place, arm in enumerate(pool.arms) if arm != alone.winner and arm not in beaten]
    winner = pool.arms.index(alone.winner) if alone.winner in pool.arms else None
    weights = np.ones(len(pool.inputs))
    if winner is not None:
        for stratum in np.unique(pool.strata).tolist():
            inside = np.flatnonzero(pool.strata == stratum)
            first = [runs[0] for runs in pool.patterns[inside[0]]]
            if any(first) and all(first[winner] == first[rival] for rival in rivals):
                weights[inside] = OTHERS_WEIGHT
    # the smallest of exponential times: an order with chances in proportion to the weights
    times: Floats = -np.log1p(-draws) / weights
    return times


def next_inputs(pool: Pool, times: Floats, count: int, labelled: Collection[int]) -> Sequence[int]:
    """Return the positions of the next disputed inputs without a label."""
    left = [i for i in pool.disputed if i not in labelled]
    return sorted(left, key=times.__getitem__)[:count]
