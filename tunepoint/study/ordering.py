"""Examples in random order, near duplicates side by side."""

from __future__ import annotations

from collections.abc import Sequence

from tunepoint.data.examples import Example
from tunepoint.stats.streams import Stream
from tunepoint.study.runner import Runner


def shuffled(runner: Runner, examples: Sequence[Example], purpose: Stream) -> list[Example]:
    """Return the examples in an order that only the seed and the purpose decide.

    Items of a cluster stand side by side, so that a part that ends between two clusters splits none.
    """
    clusters = runner.prepared.split.clusters
    rng = runner.study.rng(purpose)
    order = [examples[i] for i in rng.permutation(len(examples)).tolist()]
    places: dict[str, int] = {}
    for example in order:
        places.setdefault(clusters[example.id], len(places))
    return sorted(order, key=lambda example: places[clusters[example.id]])


def shuffled_dev(runner: Runner) -> list[Example]:
    """Return the validation items in the order in which arms race on them."""
    return shuffled(runner, runner.prepared.split.dev, Stream.DEV_ORDER)
