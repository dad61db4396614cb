"""Trials of several arms side by side on their common items, ready for the statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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


def joint_of(table: Table) -> JointScores:
    """Joint sampling distribution of the arms of a table."""
    arms = table.arms
    labelled = [arm.graded_groups for arm in arms if arm.graded_groups is not None]
    try:
        return joint_scores(
            [arm.runs for arm in arms],
            table.clusters,
            [arm.run_names for arm in arms],
            min(labelled, default=None),
            frozenset(position for position, arm in enumerate(arms) if arm.decoded),
        )
    except EvidenceError as error:
        if not table.left_out:
            raise
        lacking = f"{table.left_out} more items were left out because some arm or seed has no trial of them"
        raise EvidenceError(f"{error}; {lacking}") from None


def mean_interval(trials: Sequence[Trial], rng: np.random.Generator | None = None) -> Interval:
    """Return the mean score of one arm's trials with its 95% interval, over items and training seeds.

    Args:
        trials: of one arm.
        rng: draws the interval; None draws it as always, so that a table shows it unchanged.

    Raises:
        EvidenceError: the trials are of fewer than two independent items.

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
    """Items whose answers failed, each with why."""
    seconds: Floats
    """Seconds of each answer, those that have them; may be empty."""
    cost_usd: Floats
    """Dollars of each answer, those that have them; may be empty."""
    tokens: Floats
    """(seeds * items, 3) input, cached and output tokens of each answer; NaN where it has none."""
    grades: Floats | None = None
    """(3, seeds, items) a judge's grades: answer last, answer first, the first again; NaN where it
    gave none, and None where no judge graded."""
    human: Floats | None = None
    """(seeds, items) what people gave the same answers, NaN where nobody looked; None without any."""
    graded_groups: int | None = None
    """Groups of items that people scored, once their scores have corrected these."""
    decodes: tuple[Floats, ...] = ()
    """(decodes, items) scores of every seed, where each answered every item equally often, and not once."""
    first: Floats | None = None
    """(seeds, items) scores of the first decode alone; those of all where None."""
    answers: float = 1.0
    """Answers to an item, all seeds and decodes together, on average."""

    @property
    def decoded(self) -> bool:
        """Whether its runs are decodes: one training seed or prompt that answered more than once."""
        return len(self.seeds) == 1 and len(self.decodes) > 0

    @property
    def runs(self) -> Floats:
        """(runs, items) scores of its training seeds, or of its decodes where it has one seed."""
        return self.decodes[0] if self.decoded else self.scores

    @property
    def decode_variance(self) -> float | None:
        """Variance of its mean score that the decoding of single items makes; None with one decode."""
        if not self.decodes:
            return None
        inner = [float(runs.var(axis=0, ddof=1).mean()) / len(runs) for runs in self.decodes]
        return float(sum(inner) / len(inner) / self.scores.size)

    @property
    def run_names(self) -> tuple[Hashable, ...]:
        """What pairs runs of different arms: the seeds. Decodes of one arm are no other arm's."""
        return tuple((self.arm, run) for run in range(len(self.runs))) if self.decoded else self.seeds


@dataclass(frozen=True)
class Table:
    """Trials of several arms on common items, ready for the statistics."""

    items: tuple[str, ...]
    arms: tuple[ArmScores, ...]
    clusters: NDArray[np.intp] | None
    """(items,) cluster codes; None when no trial names a cluster."""
    slices: tuple[str | None, ...]
    left_out: int
    """Items that some arm or seed lacks."""

    @property
    def names(self) -> list[str]:
        """Names of the arms, in order."""
        return [arm.arm for arm in self.arms]

    def only(self, keep: NDArray[np.bool_]) -> Table:
        """The same arms on the items where `keep` is true."""
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
        chosen = np.flatnonzero(keep).tolist()
        clusters = None if self.clusters is None else self.clusters[keep]
        slices = tuple(self.slices[i] for i in chosen)
        return Table(tuple(self.items[i] for i in chosen), arms, clusters, slices, self.left_out)


_Run = Mapping[str, Mapping[str | None, Trial]]
"""Item -> decode -> trial, of one training seed."""
_Answers = Mapping[str | None, dict[str, dict[str | None, Trial]]]
"""Training seed -> item -> decode -> trial."""


def tabulate(trials: Iterable[Trial], arms: Sequence[str] | None = None) -> Table:
    """Arrange trials by arm, seed and item; items that some arm or seed lacks are left out.

    Args:
        trials: of any number of arms.
        arms: which arms, in which order; all of them in order of appearance if None.

    Raises:
        TrialsError: an arm without trials, no common item, or an item in two clusters.

    """
    grouped: dict[str, _Answers] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for trial in trials:
        grouped[trial.arm][trial.seed][trial.item][trial.decode] = trial
    names = list(arms) if arms is not None else list(grouped)
    missing = [name for name in names if name not in grouped]
    if missing or not names:
        raise TrialsError(f"no trials of {', '.join(map(repr, missing)) or 'any arm'}")
    runs = [run for name in names for run in grouped[name].values()]
    every = dict.fromkeys(item for run in runs for item in run)
    items = tuple(item for item in every if all(item in run for run in runs))
    if not items:
        raise TrialsError(_nothing_shared(grouped, names, len(every)))
    clusters = _clusters(_named(items, runs, "cluster"), items)
    slices = _named(items, runs, "slice")
    table = tuple(_arm_scores(name, grouped[name], items) for name in names)
    return Table(items, table, clusters, tuple(map(slices.get, items)), len(every) - len(items))


def _nothing_shared(grouped: Mapping[str, _Answers], names: Sequence[str], every: int) -> str:
    """Why no item is answered by all: seeds of one arm that share none, or arms."""
    for name in names:
        seeds = grouped[name]
        if len(seeds) > 1 and not set.intersection(*(set(run) for run in seeds.values())):
            said = ", ".join("no seed" if seed is None else f"seed {seed}" for seed in seeds)
            return (
                f"arm {name!r}: its training seeds ({said}) share no item; give every line its seed, or none "
                "of them, and every seed the same items"
            )
    sizes = ", ".join(f"{name!r} {len(next(iter(grouped[name].values())))}" for name in names[:5])
    return (
        f"the arms share none of {every} items (items by arm: {sizes}); "
        "arms are compared on the same items only: check the item names"
    )


def _named(items: Sequence[str], runs: Sequence[_Run], what: Literal["slice", "cluster"]) -> dict[str, str]:
    """Item -> its slice or cluster, said by whichever trial says it, and by no two differently."""
    named: dict[str, str] = {}
    for run in runs:
        for item in items:
            for trial in run[item].values():
                name: str | None = getattr(trial, what)
                if name is not None and named.setdefault(item, name) != name:
                    raise TrialsError(f"item {item!r} is in {what} {named[item]!r} and in {name!r}")
    return named


def _clusters(named: Mapping[str, str], items: Sequence[str]) -> NDArray[np.intp] | None:
    """Cluster codes; an item without a cluster is a cluster of its own."""
    if not named:
        return None
    codes: dict[tuple[bool, str], int] = {}
    keys = [(item in named, named.get(item, item)) for item in items]
    return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.intp)


def _arm_scores(name: str, runs: _Answers, items: Sequence[str]) -> ArmScores:
    """One arm's scores; an item that a seed answered several times counts as the mean of its decodes."""
    seeds = tuple(sorted(runs, key=str))
    cells = [[_in_order(runs[seed][item]) for item in items] for seed in seeds]
    chosen = [trial for row in cells for cell in row for trial in cell]
    firsts = [[cell[0] for cell in row] for row in cells]
    times = {len(cell) for row in cells for cell in row}
    decodes: tuple[Floats, ...] = ()
    if len(times) == 1 and times != {1}:
        decodes = tuple(np.array([[t.score for t in cell] for cell in row]).T for row in cells)
    failures = tuple(dict.fromkeys(f"{t.item}: {t.error}" for t in chosen if not t.format_ok and t.error))
    counts = [(trial.input_tokens, trial.cached_tokens, trial.output_tokens) for trial in chosen]
    seen = any(trial.human is not None for row in firsts for trial in row)
    return ArmScores(
        name,
        np.array([[sum(trial.score for trial in cell) / len(cell) for cell in row] for row in cells]),
        seeds,
        sum(trial.format_ok for trial in chosen) / len(chosen),
        sum(trial.repaired is True for trial in chosen) / len(chosen),
        failures,
        _known(trial.seconds for trial in chosen),
        _known(trial.cost_usd for trial in chosen),
        np.array(counts, dtype=np.float64),
        grades=_grades(firsts) if any(trial.grades for trial in chosen) else None,
        human=np.array([[t.human for t in row] for row in firsts], dtype=np.float64) if seen else None,
        decodes=decodes,
        first=None if times == {1} else np.array([[trial.score for trial in row] for row in firsts]),
        answers=len(chosen) / len(items),
    )


def _in_order(cell: Mapping[str | None, Trial]) -> list[Trial]:
    """The decodes of an answer, the unnamed one first."""
    if len(cell) == 1:
        return list(cell.values())
    return [cell[name] for name in sorted(cell, key=lambda name: (name is not None, str(name)))]


MAX_GRADES = 3
"""Grades of one answer, at most."""


def _grades(firsts: Sequence[Sequence[Trial]]) -> Floats:
    """(3, seeds, items) grades of a judge, of the first decodes; NaN where it gave none."""
    found = np.full((MAX_GRADES, len(firsts), len(firsts[0])), np.nan)
    for seed, row in enumerate(firsts):
        for column, trial in enumerate(row):
            given = (trial.grades or ())[:MAX_GRADES]
            found[: len(given), seed, column] = given
    return found


def _known(values: Iterable[Any]) -> Floats:
    return np.array([value for value in values if value is not None], dtype=np.float64)
