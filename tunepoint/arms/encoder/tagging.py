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

from tunepoint.arms.encoder.fields import Marked
from tunepoint.arms.encoder.training import bf16_is_fast, schedule
from tunepoint.arms.encoder.windows import IGNORED, SHAPES, Window, Words, first_tokens, padded_shapes
from tunepoint.models.encoder import Encoder, batch_by_length


@dataclass(frozen=True)
class TagRecipe:
    """Settings of training; the defaults were found on CoNLL++ and SNIPS (docs/log.md).

    The names of the settings are part of the names of runs on disk.
    """

    epochs: int = 6
    least_steps: int = 400
    """Few examples are repeated until there are so many steps, up to `most_epochs` times: a hundred
    examples teach nothing otherwise."""
    most_epochs: int = 40
    most_steps: int = 6_000
    """A run takes no more optimizer steps than this, whatever the epochs."""
    batch: int = 16
    learning_rate: float = 2e-4
    head_factor: float = 5.0
    """The heads learn this much faster than the layers."""
    weight_decay: float = 0.01
    warmup: float = 0.1
    dropout: float = 0.1
    """Of the states that the heads read."""

    def epochs_for(self, windows: int) -> int:
        """Return the whole epochs for so many windows, at least one."""
        steps_per_epoch = math.ceil(windows / self.batch)
        epochs = min(self.most_epochs, max(self.epochs, math.ceil(self.least_steps / steps_per_epoch)))
        return max(1, min(epochs, self.most_steps // steps_per_epoch))


class TagScorer(Protocol):
    """Scores the tags of words: with weights in this process, or with an exported graph."""

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
        generator = torch.Generator().manual_seed(seed)
        self._sizes = (tags, *choices)
        self.encoder = encoder.tunable_copy(0)
        self.layers = torch.nn.ModuleList(self.encoder.layers)
        width = self.encoder.width
        self.shapes = torch.nn.Embedding(len(SHAPES), width)
        # Zero at first, so that training starts from the states that the encoder was trained to give.
        torch.nn.init.zeros_(self.shapes.weight)
        self.tags = torch.nn.Linear(width, tags)
        self.choices = torch.nn.ModuleList(torch.nn.Linear(width, count) for count in choices)
        self.dropout = torch.nn.Dropout(dropout)
        for head in (self.tags, *self.choices):
            torch.nn.init.normal_(head.weight, std=0.02, generator=generator)
            torch.nn.init.zeros_(head.bias)
        for parameter in self.layers.parameters():
            parameter.requires_grad_(True)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tags, and how many values each choice has."""
        return self._sizes

    def forward(self, windows: Sequence[Window]) -> tuple[Tensor, list[Tensor]]:
        """Logits of the tags, (words of all windows, tags), and of each choice, (windows, values)."""
        state, mask = self.encoder.input_states([window.ids for window in windows])
        state = state + self.shapes(padded_shapes(windows, state.shape[1]))
        state = self.encoder.run_layers(state, mask, 0, len(self.layers))
        words = self.dropout(state[first_tokens(windows)])
        mean = (state * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.tags(words).float(), [head(self.dropout(mean)).float() for head in self.choices]


def train(
    tagger: Tagger,
    words: Words,
    marked: Sequence[Marked],
    recipe: TagRecipe,
    rng: Generator,
) -> list[float]:
    """Train on marked inputs; return the mean loss of each epoch."""
    targets = words.tags(marked)
    epochs = recipe.epochs_for(len(words.windows))
    steps = epochs * math.ceil(len(words.windows) / recipe.batch)
    optimizer = _optimizer(tagger, recipe)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(steps, recipe.warmup))
    losses = []
    tagger.train()
    with torch.random.fork_rng():  # dropout draws from torch's global generator; `rng` has to seed it
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
    """Yield batches of like length, in random order; neighbors in length are shuffled."""
    lengths = np.array([len(window.ids) for window in windows])
    order = batch_by_length((lengths + rng.normal(0.0, 0.1 * lengths.mean(), len(lengths))).tolist(), size)
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
    """Return the cross-entropy of the words whose tags are known, plus that of the choices."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16_is_fast()):
        tags, choices = tagger(batch)
    tag_targets = torch.from_numpy(np.concatenate([targets[w.text][list(w.words)] for w in batch]))
    loss = torch.nn.functional.cross_entropy(tags, tag_targets, ignore_index=IGNORED, reduction="sum")
    # Not reduction="mean", which is 0 / 0 for a batch without a known tag.
    loss = loss / max(1, int((tag_targets != IGNORED).sum()))
    for number, logits in enumerate(choices):
        values = torch.tensor([marked[window.text].choices[number] for window in batch])
        has_value = values >= 0
        if has_value.any():
            loss = loss + torch.nn.functional.cross_entropy(logits[has_value], values[has_value])
    return loss
