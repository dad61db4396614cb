"""In which order the inputs of a pool are labelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunepoint.decision.verdict import Decision
from tunepoint.stats.arrays import Floats
from tunepoint.study.labelling.pool import Pool
from tunepoint.study.records import LabelOrder


def label_order(alone: Decision) -> LabelOrder:
    """Return which inputs come first: those on which the winner differs from what puts it most in doubt.

    Args:
        alone: the verdict of the test set, without a pool.

    """
    names = alone.evidence.costs.arms
    doubts = alone.evidence.doubts_about(names.index(alone.winner)).tolist()
    return LabelOrder(
        winner=alone.winner,
        doubts={name: doubt for name, doubt in zip(names, doubts, strict=True) if name != alone.winner},
    )


def next_inputs(pool: Pool, draws: Floats, count: int) -> Sequence[int]:
    """Return the positions of the next disputed inputs without a label.

    Within a stratum the order is random; between strata the weights of the pool are the chances. No label
    changes it: an order that follows the labels would make the labelled inputs of a stratum another sample
    than a random one. What was left without a label comes first again.

    Args:
        pool: the inputs with their answers and labels.
        draws: (N,) uniform on 0..1, the same at every call.
        count: of inputs.

    """
    # the smallest of exponential times: an order with chances in proportion to the weights
    times = -np.log1p(-draws) / pool.weights
    labelled = set(pool.labelled)
    left = [i for i in pool.disputed if i not in labelled]
    return sorted(left, key=times.__getitem__)[:count]
