"""Trials of several arms side by side on their common items, ready for the statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.comparisons import score_intervals
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores, joint_scores
from tunepoint.trials.trial import Trial

INTERVAL_DRAWS = 4_000
"""Random draws behind the interval of one arm; enough for two digits, which is what tables show."""

MAX_GRADES = 3
"""Grades of one answer: in both orders, and perhaps the first order again."""


def joint_of(table: Table) -> JointScores:
    """Return the joint sampling distribution of the mean scores of a table's arms.

    Raises:
        EvidenceError: the table holds fewer than two independent groups of items.

    """
    arms = table.arms
    graded_groups = [arm.graded_groups for arm in arms if arm.graded_groups is not None]
    try:
        return joint_scores(
            [arm.runs for arm in arms],
            table.clusters,
            [arm.run_names for arm in arms],
            min(graded_groups, default=None),
            frozenset(position for position, arm in enumerate(arms) if arm.decoded),
        )
    except EvidenceError as error:
        if not table.left_out:
            raise
        raise EvidenceError(
            f"{error}; {table.left_out} more items were left out: some arm or seed has no trial of them"
        ) from None


def mean_interval(trials: Sequence[Trial], rng: np.random.Generator | None = None) -> Interval:
    """Return the mean score of one arm's trials with its 95% interval, over items and training seeds.

    Args:
        trials: of one arm.
        rng: draws the interval; None starts a fixed one, so that the same trials show the same interval.

    Raises:
        EvidenceError: the trials are of fewer than two independent groups of items.

    """
    rng = np.random.default_rng(0) if rng is None else rng
    return score_intervals(joint_of(tabulate(trials)), rng, draws=INTERVAL_DRAWS)[0]


@dataclass(frozen=True)
class ArmScores:
    """One arm's scores on the items that all arms share."""

    arm: str
    scores: Floats
    """(seeds, items), the mean over decodes"""
    seeds: tuple[str | None, ...]
    format_ok: float
    """Share of answers that parsed, repaired ones included."""
    repaired: float
    """Share of answers that parsed at the second attempt."""
    failures: tuple[str, ...]
    """Items whose answers were unreadable, each with its error."""
    seconds: Floats
    """Seconds of the answers that have them; may be empty."""
    cost_usd: Floats
    """Dollars of the answers that have them; may be empty."""
    tokens: Floats
    """(answers, 3) input, cached and output tokens of each answer; NaN where unknown."""
    grades: Floats | None = None
    """(3, seeds, items) a judge's grades: answer last, answer first, answer last again; NaN where it
    gave none. None without a judge."""
    human: Floats | None = None
    """(seeds, items) people's grades of the same answers, NaN where nobody graded; None without any."""
    graded_groups: int | None = None
    """Groups of items that people graded, once their grades have corrected the scores."""
    decodes: tuple[Floats, ...] = ()
    """(decodes, items) scores of each seed, if all items were answered equally often and more than once."""
    first: Floats | None = None
    """(seeds, items) scores of the first decode alone; None if every item was answered once."""
    answers: float = 1.0
    """Mean number of answers to an item, over all seeds and decodes."""

    @property
    def decoded(self) -> bool:
        """Whether the runs are decodes: one training seed or prompt that answered more than once."""
        return len(self.seeds) == 1 and len(self.decodes) > 0

    @property
    def runs(self) -> Floats:
        """(runs, items) scores of the training seeds, or of the decodes if there is one seed."""
        return self.decodes[0] if self.decoded else self.scores

    @property
    def decode_variance(self) -> float | None:
        """Variance of the mean score that comes from decoding single items; None with one decode."""
        if not self.decodes:
            return None
        within = [float(runs.var(axis=0, ddof=1).mean()) / len(runs) for runs in self.decodes]
        return float(sum(within) / len(within) / self.scores.size)

    @property
    def run_names(self) -> tuple[Hashable, ...]:
        """Names that pair the runs of different arms: those of the seeds."""
        # Decodes are independent draws, so the name of the arm keeps them from being paired.
        return tuple((self.arm, run) for run in range(len(self.runs))) if self.decoded else self.seeds


@dataclass(frozen=True)
class Table:
    """Trials of several arms on common items, ready for the statistics."""

    items: tuple[str, ...]
    arms: tuple[ArmScores, ...]
    clusters: NDArray[np.intp] | None
    """(items,) cluster codes; None if no trial names a cluster."""
    slices: tuple[str | None, ...]
    """Slice of each item."""
    left_out: int
    """Items that some arm or seed has not answered."""

    @property
    def names(self) -> list[str]:
        """Names of the arms, in order."""
        return [arm.arm for arm in self.arms]

    def subset(self, keep: NDArray[np.bool_]) -> Table:
        """Return the same arms on the items where `keep` is true."""
        arms = tuple(
            replace(
                arm,
                scores=arm.scores[:, keep],
                grades=None if arm.grades is None else arm.grades[:, :, keep],
                human=None if arm.human is None else arm.human[:, keep],
                decodes=tuple(runs[:, keep] for runs in arm.decodes),
                first=None if arm.first is None else arm.first[:, keep],
            )
            for arm in self.arms
        )
        kept = np.flatnonzero(keep).tolist()
        clusters = None if self.clusters is None else self.clusters[keep]
        slices = tuple(self.slices[i] for i in kept)
        return Table(tuple(self.items[i] for i in kept), arms, clusters, slices, self.left_out)


_Run = dict[str, dict[str | None, Trial]]
"""Item -> decode -> trial, of one training seed."""
_Runs = Mapping[str | None, _Run]
"""Training seed -> item -> decode -> trial."""


def tabulate(trials: Iterable[Trial], arms: Sequence[str] | None = None) -> Table:
    """Arrange trials by arm, seed and item; items that some arm or seed lacks are left out.

    Args:
        trials: of any number of arms.
        arms: which arms, in which order; all of them in order of appearance if None.

    Raises:
        TrialsError: an arm without trials, no common item, or an item in two clusters.

    """
    grouped: dict[str, _Runs] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for trial in trials:
        grouped[trial.arm][trial.seed][trial.item][trial.decode] = trial
    names = list(arms) if arms is not None else list(grouped)
    missing = [name for name in names if name not in grouped]
    if missing or not names:
        raise TrialsError(f"no trials of {', '.join(map(repr, missing)) or 'any arm'}")
    runs = [run for name in names for run in grouped[name].values()]
    # Arms are compared item by item, so an item counts only if every run has answered it.
    all_items = dict.fromkeys(item for run in runs for item in run)
    items = tuple(item for item in all_items if all(item in run for run in runs))
    if not items:
        raise TrialsError(_no_common_item(grouped, names, len(all_items)))
    clusters = _clusters(_names(items, runs, "cluster", lambda trial: trial.cluster), items)
    slices = _names(items, runs, "slice", lambda trial: trial.slice)
    scores = tuple(_arm_scores(name, grouped[name], items) for name in names)
    return Table(items, scores, clusters, tuple(map(slices.get, items)), len(all_items) - len(items))


def _no_common_item(grouped: Mapping[str, _Runs], names: Sequence[str], items: int) -> str:
    """Return the message for trials without a common item: of the seeds of one arm, or of the arms."""
    for name in names:
        seeds = grouped[name]
        if len(seeds) > 1 and not set.intersection(*(set(run) for run in seeds.values())):
            listed = ", ".join("no seed" if seed is None else f"seed {seed}" for seed in seeds)
            return (
                f"arm {name!r}: its training seeds ({listed}) share no item; name the seed on every line "
                "or on none, and give every seed the same items"
            )
    sizes = ", ".join(f"{name!r} {len(next(iter(grouped[name].values())))}" for name in names[:5])
    return (
        f"the arms share none of {items} items (items by arm: {sizes}); "
        "arms are compared on the same items only: check the item names"
    )


def _names(
    items: Sequence[str], runs: Sequence[_Run], what: str, name_of: Callable[[Trial], str | None]
) -> dict[str, str]:
    """Return item -> its slice or cluster, which any of its trials may name.

    Raises:
        TrialsError: two trials of an item name different ones.

    """
    names: dict[str, str] = {}
    for run in runs:
        for item in items:
            for trial in run[item].values():
                name = name_of(trial)
                if name is not None and names.setdefault(item, name) != name:
                    raise TrialsError(f"item {item!r} is in {what} {names[item]!r} and in {name!r}")
    return names


def _clusters(names: Mapping[str, str], items: Sequence[str]) -> NDArray[np.intp] | None:
    """Return the (items,) cluster codes; an item without a cluster is a cluster of its own."""
    if not names:
        return None
    codes: dict[tuple[bool, str], int] = {}
    # The flag keeps an item apart from a cluster of the same name.
    keys = [(item in names, names.get(item, item)) for item in items]
    return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.intp)


def _arm_scores(name: str, runs: _Runs, items: Sequence[str]) -> ArmScores:
    """Return an arm's scores; an item with several decodes counts as their mean."""
    seeds = tuple(sorted(runs, key=str))
    cells = [[_decodes(runs[seed][item]) for item in items] for seed in seeds]
    trials = [trial for row in cells for cell in row for trial in cell]
    firsts = [[cell[0] for cell in row] for row in cells]
    decode_counts = {len(cell) for row in cells for cell in row}
    decodes: tuple[Floats, ...] = ()
    # Unequal numbers of decodes make no rectangle; then only their mean is used.
    if len(decode_counts) == 1 and decode_counts != {1}:
        decodes = tuple(np.array([[trial.score for trial in cell] for cell in row]).T for row in cells)
    failures = dict.fromkeys(f"{t.item}: {t.error}" for t in trials if not t.format_ok and t.error)
    tokens = [(trial.input_tokens, trial.cached_tokens, trial.output_tokens) for trial in trials]
    return ArmScores(
        name,
        np.array([[sum(trial.score for trial in cell) / len(cell) for cell in row] for row in cells]),
        seeds,
        format_ok=sum(trial.format_ok for trial in trials) / len(trials),
        repaired=sum(trial.repaired is True for trial in trials) / len(trials),
        failures=tuple(failures),
        seconds=_without_none(trial.seconds for trial in trials),
        cost_usd=_without_none(trial.cost_usd for trial in trials),
        tokens=np.array(tokens, dtype=np.float64),
        grades=_grades(firsts) if any(trial.grades for trial in trials) else None,
        human=_human(firsts),
        decodes=decodes,
        first=None if decode_counts == {1} else np.array([[t.score for t in row] for row in firsts]),
        answers=len(trials) / len(items),
    )


def _decodes(cell: Mapping[str | None, Trial]) -> list[Trial]:
    """Return the decodes of an answer, the unnamed one first."""
    if len(cell) == 1:
        return list(cell.values())
    return [cell[name] for name in sorted(cell, key=lambda name: (name is not None, str(name)))]


def _grades(firsts: Sequence[Sequence[Trial]]) -> Floats:
    """Return the (3, seeds, items) grades of a judge, of the first decodes; NaN where it gave none."""
    table = np.full((MAX_GRADES, len(firsts), len(firsts[0])), np.nan)
    for seed, row in enumerate(firsts):
        for column, trial in enumerate(row):
            grades = (trial.grades or ())[:MAX_GRADES]
            table[: len(grades), seed, column] = grades
    return table


def _human(firsts: Sequence[Sequence[Trial]]) -> Floats | None:
    """Return the (seeds, items) grades of people, who grade first decodes; None if there are none."""
    if all(trial.human is None for row in firsts for trial in row):
        return None
    return np.array([[trial.human for trial in row] for row in firsts], dtype=np.float64)


def _without_none(values: Iterable[float | None]) -> Floats:
    return np.array([value for value in values if value is not None], dtype=np.float64)
