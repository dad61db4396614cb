"""Exact and near duplicates: what is the same, what was dropped, and why."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rensa import RMinHash, RMinHashLSH

from tunepoint.data.examples import Dropped, Example

SHINGLE = 4
"""Characters in a shingle: short texts still have several."""


@dataclass(frozen=True)
class Contradiction:
    """One text that carries different targets."""

    ids: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Deduplicated:
    """The examples that stay, and everything that was taken out or noticed."""

    kept: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    contradictions: tuple[Contradiction, ...]
    """Texts whose copies disagree; all copies are dropped, for none can be trusted."""
    twins: tuple[tuple[int, int], ...]
    """Positions in `kept` of linked near duplicates; they stay, on one side of a split."""


def normalize(text: str) -> str:
    """The text without the differences that no reader would notice."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def deduplicate(examples: Sequence[Example], threshold: float = 0.8) -> Deduplicated:
    """Drop exact copies (up to case, spaces and punctuation) and find near duplicates."""
    same: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        same[normalize(example.input) or example.input].append(example)
    kept: list[Example] = []
    dropped: list[Dropped] = []
    contradictions: list[Contradiction] = []
    for copies in same.values():
        targets = tuple(dict.fromkeys(copy.target for copy in copies))
        if len(targets) > 1:
            ids = tuple(copy.id for copy in copies)
            contradictions.append(Contradiction(ids, targets))
            dropped += [Dropped(copy.id, f"contradicts {_others(copy.id, ids)}") for copy in copies]
            continue
        kept.append(copies[0])
        dropped += [Dropped(copy.id, f"copy of {copies[0].id}") for copy in copies[1:]]
    twins = near_twins([example.input for example in kept], threshold=threshold)
    return Deduplicated(tuple(kept), tuple(dropped), tuple(contradictions), tuple(twins))


def _others(identity: str, ids: tuple[str, ...]) -> str:
    return ", ".join(other for other in ids if other != identity)


def near_twins(texts: Sequence[str], threshold: float = 0.8) -> list[tuple[int, int]]:
    """Links (earlier, later) between texts that share at least `threshold` of their shingles.

    A family of n near duplicates has n - 1 links, not all its pairs. MinHash proposes the
    links (Broder 1997) and the exact Jaccard similarity decides, so there are no false ones;
    32 bands of 4 rows propose a pair of similarity .8 with a probability above .9999.
    """
    index = _Index(threshold)
    families = DisjointSets(len(texts))
    links: list[tuple[int, int]] = []
    for position, text in enumerate(texts):
        for other in index.similar(text, partial(families.joined, position)):
            links.append((other, position))
            families.join(other, position)
        index.add(text)
    return links


def first_twins(texts: Sequence[str], others: Sequence[str], threshold: float = 0.8) -> dict[int, int]:
    """Position of each text that has a near duplicate among the others -> that one's position."""
    index = _Index(threshold)
    for other in others:
        index.add(other)
    found = ((position, next(iter(index.similar(text)), None)) for position, text in enumerate(texts))
    return {position: other for position, other in found if other is not None}


class DisjointSets:
    """Which of n things belong together (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, node: int) -> int:
        """The representative of a thing's set: its earliest member."""
        while self._parent[node] != node:
            self._parent[node] = self._parent[self._parent[node]]
            node = self._parent[node]
        return node

    def join(self, one: int, other: int) -> None:
        """Put two things, and all that belongs to them, together."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low

    def joined(self, one: int, other: int) -> bool:
        """Whether two things belong together."""
        return self.root(one) == self.root(other)


class _Index:
    """Texts by their MinHash sketches."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._sets: list[frozenset[str]] = []
        self._sketches = RMinHashLSH(threshold=threshold, num_perm=128, num_bands=32)

    def similar(self, text: str, skip: Callable[[int], bool] = lambda other: False) -> Iterator[int]:
        """Positions of near duplicates of a text, earliest first, but those to skip."""
        shingles = _shingles(text)
        for other in sorted(self._sketches.query(_sketch(shingles))):
            if not skip(other) and _jaccard(shingles, self._sets[other]) >= self._threshold:
                yield other

    def add(self, text: str) -> None:
        """Add a text at the next position."""
        shingles = _shingles(text)
        self._sketches.insert(len(self._sets), _sketch(shingles))
        self._sets.append(shingles)


def _sketch(shingles: frozenset[str]) -> RMinHash:
    sketch = RMinHash(num_perm=128, seed=42)
    sketch.update(sorted(shingles))
    return sketch


def _shingles(text: str) -> frozenset[str]:
    plain = normalize(text) or text
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
