"""Inputs as an encoder that tags words reads them: windows of tokens, and the place of every word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunepoint.arms.encoder.fields import Marked
from tunepoint.arms.encoder.places import Place
from tunepoint.models.encoder import MAX_TOKENS, Encoder

IGNORED = -100
"""Tag of a word that the loss leaves out, as PyTorch has it."""
OVERLAP_TOKENS = 64
"""Shared by two windows of a long input, so that every word has context on both sides."""
SHAPES = ("lower", "Capital", "UPPER", "mIxed", "digits", "other")


@dataclass(frozen=True)
class Window:
    """A stretch of an input that the encoder reads at once."""

    text: int
    """Position of the input."""
    ids: tuple[int, ...]
    shapes: tuple[int, ...]
    firsts: tuple[int, ...]
    """Places of the words' first tokens."""
    words: tuple[int, ...]
    """Which words of the input these are."""


@dataclass(frozen=True)
class Words:
    """Inputs as windows, with the place of every word."""

    windows: tuple[Window, ...]
    places: tuple[tuple[Place, ...], ...]
    """By input."""

    @classmethod
    def of(cls, encoder: Encoder, texts: Sequence[str]) -> Words:
        """Split inputs into words, and long ones into windows that overlap: nothing is cut."""
        windows: list[Window] = []
        places_by_input: list[tuple[Place, ...]] = []
        for number, (text, encoding) in enumerate(zip(texts, encoder.encodings(texts), strict=True)):
            # Each attribute builds a list of all tokens when it is read, so it is read once.
            words, offsets = encoding.word_ids, encoding.offsets
            content = [i for i, word in enumerate(words) if word is not None]
            firsts = [i for i in content if words[i] != words[i - 1]]
            lasts = [i for i in content if i + 1 == len(words) or words[i] != words[i + 1]]
            places = tuple(
                (offsets[first][0], offsets[last][1]) for first, last in zip(firsts, lasts, strict=True)
            )
            places_by_input.append(places)
            windows += _windows(number, text, encoding.ids, firsts, places)
        return cls(tuple(windows), tuple(places_by_input))

    def tags(self, marked: Sequence[Marked]) -> list[NDArray[np.int64]]:
        """Return the tag of each word, one (words,) array for each input.

        0 is outside of all fields, 2f + 1 the first word of field f, 2f + 2 a later word of it.
        """
        return [_tags(places, example) for places, example in zip(self.places, marked, strict=True)]


def _windows(
    number: int, text: str, ids: Sequence[int], firsts: Sequence[int], places: Sequence[Place]
) -> list[Window]:
    """Return the windows of one input.

    Args:
        number: position of the input.
        text: the input.
        ids: its tokens, with a special one at both ends.
        firsts: place of each word's first token.
        places: where each word starts and ends in the text.

    """
    word_of = np.searchsorted(firsts, np.arange(len(ids)), side="right") - 1
    shapes = [shape_of(text[slice(*place)]) for place in places]
    windows = []
    for start in range(1, max(2, len(ids) - 1 - OVERLAP_TOKENS), MAX_TOKENS - 2 - OVERLAP_TOKENS):
        inside = range(start, min(start + MAX_TOKENS - 2, len(ids) - 1))
        first, last = np.searchsorted(firsts, [inside.start, inside.stop]).tolist()
        inside_words = [(firsts[word] - start + 1, word) for word in range(first, last)]
        windows.append(
            Window(
                number,
                (ids[0], *(ids[i] for i in inside), ids[-1]),
                (0, *(shapes[word_of[i]] for i in inside), 0),
                tuple(token for token, _ in inside_words),
                tuple(word for _, word in inside_words),
            )
        )
    return windows


def shape_of(word: str) -> int:
    """Return the shape of a word's letters, as a number of `SHAPES`."""
    if not any(map(str.isalnum, word)):
        return SHAPES.index("other")
    if any(map(str.isdigit, word)):
        return SHAPES.index("digits")
    if word.islower() or not (word.isupper() or word.istitle() or word != word.lower()):
        return SHAPES.index("lower")
    if word.isupper() and len(word) > 1:
        return SHAPES.index("UPPER")
    return SHAPES.index("Capital" if word[0].isupper() and word[1:] == word[1:].lower() else "mIxed")


def _tags(places: Sequence[Place], marked: Marked) -> NDArray[np.int64]:
    tags = np.zeros(len(places), np.int64)
    for place in marked.unclear:
        tags[_covered(places, place)] = IGNORED
    for field, place in marked.spans:
        inside = _covered(places, place)
        tags[inside] = 2 * field + 2
        tags[inside[:1]] = 2 * field + 1
    return tags


def _covered(places: Sequence[Place], place: Place) -> list[int]:
    return [i for i, (start, end) in enumerate(places) if start < place[1] and place[0] < end]


def padded_shapes(windows: Sequence[Window], longest: int) -> Tensor:
    """Return (windows, tokens) shapes of the words that the tokens belong to."""
    shapes = torch.zeros(len(windows), longest, dtype=torch.long)
    for row, window in enumerate(windows):
        shapes[row, : len(window.shapes)] = torch.tensor(window.shapes)
    return shapes


def first_tokens(windows: Sequence[Window]) -> tuple[list[int], list[int]]:
    """Return rows and columns of the words' first tokens."""
    rows = [row for row, window in enumerate(windows) for _ in window.firsts]
    return rows, [place for window in windows for place in window.firsts]
