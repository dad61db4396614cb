"""Trials of several arms side by side on their common items, ready for the statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.errors import TrialsError
from tunepoint.measure.trials import Trial

Floats = NDArray[np.float64]


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
    labelled: int | None = None
    """Groups of items that people scored, once their scores have corrected these."""
    decodes: tuple[Floats, ...] = ()
    """(decodes, items) scores of every seed that answered more than once; empty if none did."""

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
            )
            for arm in self.arms
        )
        chosen = np.flatnonzero(keep).tolist()
        clusters = None if self.clusters is None else self.clusters[keep]
        slices = tuple(self.slices[i] for i in chosen)
        return Table(tuple(self.items[i] for i in chosen), arms, clusters, slices, self.left_out)


_Run = tuple[str | None, str | None]
"""Training seed and decode."""


def tabulate(trials: Iterable[Trial], arms: Sequence[str] | None = None) -> Table:
    """Arrange trials by arm, seed, decode and item; items that some arm or run lacks are left out.

    Args:
        trials: of any number of arms.
        arms: which arms, in which order; all of them in order of appearance if None.

    Raises:
        TrialsError: an arm without trials, no common item, or an item in two clusters.

    """
    grouped: dict[str, dict[_Run, dict[str, Trial]]] = defaultdict(lambda: defaultdict(dict))
    for trial in trials:
        grouped[trial.arm][trial.seed, trial.decode][trial.item] = trial
    names = list(arms) if arms is not None else list(grouped)
    missing = [name for name in names if name not in grouped]
    if missing or not names:
        raise TrialsError(f"no trials of {', '.join(map(repr, missing)) or 'any arm'}")
    runs = [run for name in names for run in grouped[name].values()]
    every = dict.fromkeys(item for run in runs for item in run)
    items = tuple(item for item in every if all(item in run for run in runs))
    if not items:
        sizes = ", ".join(f"{n!r} {len(next(iter(grouped[n].values())))}" for n in names[:5])
        raise TrialsError(
            f"the arms share none of {len(every)} items (items by arm: {sizes}); "
            "arms are compared on the same items only: check the item names"
        )
    first = next(iter(grouped[names[0]].values()))
    clusters = _clusters(items, runs)
    slices = tuple(first[item].slice for item in items)
    table = tuple(_arm_scores(name, grouped[name], items) for name in names)
    return Table(items, table, clusters, slices, len(every) - len(items))


def _clusters(items: Sequence[str], runs: Sequence[dict[str, Trial]]) -> NDArray[np.intp] | None:
    """Cluster codes; an item without a cluster is a cluster of its own."""
    named: dict[str, str] = {}
    for run in runs:
        for item in items:
            cluster = run[item].cluster
            if cluster is not None and named.setdefault(item, cluster) != cluster:
                raise TrialsError(f"item {item!r} is in cluster {named[item]!r} and in {cluster!r}")
    if not named:
        return None
    codes: dict[tuple[bool, str], int] = {}
    keys = [(item in named, named.get(item, item)) for item in items]
    return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.intp)


def _arm_scores(name: str, runs: dict[_Run, dict[str, Trial]], items: Sequence[str]) -> ArmScores:
    """One arm's scores; what was answered several times counts as the mean of its decodes."""
    by_seed: dict[str | None, list[_Run]] = {}
    for run in sorted(runs, key=str):
        by_seed.setdefault(run[0], []).append(run)
    chosen = [runs[run][item] for group in by_seed.values() for run in group for item in items]
    sizes = [len(group) for group in by_seed.values()]

    def cube(values: Sequence[float | None]) -> list[Floats]:
        """(decodes, items) of every seed."""
        rows = np.array(values, dtype=np.float64).reshape(-1, len(items))
        return np.split(rows, np.cumsum(sizes)[:-1])

    scores = cube([trial.score for trial in chosen])
    failures = tuple(dict.fromkeys(f"{t.item}: {t.error}" for t in chosen if not t.format_ok and t.error))
    counts = [(trial.input_tokens, trial.cached_tokens, trial.output_tokens) for trial in chosen]
    seen = any(trial.human is not None for trial in chosen)
    return ArmScores(
        name,
        np.stack([part.mean(axis=0) for part in scores]),
        tuple(by_seed),
        sum(trial.format_ok for trial in chosen) / len(chosen),
        sum(trial.repaired is True for trial in chosen) / len(chosen),
        failures,
        _known(trial.seconds for trial in chosen),
        _known(trial.cost_usd for trial in chosen),
        np.array(counts, dtype=np.float64),
        grades=_grades(chosen, sizes, len(items)) if any(trial.grades for trial in chosen) else None,
        human=np.stack([part.mean(axis=0) for part in cube([trial.human for trial in chosen])])
        if seen
        else None,
        decodes=tuple(part for part in scores if len(part) > 1),
    )


GRADES = 3
"""Grades of one answer, at most."""


def _grades(trials: Sequence[Trial], decodes: Sequence[int], items: int) -> Floats:
    """(3, seeds, items) grades of a judge, of the first decode of every seed; NaN where it gave none."""
    found = np.full((GRADES, len(trials)), np.nan)
    for column, trial in enumerate(trials):
        given = (trial.grades or ())[:GRADES]
        found[: len(given), column] = given
    firsts = np.cumsum([0, *decodes[:-1]])
    return found.reshape(GRADES, -1, items)[:, firsts]


def _known(values: Iterable[Any]) -> Floats:
    return np.array([value for value in values if value is not None], dtype=np.float64)
