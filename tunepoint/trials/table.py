"""Trials of several arms side by side on their common items, ready for the statistics."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.disagreements import PoolScores, with_pool
from tunepoint.stats.paired import JointScores, joint_scores


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
    cache_tokens: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    """(answers, 2) input tokens of each answer that were written into the provider's cache, and that it
    could hold; NaN where the latter are unknown."""
    core_seconds: Floats = field(default_factory=lambda: np.zeros(0))
    """Processor time of the answers that have it; may be empty."""
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

    def seconds_at(self, share: float) -> float | None:
        """Return the seconds within which this share of its answers came; None where none were measured."""
        return float(np.quantile(self.seconds, share)) if len(self.seconds) else None

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
    pool: PoolScores | None = None
    """What inputs without a label, and labels where the arms disagree, show of their differences."""
    answers: NDArray[np.intp] | None = None
    """(arms, items) first answers: equal numbers are equal answers. None where some are not known."""

    @property
    def names(self) -> list[str]:
        """Names of the arms, in order."""
        return [arm.arm for arm in self.arms]

    def subset(self, keep: NDArray[np.bool_], of_pool: NDArray[np.bool_] | None = None) -> Table:
        """Return the same arms on some of the items.

        Args:
            keep: (items,) which items.
            of_pool: (inputs,) which inputs of the pool; without it, the pool is left out.

        """
        pool = None if self.pool is None or of_pool is None else self.pool.part(of_pool)
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
        answers = None if self.answers is None else self.answers[:, keep]
        return Table(tuple(self.items[i] for i in kept), arms, clusters, slices, self.left_out, pool, answers)


def joint_of(table: Table) -> JointScores:
    """Return the joint sampling distribution of the mean scores of a table's arms.

    Raises:
        EvidenceError: the table holds fewer than two independent groups of items.

    """
    arms = table.arms
    graded_groups = [arm.graded_groups for arm in arms if arm.graded_groups is not None]
    try:
        joint = joint_scores(
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
    return joint if table.pool is None else with_pool(joint, table.pool)
