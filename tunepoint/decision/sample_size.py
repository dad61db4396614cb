"""How many test items a study needs, said before anything is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from tunepoint.data.examples import Example
from tunepoint.data.prepare import prepare
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.stats.paired import JointScores
from tunepoint.task.task import Task
from tunepoint.trials.table import joint_of, tabulate
from tunepoint.trials.trial import read_trials

# -- before anything is run ------------------------------------------------------------------


def plan_study_size(
    task: Path | None, differences: tuple[float, ...], power: float, study: Path | None, seeds: int
) -> tuple[Design, list[Size]]:
    """The sizes that a study needs.

    Args:
        task: its margin, groups and prices count; the defaults if None.
        differences: in mean score, between 0 and 1.
        power: probability of seeing each.
        study: a folder or trials.jsonl whose variances count; typical ones if None.
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
            raise TrialsError(f"{path}: has one arm; variances of a difference need two")
        design = replace(design_of(joint, first, second), seeds=seeds)
    elif loaded is not None and loaded.data is not None and loaded.data.group is not None:
        examples = prepare(loaded, 0).examples
        design = replace(design, cluster_size=cluster_size(list(examples)))
    return design, plan_sizes(loaded, design, differences, power)


MOST = 1_000_000
"""Items beyond which a size is said to be out of reach."""
SIMULATIONS = 4_000
DISAGREEMENT = 0.16
"""Share of items on which two arms differ, where nothing is measured: scores of .8 that correlate by .5."""
SEED_SD = 0.008
"""Standard deviation of a trained arm's score over training seeds, where nothing is measured."""


@dataclass(frozen=True)
class Design:
    """What decides how much a number of items can show of the difference of two arms."""

    disagreement: float = DISAGREEMENT
    """Share of items on which the arms differ: the mean square of the paired difference."""
    cluster_size: float = 1.0
    """Items of a group, on average."""
    intraclass: float = 0.1
    """Correlation of the paired differences within a group."""
    seeds: int = 3
    """Training seeds of the trained arm."""
    seed_sd: float = SEED_SD
    measured: bool = False
    """Whether this comes from a study rather than from the defaults."""

    def __post_init__(self) -> None:
        if not 0 < self.disagreement <= 1:
            raise EvidenceError(f"the share of items that differ lies in 0..1, got {self.disagreement:g}")
        if self.seeds < 2 and self.seed_sd > 0:
            raise EvidenceError(f"seed variance takes at least 2 training seeds, got {self.seeds}")

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
        """Share of simulated studies whose interval lies above `beyond`, if the true difference is this.

        The variance of an estimate is that of the items over their number plus that of the seeds over
        theirs, each estimated in the study as well, with Welch's degrees of freedom.
        """
        # right or wrong, arms differ on at least as many items as they differ by
        differing = max(self.disagreement, difference)
        spread = (differing - difference**2) * self.design_effect / items
        groups = max(2, round(items / self.cluster_size))
        seeding = self.seed_sd**2 / self.seeds
        errors = rng.normal(0, np.sqrt(spread + seeding), SIMULATIONS)
        item_part = spread * rng.chisquare(groups - 1, SIMULATIONS) / (groups - 1)
        seed_part = np.zeros(SIMULATIONS)
        degrees = np.full(SIMULATIONS, groups - 1.0)
        if seeding > 0:
            seed_part = seeding * rng.chisquare(self.seeds - 1, SIMULATIONS) / (self.seeds - 1)
            welch = item_part**2 / (groups - 1) + seed_part**2 / (self.seeds - 1)
            degrees = (item_part + seed_part) ** 2 / welch
        half = stats.t.ppf((1 + level) / 2, degrees) * np.sqrt(item_part + seed_part)
        return float((difference + errors - half > beyond).mean())

    def items_for(
        self, difference: float, power: float, *, beyond: float = 0.0, level: float = 0.95, seed: int = 0
    ) -> int | None:
        """The fewest items with that power, to two digits; None if a million are too few."""
        if not difference > beyond:
            raise EvidenceError(f"a difference of {difference:g} does not lie above {beyond:g}")

        def enough(items: int) -> bool:
            rng = np.random.default_rng(seed)
            return self.power(items, difference, rng, beyond=beyond, level=level) >= power

        if not enough(MOST):
            return None
        low: int = 4
        high: int = MOST
        while high > low + (1 if low < 100 else low // 50):
            middle = max(low + 1, int(np.sqrt(low * high)))
            low, high = (low, middle) if enough(middle) else (middle, high)
        digits = int(10 ** max(0, len(str(high)) - 2))
        return -(-high // digits) * digits


def design_of(joint: JointScores, arm: int, against: int) -> Design:
    """The design that a finished study had, for two of its arms given by position."""
    if joint.means is None or joint.codes is None:
        raise EvidenceError("the scores of the items are needed, not only their distribution")
    lead = joint.means[:, arm] - joint.means[:, against]
    weights = np.zeros(len(joint.estimates))
    weights[arm], weights[against] = 1.0, -1.0
    size: float = joint.items / joint.groups
    plain = float(lead.var(ddof=1)) / joint.items
    effect = float(weights @ joint.item_covariance @ weights) / plain if plain > 0 else 1.0
    intraclass = 0.0 if size <= 1 else min(1.0, max(0.0, (effect - 1) / (size - 1)))
    most = joint.most_seeds or 2
    trained = weights * [arm not in joint.decoded for arm in range(len(weights))]
    seeding = float((joint.seed_covariance * np.outer(trained, trained)).sum())
    seed_sd = (max(seeding, 0.0) * most) ** 0.5
    share = max(float(np.mean(lead**2)), 1 / joint.items)
    return Design(share, size, intraclass, most, seed_sd, measured=True)


@dataclass(frozen=True)
class Size:
    """Test items for one purpose."""

    purpose: str
    items: int | None
    examples: int | None
    """Rows of data for so many test items, at the task's split."""
    usd: float | None
    """Labels of those examples."""


def plan_sizes(task: Task | None, design: Design, differences: tuple[float, ...], power: float) -> list[Size]:
    """Items to see differences, and to call a cheaper arm of equal score not worse."""
    margin = float(task.limits.margin) if task is not None else 0.02
    wrong = [difference for difference in differences if not 0 < difference < 1]
    if wrong:
        raise EvidenceError(
            f"a difference in mean score lies between 0 and 1, got {wrong[0]:g}; 3 points are 0.03"
        )
    found = []
    for difference in differences:
        items = design.items_for(difference, power)
        found.append(_size(f"see a difference of {difference:.1%}", items, task))
    if margin <= 0:
        return found
    equal = design.items_for(margin, power)
    found.append(_size(f"call an arm of equal score not worse (margin {margin:.1%})", equal, task))
    return found


def _size(purpose: str, items: int | None, task: Task | None) -> Size:
    if items is None or task is None or task.data is None:
        return Size(purpose, items, None, None)
    examples = round(items / task.data.split[2])
    minutes, hourly = task.costs.label_minutes.likely, task.costs.hourly_usd.likely
    return Size(purpose, items, examples, examples * minutes / 60 * hourly)


def cluster_size(examples: list[Example]) -> float:
    """Items of a group, on average, weighted by items as the design effect needs them."""
    sizes: dict[str, int] = {}
    for example in examples:
        name = example.group or f"item {example.id}"
        sizes[name] = sizes.get(name, 0) + 1
    counts = np.array(list(sizes.values()), dtype=float)
    return float((counts**2).sum() / counts.sum()) if len(counts) else 1.0
