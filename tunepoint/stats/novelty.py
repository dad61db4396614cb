"""Novelty: whether inputs are less like known inputs than those are like each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_COMPARED_INPUTS = 2_000
"""Inputs compared on either side; a random sample stands for more, as every pair takes a product."""
USUAL_NOVELTY = 0.05
"""Share of inputs that are novel when nothing has changed; it defines novelty."""


def nearest_similarity(
    known: NDArray[np.float32], inputs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Return the similarity of each input to its nearest known input, and the value below which it is novel.

    An input is novel if it is less like its nearest known input than 95% of the known inputs are like
    theirs.

    Args:
        known: (k, width) unit vectors, k at least 2.
        inputs: (n, width) unit vectors.

    Returns:
        (n,) cosine similarities, and the threshold.

    """
    among = known @ known.T
    np.fill_diagonal(among, -1.0)  # no input is its own nearest neighbor
    threshold = float(np.quantile(among.max(axis=1), USUAL_NOVELTY))
    nearest: NDArray[np.float32] = (inputs @ known.T).max(axis=1)
    return nearest, threshold
