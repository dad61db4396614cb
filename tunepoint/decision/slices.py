"""Where one arm is better and where another: differences by slice, and whether routing would win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from tunepoint.decision.numbers import points_interval
from tunepoint.decision.sides import CONTROL_KINDS, PROMPTED_KINDS, TUNED_KINDS, best_of
from tunepoint.stats.arrays import Floats, Integers
from tunepoint.stats.calibrated import cluster_error
from tunepoint.stats.comparisons import Comparison, compare
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
    """Test items in it."""
    labels: int
    """Labels outside the test set, where arms disagree on an input of it."""
    difference: Interval
    """95%, of this slice alone."""
    p_adjusted: float
    """P-value of no difference here, adjusted for false discovery (Benjamini and Hochberg 1995)."""
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
    """In mean score over `single`, on held-out items, with the 95% interval."""
    optimism: float
    """How much more the items that chose the routing promise."""

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
    """Compare the best tuned arm with its rival, slice by slice; None without slices.

    Args:
        table: trials of the finalists. Where a column names slices, those of its pool count too; which label
            is right for an input of the pool is not known.
        kinds: of its arms, in order.
        rng: draws the intervals slice by slice, then the held-out half for routing.
        labels: item -> its target, for tasks with labels; they are the slices where no column is.
        answered: item -> the label that the tuned arm answers: what a router can see before it asks
            the prompted arm, where the target itself cannot be seen.

    """
    table, _ = calibrate(table)  # slices compare the scores that the verdict compares
    names, by = [name if name is not None else "" for name in table.slices], "slice"
    router_keys = names
    if not any(names) and labels is not None:
        table = replace(table, pool=None)
        names, by = [labels.get(item, "") for item in table.items], "label"
        router_keys = [(answered or {}).get(item, "") for item in table.items]
    if not 2 <= len(set(names) - {""}) <= MAX_SLICES:
        return None
    pair = _tuned_and_rival(table, kinds)
    slices, too_small = _compare_slices(table, pair, names, rng)
    return Sliced(
        by=by,
        arm=table.names[pair[0]],
        against=table.names[pair[1]],
        slices=slices,
        too_small=too_small,
        routing=_routing(table, pair, router_keys, rng),
    )


def _tuned_and_rival(table: Table, kinds: Sequence[ArmKind]) -> tuple[int, int]:
    """The best tuned arm, and the best prompted one or, without any, the best control; else the best two."""
    scores = [float(arm.scores.mean()) for arm in table.arms]
    tuned = best_of(kinds, scores, TUNED_KINDS)
    for side in (PROMPTED_KINDS, CONTROL_KINDS):
        rival = best_of(kinds, scores, side)
        if tuned is not None and rival is not None:
            return tuned, rival
    first, second = sorted(range(len(scores)), key=lambda arm: -scores[arm])[:2]
    return first, second


def _compare_slices(
    table: Table, pair: tuple[int, int], names: Sequence[str], rng: np.random.Generator
) -> tuple[tuple[Slice, ...], tuple[str, ...]]:
    """The differences of two arms by slice, and the names of the slices that are too small."""
    compared: list[tuple[str, Table, Comparison]] = []
    too_small = []
    for name in sorted(set(names) - {""}):
        of_pool = None
        if table.pool is not None:
            of_pool = np.array([other == name for other in table.pool.slices])
        part = table.subset(np.array([other == name for other in names]), of_pool)
        groups = len(part.items) if part.clusters is None else len(np.unique(part.clusters))
        if groups < MIN_NORMAL_GROUPS:
            too_small.append(name)
            continue
        compared.append((name, part, compare(joint_of(part), [pair], rng)[0]))
    p_values = [comparison.p_value for *_, comparison in compared]
    adjusted: Sequence[float] = scipy.stats.false_discovery_control(p_values).tolist() if compared else []
    slices = tuple(
        Slice(
            name=name,
            items=len(part.items),
            labels=0 if part.pool is None else len(part.pool.labelled),
            difference=comparison.difference,
            p_adjusted=p_value,
            better=_better(comparison.difference, p_value, table.names[pair[0]], table.names[pair[1]]),
        )
        for (name, part, comparison), p_value in zip(compared, adjusted, strict=True)
    )
    return slices, tuple(too_small)


def _better(difference: Interval, p_value: float, arm: str, against: str) -> str | None:
    if p_value > FALSE_DISCOVERY_RATE:
        return None
    return arm if difference.estimate > 0 else against


def _routing(
    table: Table, pair: tuple[int, int], keys: Sequence[str], rng: np.random.Generator
) -> Routing | None:
    """Choose an arm for every slice on half of the groups, and measure the gain on the other half.

    One split, not cross-validation: there the same slices choose and are measured in turn, the
    folds' gains go together, and equal arms would be routed in 14% of studies instead of 2.5%.
    """
    scores = np.stack([table.arms[arm].scores.mean(axis=0) for arm in pair])
    codes = np.arange(len(keys))
    if table.clusters is not None:
        codes = np.unique(table.clusters, return_inverse=True)[1]
    unique_keys, slices = np.unique(keys, return_inverse=True)
    groups, count = int(codes.max()) + 1, len(unique_keys)
    if groups < 2 * MIN_NORMAL_GROUPS or count < 2:
        return None
    held_out = (rng.permutation(groups) % 2 == 0)[codes]  # groups stay whole
    choice, single = _choose(scores[:, ~held_out], slices[~held_out], count)
    if len(set(choice.tolist())) < 2:
        return None
    gains = scores[choice[slices], np.arange(len(keys))] - scores[single]
    mean = float(gains[held_out].mean())
    degrees = len(set(codes[held_out].tolist())) - 1
    error = cluster_error(gains[held_out], codes[held_out])
    half_width = float(scipy.stats.t.ppf(0.975, degrees)) * error
    names = [table.names[arm] for arm in pair]
    return Routing(
        arms={name: tuple(unique_keys[choice == i].tolist()) for i, name in enumerate(names)},
        single=names[single],
        gain=Interval(mean, mean - half_width, mean + half_width),
        optimism=float(gains[~held_out].mean()) - mean,
    )


def _choose(scores: Floats, slices: Integers, count: int) -> tuple[Integers, int]:
    """(count,) which of two arms does better in every slice, and the better one in all."""
    single = int(scores[1].mean() > scores[0].mean())
    lead = np.bincount(slices, weights=scores[0] - scores[1], minlength=count)
    choice = np.where(lead == 0, single, (lead < 0).astype(np.intp))
    return np.asarray(choice, dtype=np.intp), single


def routing_words(sliced: Sliced, titles: Mapping[str, str] | None = None) -> str | None:
    """Return the suggestion in a sentence, where routing wins."""
    routing, titles = sliced.routing, titles or {}
    if routing is None or not routing.wins:
        return None
    parts = " and ".join(f"{titles.get(arm, arm)} for {len(names)}" for arm, names in routing.arms.items())
    answered = "answered " if sliced.by == "label" else ""
    return (
        f"Routing by {answered}{sliced.by} ({parts} of them) gains {points_interval(routing.gain)} over "
        f"{titles.get(routing.single, routing.single)} alone on held-out items."
    )
