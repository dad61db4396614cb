"""Whether the labels of a pool count for the verdict, and what its reader should know of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from scipy import stats

from tunepoint.decision.numbers import percent
from tunepoint.stats.disagreements import MIN_LABELLED_GROUPS, PoolScores, difference_p_value
from tunepoint.study.labelling.labels import agreement, person, read_labels, reliability
from tunepoint.study.labelling.pool import Pool, open_pool
from tunepoint.study.labelling.reading import shown
from tunepoint.study.manifest import read_manifest
from tunepoint.trials.judge_quality import calibrate
from tunepoint.trials.table import Table, joint_of

ANOTHER_POOL = 0.01
"""p-value of "the pool shows the same differences as the test set" below which it does not count."""
MIN_COLUMN_LABELS = 15
"""Labels of a person from which their choice of columns is looked at."""
ONE_COLUMN = 1e-4
"""p-value of "the first column is right as often as by chance" below which nobody has read the sheet."""
LEAST_RELIABILITY = 0.3
"""Share of a true difference that labels show, below which they count for nothing."""
LOW_KAPPA = 0.6
"""Agreement beyond chance below which two people do not mean the same by a label (Landis and Koch 1977)."""


def pooled(table: Table, folder: Path) -> Table:
    """Return a study's table with what its pool shows, once inputs of it are labelled and they count."""
    pool = open_pool(folder, table.names)
    if pool is None or not pool.labelled or why_not(pool, table, folder):
        return table
    return replace(table, pool=pool.scores(table.names))


def why_not(pool: Pool, table: Table, folder: Path) -> list[str]:
    """Return why the labels of a pool do not count; empty where they do, or are too few to tell.

    Args:
        pool: with its labels.
        table: of the test set.
        folder: of the study.

    """
    scores = pool.scores(table.names)
    if scores.labelled_groups < MIN_LABELLED_GROUPS:
        return []
    if pool.judged is not None and not _people_graded(table):
        return [
            "The labels of the pool do not count yet: on the test set only the judge has graded, and people "
            "may see other differences than it does. Grade answers in to_grade.csv too."
        ]
    reasons = [*another_pool(table, scores), *_one_column(pool, read_manifest(folder).seed)]
    return [*reasons, *_by_chance(pool)]


def _people_graded(table: Table) -> bool:
    """Whether people have graded answers enough to correct a judge's scores on the test set."""
    quality = calibrate(table)[1]
    return quality is not None and bool(quality.calibrations)


def _by_chance(pool: Pool) -> list[str]:
    seen = reliability(pool.labels)
    if seen is None or seen >= LEAST_RELIABILITY:
        return []
    return [
        "The labels of the pool do not count: two people who labeled the same inputs agree hardly more often "
        "than by chance on which answer is better. Settle what the labels mean, take their lines out of "
        "pool_labels.jsonl and label again."
    ]


def another_pool(table: Table, scores: PoolScores) -> list[str]:
    """Return that a pool shows other differences between the options than the test set, if it does."""
    if scores.labelled_groups < MIN_LABELLED_GROUPS:
        return []
    p_value = difference_p_value(joint_of(calibrate(replace(table, pool=None))[0]), scores)
    if p_value >= ANOTHER_POOL:
        return []
    return [
        "The labels of the pool do not count: they show other differences between the options than the test "
        f"set (p = {p_value:.2g}). Perhaps the pool is of another time or source. If it is what production "
        "looks like, label a new test set from it; if not, give a pool like the test set."
    ]


def _one_column(pool: Pool, seed: int) -> list[str]:
    """Return who found the first answer right too often, though the order of the columns says nothing."""
    of_item = {example.id: i for i, example in enumerate(pool.inputs)}
    chosen: dict[str, list[tuple[bool, int]]] = defaultdict(list)
    for label in pool.labels:
        answers = shown(pool, of_item[label.item], seed) if label.item in of_item else []
        if len(answers) > 1 and label.right in answers:
            chosen[person(label.by)].append((label.right == answers[0], len(answers)))
    reasons = []
    for name, choices in chosen.items():
        first, expected = sum(right for right, _ in choices), sum(1 / count for _, count in choices)
        test = stats.binomtest(first, len(choices), expected / len(choices), alternative="greater")
        if len(choices) >= MIN_COLUMN_LABELS and test.pvalue < ONE_COLUMN:
            by = f" by {name}" if name else ""
            of = f"{first} of {len(choices)} labels{by}"
            reasons.append(
                f"The labels of the pool do not count: the first column is right in {of}, and about "
                f"{expected:.0f} by chance. The order of the columns says nothing, so the sheet was hardly "
                "read. Take those lines out of pool_labels.jsonl and label again."
            )
    return reasons


def labelling_caveats(table: Table, folder: Path) -> list[str]:
    """Return what the labels of a pool are, and what is doubtful about them; empty without any."""
    pool = table.pool
    if pool is None:
        opened = open_pool(folder, table.names)
        return [] if opened is None or not opened.labelled else why_not(opened, table, folder)
    labels = len(pool.labelled)
    if pool.labelled_groups < MIN_LABELLED_GROUPS:
        return [
            f"{labels} labels of inputs on which the options disagree do not count yet: from "
            f"{MIN_LABELLED_GROUPS} groups of inputs on they do."
        ]
    caveats = [
        f"{labels} labels outside the test set count too. The options gave the same answer to "
        f"{percent(1 - pool.disagreement)} of {len(pool.strata):,} inputs without a label, and only the "
        "others were labeled. The intervals hold however often you looked."
    ]
    if pool.reliability < 1:
        caveats.append(
            f"By second opinions, labels show {percent(pool.reliability)} of the true differences between "
            "the options. The intervals are wider by that."
        )
    return [*caveats, *_kappa(folder)]


def _kappa(folder: Path) -> list[str]:
    agreed = agreement(read_labels(folder))
    if agreed is None or agreed.kappa is None or agreed.kappa >= LOW_KAPPA:
        return []
    return [
        f"Two people agree on {percent(agreed.share)} of {agreed.inputs} inputs that both labeled (kappa "
        f"{agreed.kappa:.2f}). Wrong labels make options look alike: settle what the labels mean, and label "
        "those inputs again."
    ]
