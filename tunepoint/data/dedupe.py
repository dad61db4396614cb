"""Copies, contradictions and near duplicates among the examples."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rensa import RMinHash, RMinHashLSH

from tunepoint.data.copies import copy_key
from tunepoint.data.examples import Dropped, Example

_TURN = re.compile(r"^(?:user|assistant|tool): .*$", re.MULTILINE)
"""A line of a conversation, as `chats` writes it."""
MIN_COMMON_TURNS = 10
"""Conversations that must share a turn before it counts as common."""
SHINGLE_LENGTH = 4
"""Characters in a shingle: few enough that short texts have several."""


@dataclass(frozen=True)
class Contradiction:
    """Copies of one input with different targets."""

    ids: tuple[str, ...]
    """Of all copies."""
    targets: tuple[str, ...]
    """The different targets, in the order in which they appear."""


@dataclass(frozen=True)
class Deduplicated:
    """The examples that stay, and what was dropped from them or noticed."""

    kept: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    contradictions: tuple[Contradiction, ...]
    """Inputs whose copies disagree; all copies are dropped, because none can be trusted."""
    near_duplicates: tuple[tuple[int, int], ...]
    """Pairs of positions in `kept`; both examples stay, on one side of the split."""


def normalize(text: str) -> str:
    """Return the words of a text in lower case, without its signs: what near duplicates are compared by.

    The splits of studies on disk depend on it. Whether two texts are copies is for `copy_key` to say.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def deduplicate(
    examples: Sequence[Example], threshold: float = 0.8, *, meaning: Callable[[str], str] = str
) -> Deduplicated:
    """Drop copies (up to case, spaces and punctuation of prose), and find near duplicates.

    Args:
        examples: in the order of their files; the first of several copies stays.
        threshold: Jaccard similarity of shingles from which inputs are near duplicates.
        meaning: of a target: copies contradict each other if theirs differ.

    """
    copies_of: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        copies_of[copy_key(example.input)].append(example)
    kept: list[Example] = []
    dropped: list[Dropped] = []
    contradictions: list[Contradiction] = []
    for copies in copies_of.values():
        targets = tuple(dict.fromkeys(copy.target for copy in copies))
        if len(set(map(meaning, targets))) > 1:
            ids = tuple(copy.id for copy in copies)
            contradictions.append(Contradiction(ids, targets))
            dropped += [Dropped(copy.id, f"contradicts {_others(copy.id, ids)}") for copy in copies]
            continue
        kept.append(copies[0])
        dropped += [Dropped(copy.id, f"copy of {copies[0].id}") for copy in copies[1:]]
    links = link_near_duplicates([example.input for example in kept], threshold=threshold)
    return Deduplicated(tuple(kept), tuple(dropped), tuple(contradictions), tuple(links))


def _others(identity: str, ids: tuple[str, ...]) -> str:
    return ", ".join(other for other in ids if other != identity)


def link_near_duplicates(
    texts: Sequence[str], threshold: float = 0.8, *, signs_count: bool = False
) -> list[tuple[int, int]]:
    """Return links (earlier, later) between texts that share at least `threshold` of their shingles.

    A family of n near duplicates has n - 1 links, not all its pairs. MinHash proposes the links (Broder
    1997, "On the resemblance and containment of documents") and the exact Jaccard similarity decides, so
    there are no false ones; 32 bands of 4 rows propose a pair of similarity .8 with a probability of
    1 - (1 - .8^4)^32 > .9999.

    Args:
        texts: any.
        threshold: Jaccard similarity of near duplicates, 0..1.
        signs_count: whether texts of the same words with other signs, as 2 + 2 and 2 - 2, are none.

    """
    shown, texts = texts, _without_common_turns(texts)
    index = _Index(threshold)
    families = DisjointSets(len(texts))
    links: list[tuple[int, int]] = []
    for position, text in enumerate(texts):

        def skip(other: int, position: int = position) -> bool:
            apart = signs_count and _signs_differ(shown[position], shown[other])
            return apart or families.joined(position, other)

        for other in index.similar(text, skip):
            links.append((other, position))
            families.join(other, position)
        index.add(text)
    return links


def match_near_duplicates(
    texts: Sequence[str], others: Sequence[str], threshold: float = 0.8, *, signs_count: bool = False
) -> dict[int, int]:
    """Match texts with their near duplicates among others: position of a text -> position of the first.

    The arguments are those of `link_near_duplicates`.
    """
    both = _without_common_turns([*texts, *others])
    index = _Index(threshold)
    for other in both[len(texts) :]:
        index.add(other)
    matches: dict[int, int] = {}
    for position, text in enumerate(both[: len(texts)]):

        def skip(other: int, shown: str = texts[position]) -> bool:
            return signs_count and _signs_differ(shown, others[other])

        first = next(index.similar(text, skip), None)
        if first is not None:
            matches[position] = first
    return matches


def _signs_differ(text: str, other: str) -> bool:
    """Whether two texts have the same words, and signs that tell them apart."""
    return normalize(text) == normalize(other) and copy_key(text) != copy_key(other)


def _without_common_turns(texts: Sequence[str]) -> Sequence[str]:
    """Return conversations without the turns that most of them share, word for word.

    A fixed greeting or a tool's "ok" would make near duplicates of conversations about different things.
    """
    turns = [_TURN.findall(text) for text in texts]
    counts = Counter(turn for text in turns for turn in set(text))
    common = {turn for turn, count in counts.items() if count >= max(MIN_COMMON_TURNS, len(texts) / 2)}
    if not common:
        return texts
    return [
        "\n".join(line for line in text.split("\n") if line not in common) if set(said) & common else text
        for text, said in zip(texts, turns, strict=True)
    ]


class DisjointSets:
    """Which of n things belong together: union-find with path halving (Tarjan and van Leeuwen 1984)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, node: int) -> int:
        """Return the representative of a thing's set: its earliest member."""
        while self._parent[node] != node:
            self._parent[node] = self._parent[self._parent[node]]
            node = self._parent[node]
        return node

    def join(self, node: int, other: int) -> None:
        """Unite the sets of two things."""
        low, high = sorted((self.root(node), self.root(other)))
        self._parent[high] = low

    def joined(self, node: int, other: int) -> bool:
        """Whether two things are in one set."""
        return self.root(node) == self.root(other)


class _Index:
    """Texts to search for near duplicates, by their MinHash sketches."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._sets: list[frozenset[str]] = []
        self._sketches = RMinHashLSH(threshold=threshold, num_perm=128, num_bands=32)

    def similar(self, text: str, skip: Callable[[int], bool] = lambda other: False) -> Iterator[int]:
        """Yield the positions of near duplicates of a text, earliest first, without those to skip."""
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
    return frozenset(plain[i : i + SHINGLE_LENGTH] for i in range(max(1, len(plain) - SHINGLE_LENGTH + 1)))


def _jaccard(shingles: frozenset[str], others: frozenset[str]) -> float:
    return len(shingles & others) / len(shingles | others)
