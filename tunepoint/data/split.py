"""The split into training, validation and test set, by group, with a certificate of their separation."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.data.dedupe import DisjointSets, link_near_duplicates, match_near_duplicates
from tunepoint.data.examples import Example
from tunepoint.errors import DataError

PARTS = ("train", "dev", "test")
"""The parts of a split, as files and code name them."""
SET_NAMES = {"train": "training set", "dev": "validation set", "test": "test set"}
"""The same parts, as messages name them."""
FOLDS = 20
"""Folds that the parts share out: shares are exact to 1/20, unless groups are larger than a fold."""
MIN_GROUPS = {"train": 1, "dev": 2, "test": 5}
"""Independent groups that each part needs at least."""


@dataclass(frozen=True)
class Certificate:
    """What the test set has in common with the other parts; nothing, if the split is clean."""

    shared_groups: int
    """Groups that are in the test set and in the training or validation set."""
    twins: Mapping[str, str]
    """Id of a test example -> id of its near duplicate in the training or validation set."""


@dataclass(frozen=True)
class Split:
    """The examples in three parts."""

    train: tuple[Example, ...]
    """Training set: arms may learn from it or show it in a prompt."""
    dev: tuple[Example, ...]
    """Validation set, on which arms and settings are chosen."""
    test: tuple[Example, ...]
    """Test set, sealed: a study opens it once, when the finalists are fixed."""
    clusters: Mapping[str, str]
    """Example id -> cluster: examples linked by a group or by near duplicates."""
    certificate: Certificate


def assign_clusters(examples: Sequence[Example], near_duplicates: Sequence[tuple[int, int]]) -> list[str]:
    """Return (n,) clusters: examples linked by a group or by near duplicates have the same one.

    Args:
        examples: n examples.
        near_duplicates: pairs of their positions.

    """
    sets = DisjointSets(len(examples))
    first_of_group: dict[str, int] = {}
    for position, example in enumerate(examples):
        if example.group is not None:
            sets.join(first_of_group.setdefault(example.group, position), position)
    for earlier, later in near_duplicates:
        sets.join(earlier, later)
    return [examples[sets.root(position)].id for position in range(len(examples))]


def split(
    examples: Sequence[Example],
    near_duplicates: Sequence[tuple[int, int]],
    shares: tuple[float, float, float],
    rng: np.random.Generator,
) -> Split:
    """Split examples at random, groups whole and labels in proportion.

    Args:
        examples: without copies.
        near_duplicates: pairs of positions; they stay on one side.
        shares: of training, validation and test set; they add up to 1.
        rng: its next draw determines the split.

    Raises:
        DataError: too few groups to split.

    """
    clusters = assign_clusters(examples, near_duplicates)
    folds = min(FOLDS, len(set(clusters)))
    if folds < 4:
        raise DataError(
            f"{len(examples)} examples in {folds} groups cannot be split into training, validation and "
            "test set: at least 4 groups are needed, and some hundreds of examples to decide. "
            f"Groups come from data.group and from near duplicates ({len(near_duplicates)} links), which "
            "stay together; add examples that differ, or name another group column"
        )
    fold_of = _folds(examples, clusters, folds, rng)
    dev_folds = max(1, round(shares[1] * folds))
    test_folds = max(1, round(shares[2] * folds))
    if dev_folds + test_folds >= folds:
        raise DataError(
            f"data.split = {list(shares)} leaves nothing to train on with {folds} groups; add examples, or "
            "make the first share larger"
        )
    parts = np.where(fold_of < test_folds, 2, np.where(fold_of < test_folds + dev_folds, 1, 0))
    members: list[tuple[Example, ...]] = [
        tuple(example for example, number in zip(examples, parts, strict=True) if number == part)
        for part in range(3)
    ]
    cluster_of = dict(zip((example.id for example in examples), clusters, strict=True))
    return _certified(members[0], members[1], members[2], cluster_of)


def split_given_parts(
    parts: Mapping[str, Sequence[Example]], shares: tuple[float, float, float], rng: np.random.Generator
) -> Split:
    """Keep the parts of a data set that is split already; draw a validation set if it has none.

    Args:
        parts: the examples of `train`, `test` and perhaps `dev`.
        shares: the first two say how much of the training set becomes the validation set.
        rng: drawn from only if there is no validation set.

    Raises:
        DataError: a part is empty or has too few groups.

    """
    train, test = tuple(parts["train"]), tuple(parts["test"])
    dev = tuple(parts.get("dev", ()))
    if not dev:
        train, dev = _draw_dev(train, shares[1] / (shares[0] + shares[1]), rng)
    examples = (*train, *dev, *test)
    links = link_near_duplicates([example.input for example in examples])
    cluster_of = dict(
        zip((example.id for example in examples), assign_clusters(examples, links), strict=True)
    )
    return _certified(train, dev, test, cluster_of)


def _draw_dev(
    train: Sequence[Example], share: float, rng: np.random.Generator
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return the training set without a share of its groups, and those as the validation set."""
    clusters = assign_clusters(train, link_near_duplicates([example.input for example in train]))
    folds = min(FOLDS, len(set(clusters)))
    if folds < 2:
        raise DataError(
            f"{len(train)} training examples in one group leave none for the validation set; give data.dev, "
            "or add examples of other groups"
        )
    in_dev = _folds(train, clusters, folds, rng) < max(1, round(share * folds))
    dev = tuple(example for example, chosen in zip(train, in_dev, strict=True) if chosen)
    rest = tuple(example for example, chosen in zip(train, in_dev, strict=True) if not chosen)
    return rest, dev


def _folds(
    examples: Sequence[Example], clusters: Sequence[str], folds: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the fold of each example: groups whole, labels spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    targets = [example.target for example in examples]
    if len(set(targets)) > len(targets) // 2:
        targets = ["free"] * len(targets)  # mostly different: answers that are no labels
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=int(rng.integers(2**31)))
    fold_of = np.zeros(len(examples), dtype=np.intp)
    with warnings.catch_warnings():
        # The audit reports thin labels in plain words.
        warnings.filterwarnings("ignore", message="The least populated class")
        try:
            folds_drawn = list(splitter.split(np.zeros(len(examples)), targets, clusters))
        except ValueError:  # no label has as many examples as there are folds: split without labels
            folds_drawn = list(splitter.split(np.zeros(len(examples)), ["one"] * len(examples), clusters))
    for fold, (_, outside) in enumerate(folds_drawn):
        fold_of[outside] = fold
    return fold_of


def _certified(
    train: tuple[Example, ...],
    dev: tuple[Example, ...],
    test: tuple[Example, ...],
    clusters: Mapping[str, str],
) -> Split:
    """Return the split with its certificate; raise an error if a part is too small."""
    for name, part in zip(PARTS, (train, dev, test), strict=True):
        if not part:
            raise DataError(f"the {SET_NAMES[name]} is empty; add examples or change data.split")
        groups = len({clusters[example.id] for example in part})
        if groups < MIN_GROUPS[name]:
            raise DataError(
                f"the {SET_NAMES[name]} has {len(part)} examples in {groups} independent groups, but needs "
                f"at least {MIN_GROUPS[name]}, and some hundreds to decide: add examples, change data.split, "
                "or check whether data.group is the right column"
            )
    visible = (*train, *dev)
    visible_groups = {example.group for example in visible if example.group is not None}
    shared = {example.group for example in test} & visible_groups
    matches = match_near_duplicates(
        [example.input for example in test], [example.input for example in visible]
    )
    twins = {test[position].id: visible[other].id for position, other in matches.items()}
    return Split(train, dev, test, clusters, Certificate(len(shared), twins))


def label_counts(examples: Sequence[Example]) -> dict[str, int]:
    """Return the number of examples of each target, most frequent first."""
    return dict(Counter(example.target for example in examples).most_common())
