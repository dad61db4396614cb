"""Train, dev and a sealed test, by group, with a certificate of their separation."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.data.dedupe import DisjointSets, first_twins, near_twins
from tunepoint.data.examples import Example
from tunepoint.errors import DataError

PARTS = ("train", "dev", "test")
FOLDS = 20
"""Folds dealt out to the parts: shares are honoured to within 1/20, unless groups are larger."""
FEWEST = {"train": 1, "dev": 2, "test": 5}
"""Independent groups of each part under which nothing can be measured."""


@dataclass(frozen=True)
class Certificate:
    """What two parts of the split have in common; all empty is the clean case."""

    shared_groups: int
    """Groups that stand in test and also in train or dev."""
    twins: Mapping[str, str]
    """Test id -> id of its near duplicate in train or dev."""


@dataclass(frozen=True)
class Split:
    """Three parts. `test` is opened once in a study, after the finalists are named."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    clusters: Mapping[str, str]
    """Example id -> cluster: its group, or the family of near duplicates it belongs to."""
    certificate: Certificate


def families(examples: Sequence[Example], twins: Sequence[tuple[int, int]]) -> list[str]:
    """The cluster of each example: linked by group or by being near duplicates."""
    together = DisjointSets(len(examples))
    first: dict[str, int] = {}
    for position, example in enumerate(examples):
        if example.group is not None:
            together.join(first.setdefault(example.group, position), position)
    for one, other in twins:
        together.join(one, other)
    return [examples[together.root(position)].id for position in range(len(examples))]


def split(
    examples: Sequence[Example],
    twins: Sequence[tuple[int, int]],
    shares: tuple[float, float, float],
    rng: np.random.Generator,
) -> Split:
    """Deal the examples out by group, every label to every part in its share.

    Args:
        examples: de-duplicated examples.
        twins: positions of near duplicates; they stay on one side.
        shares: of train, dev and test; they add up to 1.

    Raises:
        DataError: too few groups to deal out.

    """
    clusters = families(examples, twins)
    folds = min(FOLDS, len(set(clusters)))
    if folds < 4:
        raise DataError(
            f"{len(examples)} examples in {folds} groups cannot be split into train, dev and "
            "test: at least 4 groups are needed, and some hundreds of examples to decide. "
            f"Groups come from data.group and from near duplicates ({len(twins)} links), which stay "
            "together; add examples that differ, or another group column"
        )
    fold_of = _folds(examples, clusters, folds, rng)
    dev_folds = max(1, round(shares[1] * folds))
    test_folds = max(1, round(shares[2] * folds))
    if dev_folds + test_folds >= folds:
        raise DataError(f"shares {shares} leave nothing to train on: {folds} groups in all")
    parts = np.where(fold_of < test_folds, 2, np.where(fold_of < test_folds + dev_folds, 1, 0))
    members: list[tuple[Example, ...]] = [
        tuple(example for example, p in zip(examples, parts, strict=True) if p == part) for part in range(3)
    ]
    named = dict(zip((e.id for e in examples), clusters, strict=True))
    return _certified(members[0], members[1], members[2], named)


def split_as_given(
    parts: Mapping[str, Sequence[Example]], shares: tuple[float, float, float], rng: np.random.Generator
) -> Split:
    """Keep the user's own parts; dev is taken out of train where none is given."""
    train, test = tuple(parts["train"]), tuple(parts["test"])
    dev = tuple(parts.get("dev", ()))
    if not dev:
        clusters = families(train, near_twins([example.input for example in train]))
        folds = min(FOLDS, len(set(clusters)))
        if folds < 2:
            raise DataError(f"{len(train)} training examples in one group leave none for dev")
        share = shares[1] / (shares[0] + shares[1])
        chosen = _folds(train, clusters, folds, rng) < max(1, round(share * folds))
        dev = tuple(e for e, c in zip(train, chosen, strict=True) if c)
        train = tuple(e for e, c in zip(train, chosen, strict=True) if not c)
    every = (*train, *dev, *test)
    links = near_twins([example.input for example in every])
    named = dict(zip((e.id for e in every), families(every, links), strict=True))
    return _certified(train, dev, test, named)


def _folds(
    examples: Sequence[Example], clusters: Sequence[str], folds: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Fold of each example: groups whole, labels spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    targets = [example.target for example in examples]
    if len(set(targets)) > len(targets) // 2:
        targets = ["free"] * len(targets)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=int(rng.integers(2**31)))
    fold_of = np.zeros(len(examples), dtype=np.intp)
    with warnings.catch_warnings():
        # Thin labels are reported by the audit, in the user's words.
        warnings.filterwarnings("ignore", message="The least populated class")
        try:
            dealt = list(splitter.split(np.zeros(len(examples)), targets, clusters))
        except ValueError:
            dealt = list(splitter.split(np.zeros(len(examples)), ["one"] * len(examples), clusters))
    for fold, (_, outside) in enumerate(dealt):
        fold_of[outside] = fold
    return fold_of


def _certified(
    train: tuple[Example, ...],
    dev: tuple[Example, ...],
    test: tuple[Example, ...],
    clusters: Mapping[str, str],
) -> Split:
    """Check what the parts share, and that each holds something."""
    for name, part in zip(PARTS, (train, dev, test), strict=True):
        if not part:
            raise DataError(f"the {name} part is empty; add examples or change data.split")
        independent = len({clusters[example.id] for example in part})
        if independent < FEWEST[name]:
            raise DataError(
                f"the {name} part has {len(part)} examples in {independent} independent groups; "
                f"{FEWEST[name]} are the least, and some hundreds are needed to decide: add examples, "
                "change data.split, or see whether data.group is the right column"
            )
    seen = (*train, *dev)
    groups = {example.group for example in seen if example.group is not None}
    shared = {example.group for example in test} & groups
    twins: dict[str, str] = {}
    for position, other in first_twins([e.input for e in test], [e.input for e in seen]).items():
        twins[test[position].id] = seen[other].id
    return Split(train, dev, test, clusters, Certificate(len(shared), twins))


def label_counts(examples: Sequence[Example]) -> dict[str, int]:
    """Examples per target, most frequent first."""
    return dict(Counter(example.target for example in examples).most_common())
