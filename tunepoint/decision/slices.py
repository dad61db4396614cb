"""Where one arm is better and where another: differences by slice, and whether routing would win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunepoint.stats.arrays import Floats
from tunepoint.stats.calibrated import cluster_error
from tunepoint.stats.comparisons import compare
from tunepoint.stats.exact import MIN_NORMAL_GROUPS
from tunepoint.stats.intervals import Interval
from tunepoint.trials.judge_quality import calibrate
from tunepoint.trials.table import Table, joint_of
from tunepoint.trials.trial import ArmKind

FALSE_DISCOVERY_RATE = 0.05
"""Share of slices called different that may be called so by chance."""
MAX_SLICES = 200
"""Slices from which on a column is taken for an identifier."""


@dataclass(frozen=True)
class Slice:
    """One slice: an arm against another on its items."""

    name: str
    items: int
    difference: Interval
    """95%, of this slice alone."""
    p_adjusted: float
    """That there is no difference here, adjusted for false discovery (Benjamini and Hochberg 1995)."""
    better: str | None
    """The arm that is better here; None where the slices together do not show it."""


@dataclass(frozen=True)
class Routing:
    """One arm for some slices, another for the rest, judged on items that did not choose it."""

    arms: Mapping[str, tuple[str, ...]]
    """Arm -> the slices that it should answer."""
    single: str
    """The best arm alone."""
    gain: Interval
    """In mean score over it, on held-out items, with the 95% interval."""
    optimism: float
    """What the items that chose promise beyond that."""

    @property
    def wins(self) -> bool:
        """Whether routing wins by more than its optimism, and not by chance."""
        return self.gain.low > 0 and self.gain.estimate > self.optimism


@dataclass(frozen=True)
class Sliced:
    """Differences of two arms by slice."""

    by: str
    """What the slices are: the slice column, or the labels."""
    arm: str
    against: str
    slices: tuple[Slice, ...]
    too_small: tuple[str, ...]
    """Slices with too few independent items for a difference."""
    routing: Routing | None


def by_slice(
    table: Table,
    kinds: Sequence[ArmKind],
    rng: np.random.Generator,
    *,
    labels: Mapping[str, str] | None = None,
    answered: Mapping[str, str] | None = None,
) -> Sliced | None:
    """The best tuned arm against the best prompted one, slice by slice; None without slices.

    Args:
        table: trials of the finalists.
        kinds: of its arms, in order.
        labels: item -> its target, for tasks with labels; they are the slices where no column is.
        answered: item -> the label that the tuned arm answers: what a router can see before it asks
            the prompted arm, where the target itself cannot be seen.

    """
    table, _ = calibrate(table)
    names, by = [name if name is not None else "" for name in table.slices], "slice"
    keys = names
    if not any(names) and labels is not None:
        names, by = [labels.get(item, "") for item in table.items], "label"
        keys = [(answered or {}).get(item, "") for item in table.items]
    if not 2 <= len(set(names) - {""}) <= MAX_SLICES:
        return None
    arm, against = _pair(table, kinds)
    found, small = [], []
    for name in sorted(set(names) - {""}):
        here = np.array([other == name for other in names])
        part = table.only(here)
        groups = int(here.sum()) if part.clusters is None else len(np.unique(part.clusters))
        if groups < MIN_NORMAL_GROUPS:
            small.append(name)
            continue
        found.append((name, int(here.sum()), compare(joint_of(part), [(arm, against)], rng)[0]))
    p_values = [one.p_value for *_, one in found]
    adjusted: Sequence[float] = stats.false_discovery_control(p_values).tolist() if found else []
    first, second = table.names[arm], table.names[against]
    slices = tuple(
        Slice(name, items, one.difference, p, _better(one.difference, p, first, second))
        for (name, items, one), p in zip(found, adjusted, strict=True)
    )
    return Sliced(by, first, second, slices, tuple(small), _routing(table, arm, against, keys, rng))


def _better(difference: Interval, p_value: float, arm: str, against: str) -> str | None:
    if p_value > FALSE_DISCOVERY_RATE:
        return None
    return arm if difference.estimate > 0 else against


def _pair(table: Table, kinds: Sequence[ArmKind]) -> tuple[int, int]:
    """The best tuned and the best prompted arm; the best two where one side is missing."""
    order = sorted(range(len(kinds)), key=lambda i: -float(table.arms[i].scores.mean()))
    tuned = [i for i in order if kinds[i] in ("tuned", "hybrid")]
    prompted = [i for i in order if kinds[i] in ("prompt", "incumbent")]
    return (tuned[0], prompted[0]) if tuned and prompted else (order[0], order[1])


def _routing(
    table: Table, arm: int, against: int, keys: Sequence[str], rng: np.random.Generator
) -> Routing | None:
    """Choose an arm for every slice on half of the groups, and look at the other half.

    One split, not cross-validation: there the same slices choose and are looked at in turn, the
    folds' gains go together, and equal arms would be routed in 14% of studies instead of 2.5%.
    """
    pair = np.stack([table.arms[i].scores.mean(axis=0) for i in (arm, against)])
    codes = (
        np.arange(len(keys)) if table.clusters is None else np.unique(table.clusters, return_inverse=True)[1]
    )
    slices: NDArray[np.intp] = np.unique(keys, return_inverse=True)[1]
    groups, count = int(codes.max()) + 1, int(slices.max()) + 1
    if groups < 2 * MIN_NORMAL_GROUPS or count < 2:
        return None
    out = (rng.permutation(groups) % 2 == 0)[codes]
    choice, single = _choose(pair[:, ~out], slices[~out], count)
    if len(set(choice.tolist())) < 2:
        return None
    gains = pair[choice[slices], np.arange(len(keys))] - pair[single]
    mean = float(gains[out].mean())
    half = float(stats.t.ppf(0.975, len(set(codes[out].tolist())) - 1)) * cluster_error(
        gains[out], codes[out]
    )
    names, found = (table.names[arm], table.names[against]), np.unique(keys)
    arms = {name: tuple(found[choice == i].tolist()) for i, name in enumerate(names)}
    optimism = float(gains[~out].mean()) - mean
    return Routing(arms, names[single], Interval(mean, mean - half, mean + half), optimism)


def _choose(pair: Floats, slices: NDArray[np.intp], count: int) -> tuple[NDArray[np.intp], int]:
    """(count,) which of two arms does better in every slice, and the better one in all."""
    single = int(pair[1].mean() > pair[0].mean())
    lead = np.bincount(slices, weights=pair[0] - pair[1], minlength=count)
    choice = np.where(lead == 0, single, (lead < 0).astype(np.intp))
    return np.asarray(choice, dtype=np.intp), single


def routing_words(sliced: Sliced) -> str | None:
    """The suggestion in a sentence, where routing wins."""
    routing = sliced.routing
    if routing is None or not routing.wins:
        return None
    parts = " and ".join(f"{arm} for {len(names)}" for arm, names in routing.arms.items())
    seen = "answered " if sliced.by == "label" else ""
    return (
        f"routing by {seen}{sliced.by} ({parts} of them) gains {routing.gain.estimate:+.3f} "
        f"({routing.gain.low:+.3f} to {routing.gain.high:+.3f}) over {routing.single} alone on held-out items"
    )
