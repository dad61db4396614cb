"""From the probabilities of tags to the places of the fields in an input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tunepoint.arms.encoder.places import Place
from tunepoint.arms.encoder.tagging import TagScorer
from tunepoint.arms.encoder.windows import Window, Words
from tunepoint.models.encoder import batch_by_length
from tunepoint.models.nearest_label import Vectors, softmax


@dataclass(frozen=True)
class TaggedInput:
    """The fields of one input, by a tagger."""

    spans: tuple[tuple[int, Place, float], ...]
    """(number of the field, place, probability), in the order of the text."""
    choices: tuple[int, ...]
    """The value of each choice, by its number."""
    confidence: float
    """Probability of the least certain word or choice."""


def tag(tagger: TagScorer, texts: Sequence[str], batch: int = 32) -> list[TaggedInput]:
    """Return the fields of each input.

    In a long input, each word gets its tag from the window in which it stands farthest from the ends.
    """
    words = Words.of(tagger.encoder, texts)
    tag_count, *value_counts = tagger.sizes
    odds = [np.zeros((len(places), tag_count), np.float32) for places in words.places]
    depths = [np.full(len(places), -1) for places in words.places]
    choice_odds: list[list[list[Vectors]]] = [[[] for _ in value_counts] for _ in texts]
    with torch.inference_mode():
        for rows in batch_by_length([len(window.ids) for window in words.windows], batch):
            windows = [words.windows[i] for i in rows]
            tags, choices = tagger(windows)
            by_window = np.split(softmax(tags.numpy()), np.cumsum([len(w.words) for w in windows])[:-1])
            for row, window in enumerate(windows):
                _keep_deepest(odds[window.text], depths[window.text], window, by_window[row])
                for number, logits in enumerate(choices):
                    choice_odds[window.text][number].append(softmax(logits[row].numpy()))
    return [_decode(places, odds[i], choice_odds[i]) for i, places in enumerate(words.places)]


def _keep_deepest(odds: Vectors, depths: NDArray[np.int64], window: Window, window_odds: Vectors) -> None:
    """Write the odds of the words that stand deeper in this window than in those before, in place."""
    firsts = np.array(window.firsts, np.int64)
    window_depths = np.minimum(firsts, len(window.ids) - firsts)
    words = np.array(window.words, np.int64)
    deeper = window_depths > depths[words]
    odds[words[deeper]], depths[words[deeper]] = window_odds[deeper], window_depths[deeper]


def _decode(places: Sequence[Place], odds: Vectors, choice_odds: Sequence[Sequence[Vectors]]) -> TaggedInput:
    """Decode one input; a choice is read from the mean over the windows."""
    means = [np.mean(windows, axis=0) for windows in choice_odds]
    confidences = [float(mean.max()) for mean in means]
    spans: list[tuple[int, Place, float]] = []
    if len(odds):
        path = best_path(odds)
        path_odds = odds[np.arange(len(path)), path]
        confidences.append(float(path_odds.min()))
        for first, last in _spans(path):
            field = (int(path[first]) - 1) // 2
            place = (places[first][0], places[last][1])
            spans.append((field, place, float(path_odds[first : last + 1].min())))
    choices = tuple(int(mean.argmax()) for mean in means)
    return TaggedInput(tuple(spans), choices, min(confidences, default=0.0))


def best_path(odds: Vectors) -> NDArray[np.int64]:
    """Return the most probable tags in which each I-field follows a B- or I- of its field (Viterbi 1967).

    Args:
        odds: (words, tags) probabilities.

    """
    logs = np.log(np.maximum(odds, 1e-12))  # a probability that rounds to 0 must not rule a path out
    tag_count = logs.shape[1]
    inside = np.arange(2, tag_count, 2)
    score, previous = logs[0].copy(), np.zeros(logs.shape, np.int64)
    score[inside] = -np.inf
    for word in range(1, len(logs)):
        # O and every B- may follow any tag, so their best predecessor is the best of all.
        best = np.full(tag_count, int(score.argmax()))
        best[inside] = np.where(score[inside] >= score[inside - 1], inside, inside - 1)
        previous[word] = best
        score = score[best] + logs[word]
    path = np.zeros(len(logs), np.int64)
    path[-1] = score.argmax()
    for word in range(len(logs) - 1, 0, -1):
        path[word - 1] = previous[word, path[word]]
    return path


def _spans(path: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the (first, last) word of each field."""
    spans: list[tuple[int, int]] = []
    for word, tag_number in enumerate(path.tolist()):
        if tag_number and tag_number % 2:
            spans.append((word, word))
        elif tag_number:
            spans[-1] = (spans[-1][0], word)
    return spans
