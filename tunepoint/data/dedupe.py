"""Exact and near duplicates: what is the same, what was dropped, and why."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

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
    """Positions in `kept` of pairs of near duplicates; they stay, on one side of a split."""


def normalise(text: str) -> str:
    """The text without the differences that no reader would notice."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def deduplicate(examples: Sequence[Example], threshold: float = 0.8) -> Deduplicated:
    """Drop exact copies (up to case, spaces and punctuation) and find near duplicates."""
    same: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        same[normalise(example.input) or example.input].append(example)
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
    """Pairs of positions whose texts share at least `threshold` of their shingles.

    MinHash proposes the pairs (Broder 1997) and the exact Jaccard similarity decides, so
    there are no false pairs; 32 bands of 4 rows propose a pair of similarity .8 with a
    probability above .9999.
    """
    sets = [_shingles(text) for text in texts]
    index = RMinHashLSH(threshold=threshold, num_perm=128, num_bands=32)
    pairs: list[tuple[int, int]] = []
    for position, shingles in enumerate(sets):
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update(sorted(shingles))
        for other in sorted(index.query(sketch)):
            if _jaccard(shingles, sets[other]) >= threshold:
                pairs.append((other, position))
        index.insert(position, sketch)
    return pairs


def _shingles(text: str) -> frozenset[str]:
    plain = normalise(text) or text
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
