"""Token classification with an encoder: which words of an input belong to which field.

Each word, by its first token, gets one of the tags B-field, I-field or O (Ramshaw and Marcus
1995, in the IOB2 form); choices among a few values are read from the mean of the words. The
encoder lowers all text, so the shape of a word (capitals, digits) is given back to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from tunepoint.arms.encoder.fields import Marked, Place
from tunepoint.arms.encoder.training import bf16_is_fast, schedule
from tunepoint.models.encoder import MAX_TOKENS, Encoder, Vectors, by_length, softmax

IGNORED = -100
"""Tag of a word that the loss leaves out."""
OVERLAP = 64
"""Tokens that two windows of a long input share."""
SHAPES = ("lower", "Capital", "UPPER", "mIxed", "digits", "other")


@dataclass(frozen=True)
class TagRecipe:
    """Settings of training; the defaults were found on CoNLL++ and SNIPS (docs/log.md)."""

    epochs: int = 6
    least_steps: int = 400
    """Few examples are seen more often, up to `most_epochs` times: a hundred need it to learn anything."""
    most_epochs: int = 40
    most_steps: int = 6_000
    """Epochs are cut so that no run takes more optimiser steps than this."""
    batch: int = 16
    learning_rate: float = 2e-4
    head_factor: float = 5.0
    """The heads learn this much faster than the layers."""
    weight_decay: float = 0.01
    warmup: float = 0.1
    dropout: float = 0.1
    """Of the states that the heads read."""

    def epochs_for(self, windows: int) -> int:
        """Whole epochs for so many windows, at least one."""
        an_epoch = math.ceil(windows / self.batch)
        wanted = min(self.most_epochs, max(self.epochs, math.ceil(self.least_steps / an_epoch)))
        return max(1, min(wanted, self.most_steps // an_epoch))


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
        every: list[tuple[Place, ...]] = []
        for number, (text, encoding) in enumerate(zip(texts, encoder.encodings(texts), strict=True)):
            words, offsets = encoding.word_ids, encoding.offsets  # each builds its list anew
            content = [i for i, word in enumerate(words) if word is not None]
            firsts = [i for i in content if words[i] != words[i - 1]]
            lasts = [i for i in content if i + 1 == len(words) or words[i] != words[i + 1]]
            places = tuple(
                (offsets[first][0], offsets[last][1]) for first, last in zip(firsts, lasts, strict=True)
            )
            every.append(places)
            windows += _windows(number, text, encoding.ids, firsts, places)
        return cls(tuple(windows), tuple(every))

    def tags(self, marked: Sequence[Marked]) -> list[NDArray[np.int64]]:
        """The tag of every word of every input: 0 outside, 2f + 1 where field f begins, 2f + 2 inside it."""
        return [_tags(places, one) for places, one in zip(self.places, marked, strict=True)]


def _windows(
    number: int, text: str, ids: Sequence[int], firsts: Sequence[int], places: Sequence[Place]
) -> list[Window]:
    """The windows of one input; `ids` has the special tokens at both ends."""
    word_of = np.searchsorted(firsts, np.arange(len(ids)), side="right") - 1
    shapes = [shape_of(text[slice(*place)]) for place in places]
    found = []
    for start in range(1, max(2, len(ids) - 1 - OVERLAP), MAX_TOKENS - 2 - OVERLAP):
        inside = range(start, min(start + MAX_TOKENS - 2, len(ids) - 1))
        first, last = np.searchsorted(firsts, [inside.start, inside.stop]).tolist()
        mine = [(firsts[word] - start + 1, word) for word in range(first, last)]
        found.append(
            Window(
                number,
                (ids[0], *(ids[i] for i in inside), ids[-1]),
                (0, *(shapes[word_of[i]] for i in inside), 0),
                tuple(place for place, _ in mine),
                tuple(word for _, word in mine),
            )
        )
    return found


def shape_of(word: str) -> int:
    """The shape of a word's letters, as a number of `SHAPES`."""
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


class Tags(Protocol):
    """What gives words their tags: the weights in this process, or an exported graph."""

    encoder: Encoder

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tags, and how many values each choice has."""
        ...

    def __call__(self, windows: Sequence[Window]) -> tuple[Tensor, list[Tensor]]:
        """Logits of the tags, (words of all windows, tags), and of each choice, (windows, values)."""
        ...


class Tagger(torch.nn.Module):
    """An encoder's layers with one head for the tags of words and one for the choices."""

    def __init__(
        self, encoder: Encoder, tags: int, choices: Sequence[int], dropout: float, seed: int
    ) -> None:
        super().__init__()
        luck = torch.Generator().manual_seed(seed)
        self._sizes = (tags, *choices)
        self.encoder = encoder.tunable_copy(0)
        self.layers = torch.nn.ModuleList(self.encoder.layers)
        width = self.encoder.width
        self.shapes = torch.nn.Embedding(len(SHAPES), width)
        torch.nn.init.zeros_(self.shapes.weight)
        self.tags = torch.nn.Linear(width, tags)
        self.choices = torch.nn.ModuleList(torch.nn.Linear(width, count) for count in choices)
        self.dropout = torch.nn.Dropout(dropout)
        for head in (self.tags, *self.choices):
            torch.nn.init.normal_(head.weight, std=0.02, generator=luck)
            torch.nn.init.zeros_(head.bias)
        for parameter in self.layers.parameters():
            parameter.requires_grad_(True)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tags, and how many values each choice has."""
        return self._sizes

    def forward(self, windows: Sequence[Window]) -> tuple[Tensor, list[Tensor]]:
        """Logits of the tags, (words of all windows, tags), and of each choice, (windows, values)."""
        state, mask = self.encoder.embedded([window.ids for window in windows])
        state = state + self.shapes(padded_shapes(windows, state.shape[1]))
        state = self.encoder.run(state, mask, 0, len(self.layers))
        words = self.dropout(state[first_tokens(windows)])
        mean = (state * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.tags(words).float(), [head(self.dropout(mean)).float() for head in self.choices]


def padded_shapes(windows: Sequence[Window], longest: int) -> Tensor:
    """(windows, tokens) shapes of the words that tokens are of."""
    shapes = torch.zeros(len(windows), longest, dtype=torch.long)
    for row, window in enumerate(windows):
        shapes[row, : len(window.shapes)] = torch.tensor(window.shapes)
    return shapes


def first_tokens(windows: Sequence[Window]) -> tuple[list[int], list[int]]:
    """Rows and columns of the words' first tokens."""
    rows = [row for row, window in enumerate(windows) for _ in window.firsts]
    return rows, [place for window in windows for place in window.firsts]


def train(
    tagger: Tagger,
    words: Words,
    marked: Sequence[Marked],
    recipe: TagRecipe,
    rng: Generator,
) -> list[float]:
    """Train on marked inputs; the mean loss of each epoch."""
    targets = words.tags(marked)
    epochs = recipe.epochs_for(len(words.windows))
    steps = epochs * math.ceil(len(words.windows) / recipe.batch)
    optimizer = _optimizer(tagger, recipe)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(steps, recipe.warmup))
    losses = []
    tagger.train()
    with torch.random.fork_rng():  # what dropout draws is a matter of `rng`
        torch.manual_seed(int(rng.integers(2**31)))
        for _ in range(epochs):
            total = 0.0
            for batch in _batches(words.windows, recipe.batch, rng):
                loss = _loss(tagger, batch, targets, marked)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(tagger.parameters(), 1.0)
                optimizer.step()
                rate.step()
                total += float(loss.detach()) * len(batch)
            losses.append(total / len(words.windows))
    tagger.eval()
    return losses


def _batches(windows: Sequence[Window], size: int, rng: Generator) -> Iterator[list[Window]]:
    """Batches of like length, in random order; neighbours in length are shuffled."""
    lengths = np.array([len(window.ids) for window in windows])
    order = by_length((lengths + rng.normal(0.0, 0.1 * lengths.mean(), len(lengths))).tolist(), size)
    for i in rng.permutation(len(order)).tolist():
        yield [windows[j] for j in order[i]]


def _optimizer(tagger: Tagger, recipe: TagRecipe) -> torch.optim.Optimizer:
    layers = list(tagger.layers.parameters())
    heads = [*tagger.shapes.parameters(), *tagger.tags.parameters(), *tagger.choices.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": layers},
        {"params": heads, "lr": recipe.learning_rate * recipe.head_factor},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def _loss(
    tagger: Tagger, batch: Sequence[Window], targets: Sequence[NDArray[np.int64]], marked: Sequence[Marked]
) -> Tensor:
    """Cross-entropy of the words that are marked clearly, and of the choices."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16_is_fast()):
        tags, choices = tagger(batch)
    wanted = torch.from_numpy(np.concatenate([targets[w.text][list(w.words)] for w in batch]))
    loss = torch.nn.functional.cross_entropy(tags, wanted, ignore_index=IGNORED, reduction="sum")
    loss = loss / max(1, int((wanted != IGNORED).sum()))
    for number, logits in enumerate(choices):
        values = torch.tensor([marked[window.text].choices[number] for window in batch])
        known = values >= 0
        if known.any():
            loss = loss + torch.nn.functional.cross_entropy(logits[known], values[known])
    return loss


@dataclass(frozen=True)
class Tagged:
    """What a tagger says of one input."""

    spans: tuple[tuple[int, Place, float], ...]
    """(number of the field, place, probability), in the order of the text."""
    choices: tuple[int, ...]
    confidence: float
    """Probability of the least certain word or choice."""


def tag(tagger: Tags, texts: Sequence[str], batch: int = 32) -> list[Tagged]:
    """The fields of each input; in a long one every word counts in the window where it stands deepest."""
    words = Words.of(tagger.encoder, texts)
    size, *choices_of = tagger.sizes
    odds = [np.zeros((len(places), size), np.float32) for places in words.places]
    depth = [np.full(len(places), -1) for places in words.places]
    chosen: list[list[list[Vectors]]] = [[[] for _ in choices_of] for _ in texts]
    with torch.inference_mode():
        for some in by_length([len(window.ids) for window in words.windows], batch):
            windows = [words.windows[i] for i in some]
            tags, choices = tagger(windows)
            rows = np.split(softmax(tags.numpy()), np.cumsum([len(w.words) for w in windows])[:-1])
            for row, window in enumerate(windows):
                _put_deepest(odds[window.text], depth[window.text], window, rows[row])
                for number, logits in enumerate(choices):
                    chosen[window.text][number].append(softmax(logits[row].numpy()))
    return [_tagged(places, odds[i], chosen[i]) for i, places in enumerate(words.places)]


def _put_deepest(odds: Vectors, depth: NDArray[np.int64], window: Window, rows: Vectors) -> None:
    firsts = np.array(window.firsts, np.int64)
    mine = np.minimum(firsts, len(window.ids) - firsts)
    numbers = np.array(window.words, np.int64)
    better = mine > depth[numbers]
    odds[numbers[better]], depth[numbers[better]] = rows[better], mine[better]


def _tagged(places: Sequence[Place], odds: Vectors, chosen: Sequence[Sequence[Vectors]]) -> Tagged:
    means = [np.mean(several, axis=0) for several in chosen]
    least = [float(mean.max()) for mean in means]
    spans: list[tuple[int, Place, float]] = []
    if len(odds):
        path = best_path(odds)
        certain = odds[np.arange(len(path)), path]
        least.append(float(certain.min()))
        for first, last in _runs(path):
            field = (int(path[first]) - 1) // 2
            spans.append((field, (places[first][0], places[last][1]), float(certain[first : last + 1].min())))
    return Tagged(tuple(spans), tuple(int(mean.argmax()) for mean in means), min(least, default=0.0))


def best_path(odds: Vectors) -> NDArray[np.int64]:
    """The most probable tags of which every I-field follows a B- or I- of its field (Viterbi 1967).

    Args:
        odds: (words, tags) probabilities.

    """
    logs = np.log(np.maximum(odds, 1e-12))
    size = logs.shape[1]
    inside = np.arange(2, size, 2)
    score, before = logs[0].copy(), np.zeros(logs.shape, np.int64)
    score[inside] = -np.inf
    for word in range(1, len(logs)):
        best = int(score.argmax())
        came = np.full(size, best)
        came[inside] = np.where(score[inside] >= score[inside - 1], inside, inside - 1)
        before[word] = came
        score = score[came] + logs[word]
    path = np.zeros(len(logs), np.int64)
    path[-1] = score.argmax()
    for word in range(len(logs) - 1, 0, -1):
        path[word - 1] = before[word, path[word]]
    return path


def _runs(path: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(first, last) word of every field."""
    found: list[tuple[int, int]] = []
    for word, value in enumerate(path.tolist()):
        if value and value % 2:
            found.append((word, word))
        elif value:
            found[-1] = (found[-1][0], word)
    return found
