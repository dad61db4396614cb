"""How many test items a study needs, before anything is run: power analysis by simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy

from tunepoint.data.examples import Example
from tunepoint.data.prepare import prepare
from tunepoint.decision.numbers import rounded_up
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.stats.paired import JointScores
from tunepoint.task.task import Task
from tunepoint.trials.table import joint_of
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import read_trials


def plan_study_size(
    task: Path | None, differences: tuple[float, ...], power: float, study: Path | None, seeds: int
) -> tuple[Design, list[Size]]:
    """Return the design that is assumed, and the test items that a study of it needs for each purpose.

    Args:
        task: file with margin, groups and prices; the defaults if None.
        differences: in mean score, between 0 and 1.
        power: probability of detecting each.
        study: a folder or trials.jsonl whose variances are taken; typical ones if None.
        seeds: training seeds of the tuned arm.

    Raises:
        TunepointError: a file cannot be read, or a number is out of range.

    """
    loaded = Task.load(task) if task is not None else None
    design = Design(seeds=seeds)
    if study is not None:
        path = study / "trials.jsonl" if study.is_dir() else study
        joint = joint_of(tabulate(read_trials(path)))
        first, second = np.argsort(-joint.estimates)[:2].tolist() if len(joint.estimates) > 1 else (0, 0)
        if first == second:
            raise TrialsError(f"{path}: has one arm, and the variance of a difference needs two")
        design = replace(design_of(joint, first, second), seeds=seeds)
    elif loaded is not None and loaded.data is not None and loaded.data.group is not None:
        examples = prepare(loaded, 0).examples
        design = replace(design, cluster_size=cluster_size(list(examples)))
    return design, plan_sizes(loaded, design, differences, power)


MAX_ITEMS = 1_000_000
"""Test items beyond which a size counts as out of reach."""
POWER_SIMULATIONS = 4_000
TYPICAL_DISAGREEMENT = 0.16
"""Share of items on which two arms differ if nothing is measured: scores of .8 that correlate by .5."""
TYPICAL_SEED_SD = 0.008
"""Standard deviation of a trained arm's score over training seeds, if nothing is measured."""


@dataclass(frozen=True)
class Design:
    """What decides how small a difference of two arms a number of items can show."""

    disagreement: float = TYPICAL_DISAGREEMENT
    """Share of items on which the arms differ: the mean square of the paired difference."""
    cluster_size: float = 1.0
    """Items of a group, on average."""
    intraclass: float = 0.1
    """Correlation of the paired differences within a group."""
    seeds: int = 3
    """Training seeds of the trained arm."""
    seed_sd: float = TYPICAL_SEED_SD
    measured: bool = False
    """Whether this comes from a study rather than from the defaults."""

    def __post_init__(self) -> None:
        if not 0 < self.disagreement <= 1:
            raise EvidenceError(f"the share of items that differ must lie in 0..1, got {self.disagreement:g}")
        if self.seeds < 2 and self.seed_sd > 0:
            raise EvidenceError(f"seed variance needs at least 2 training seeds, got {self.seeds}")

    @property
    def design_effect(self) -> float:
        """How many times more items clusters need (Kish 1965, section 5.4)."""
        return 1 + (self.cluster_size - 1) * self.intraclass

    def power(
        self,
        items: int,
        difference: float,
        rng: np.random.Generator,
        *,
        beyond: float = 0.0,
        level: float = 0.95,
    ) -> float:
        """Return the share of simulated studies whose interval lies above `beyond`, at this true difference.

        The variance of an estimate is that of the items over their number plus that of the seeds over
        theirs, each estimated in the study as well, with Welch's degrees of freedom.
        """
        # Arms that differ by 30 points differ on at least 30% of the items.
        differing = max(self.disagreement, difference)
        spread = (differing - difference**2) * self.design_effect / items
        groups = max(2, round(items / self.cluster_size))
        seeding = self.seed_sd**2 / self.seeds
        errors = rng.normal(0, np.sqrt(spread + seeding), POWER_SIMULATIONS)
        item_part = spread * rng.chisquare(groups - 1, POWER_SIMULATIONS) / (groups - 1)
        seed_part = np.zeros(POWER_SIMULATIONS)
        degrees = np.full(POWER_SIMULATIONS, groups - 1.0)
        if seeding > 0:
            seed_part = seeding * rng.chisquare(self.seeds - 1, POWER_SIMULATIONS) / (self.seeds - 1)
            welch = item_part**2 / (groups - 1) + seed_part**2 / (self.seeds - 1)
            degrees = (item_part + seed_part) ** 2 / welch
        half = scipy.stats.t.ppf((1 + level) / 2, degrees) * np.sqrt(item_part + seed_part)
        return float((difference + errors - half > beyond).mean())

    def items_for(
        self, difference: float, power: float, *, beyond: float = 0.0, level: float = 0.95, seed: int = 0
    ) -> int | None:
        """Return the fewest items with that power, to two digits; None if a million are too few."""
        if not difference > beyond:
            raise EvidenceError(f"a difference must lie above {beyond:g}, got {difference:g}")

        def enough(items: int) -> bool:
            rng = np.random.default_rng(seed)  # the same draws at every size, so that power rises with it
            return self.power(items, difference, rng, beyond=beyond, level=level) >= power

        if not enough(MAX_ITEMS):
            return None
        low: int = 4
        high: int = MAX_ITEMS
        # Two percent is finer than the two digits that are returned.
        while high > low + (1 if low < 100 else low // 50):
            middle = max(low + 1, int(np.sqrt(low * high)))
            low, high = (low, middle) if enough(middle) else (middle, high)
        return rounded_up(high)


def design_of(joint: JointScores, arm: int, against: int) -> Design:
    """Return the design that a finished study had, for two of its arms given by position."""
    if joint.means is None or joint.codes is None:
        raise EvidenceError("a design needs the scores of the items, not only their distribution")
    lead = joint.means[:, arm] - joint.means[:, against]
    weights = np.zeros(len(joint.estimates))
    weights[arm], weights[against] = 1.0, -1.0
    size: float = joint.items / joint.groups
    plain = float(lead.var(ddof=1)) / joint.items
    effect = float(weights @ joint.item_covariance @ weights) / plain if plain > 0 else 1.0
    intraclass = 0.0 if size <= 1 else min(1.0, max(0.0, (effect - 1) / (size - 1)))
    seeds = joint.max_seeds or 2
    trained = weights * [arm not in joint.decoded for arm in range(len(weights))]
    seeding = float((joint.seed_covariance * np.outer(trained, trained)).sum())
    seed_sd = (max(seeding, 0.0) * seeds) ** 0.5
    return Design(
        disagreement=max(float(np.mean(lead**2)), 1 / joint.items),
        cluster_size=size,
        intraclass=intraclass,
        seeds=seeds,
        seed_sd=seed_sd,
        measured=True,
    )


@dataclass(frozen=True)
class Size:
    """Test items for one purpose."""

    purpose: str
    items: int | None
    examples: int | None
    """Rows of data that the task's split turns into this many test items."""
    usd: float | None
    """Dollars of labelling those examples."""


def plan_sizes(task: Task | None, design: Design, differences: tuple[float, ...], power: float) -> list[Size]:
    """Return the items that detect each difference, and that show an arm of equal score to be not worse."""
    margin = float(task.limits.margin) if task is not None else 0.02
    impossible = [difference for difference in differences if not 0 < difference < 1]
    if impossible:
        raise EvidenceError(
            f"a difference in mean score lies between 0 and 1, got {impossible[0]:g}; 3 points are 0.03"
        )
    sizes = [
        _size(f"see a difference of {difference:.1%}", design.items_for(difference, power), task)
        for difference in differences
    ]
    if margin > 0:
        items = design.items_for(margin, power)
        sizes.append(_size(f"show that an equal option is not worse (margin {margin:.1%})", items, task))
    return sizes


def _size(purpose: str, items: int | None, task: Task | None) -> Size:
    if items is None or task is None or task.data is None:
        return Size(purpose, items, None, None)
    _, _, test_share = task.data.split
    examples = round(items / test_share)
    minutes, hourly = task.costs.label_minutes.likely, task.costs.hourly_usd.likely
    return Size(purpose, items, examples, examples * minutes / 60 * hourly)


def cluster_size(examples: list[Example]) -> float:
    """Return the items of a group on average, weighted by items as the design effect needs them."""
    sizes: dict[str, int] = {}
    for example in examples:
        name = example.group or f"item {example.id}"
        sizes[name] = sizes.get(name, 0) + 1
    counts = np.array(list(sizes.values()), dtype=float)
    return float((counts**2).sum() / counts.sum()) if len(counts) else 1.0
