"""Named streams of random numbers: one seed, and one independent stream for each purpose."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream of random numbers is for.

    The numbers are part of every study on disk: never change or reuse one.
    """

    FIT = 0
    SPLIT = 1
    CURVE = 2
    DECISION = 3
    DEV_ORDER = 4
    GRADING_SHEET = 5
    SLICES = 6
    TEST_ORDER = 7
    PURCHASES = 8
    LEARNING_CURVE = 9
    NOVELTY = 10
    DISTILLATION = 11
    SAVINGS = 11
    """The number of DISTILLATION, as recorded; the two never meet in one draw."""
    SAVINGS_MACHINES = 12
    HARVEST = 13
    DRIFT = 14
    LABELS = 15


def stream(seed: int, purpose: Stream, *numbers: int) -> np.random.Generator:
    """Return the generator for a purpose.

    Args:
        seed: of the study.
        purpose: what the numbers are for.
        numbers: distinguish several streams of one purpose, such as the rounds of a loop.

    """
    return np.random.default_rng([seed, int(purpose), *numbers])
