"""One run of fine-tuning: an encoder's upper layers and a head, trained together.

What makes it fast enough for a laptop (figures in docs/log.md): the word embeddings and
the lower four layers stay fixed and their output is computed once; batches hold texts of
like length; attention is eager; bf16 is used where the processor has instructions for it,
and only there. What makes it good with few examples: the head starts from the class
centroids, in which each label's name counts as one more example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from tunepoint.models.encoder import Encoder, batch_by_length, pad_states

MAX_CACHED_TOKENS = 500_000
"""Up to so many tokens, the lower states are computed once and kept (1.5 kB each)."""
MAX_LAST_LOSS_SHARE = 0.9
"""A last loss above this share of the first one has not fallen."""


@dataclass(frozen=True)
class Recipe:
    """Settings of fine-tuning; the defaults were found on banking77 (docs/log.md)."""

    frozen: int = 4
    """Lowest layers, of six, that stay as they are; of an encoder with fewer, all but the last at most."""
    epochs: int = 4
    most_steps: int = 3_000
    """A run takes no more optimizer steps than this, whatever the epochs."""
    batch: int = 32
    learning_rate: float = 3e-4
    head_factor: float = 10.0
    """The head learns this much faster than the layers."""
    weight_decay: float = 0.01
    scale: float = 10.0
    """Inverse temperature of the cosine logits."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises."""

    def epochs_for(self, examples: int) -> int:
        """Return the whole epochs within `most_steps`, at least one."""
        steps_per_epoch = math.ceil(examples / self.batch)
        return max(1, min(self.epochs, self.most_steps // steps_per_epoch))


class TrainingRun:
    """One training run: the tuned layers, the head and the cached lower states."""

    def __init__(
        self, encoder: Encoder, recipe: Recipe, texts: Sequence[str], targets: Tensor, labels: int
    ) -> None:
        self.recipe = recipe
        self.frozen = min(recipe.frozen, len(encoder.layers) - 1)
        self.tuned = encoder.tunable_copy(self.frozen)
        self.targets = targets
        self._texts = list(texts)
        self._lengths = np.array([len(text) for text in encoder.tokens(texts)])
        fits = int(self._lengths.sum()) <= MAX_CACHED_TOKENS
        self._states = encoder.hidden_states(texts, self.frozen) if fits else None
        # Vectors and weights are multiplied by the root of the scale each, so their product has all of it.
        self.root = math.sqrt(recipe.scale)
        self.weight = torch.nn.Parameter(self._centroids(labels) * self.root)
        self.bias = torch.nn.Parameter(torch.zeros(labels))

    def train(self, rng: Generator) -> list[float]:
        """Train the layers and the head; return the mean loss of each epoch."""
        recipe = self.recipe
        epochs = recipe.epochs_for(len(self._texts))
        steps = epochs * math.ceil(len(self._texts) / recipe.batch)
        optimizer = self._optimizer()
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(steps, recipe.warmup))
        losses = []
        for _ in range(epochs):
            total = 0.0
            for batch in self._batches(rng):
                loss = self._loss(batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                rate.step()
                total += float(loss.detach()) * len(batch)
            losses.append(total / len(self._texts))
        return losses

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (labels, width) weights and (labels,) biases for unit vectors."""
        return (self.weight * self.root).detach().numpy().copy(), self.bias.detach().numpy().copy()

    def _optimizer(self) -> torch.optim.Optimizer:
        layers = []
        for layer in self.tuned.layers[self.frozen :]:
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
                layers.append(parameter)
        rate = self.recipe.learning_rate
        head: dict[str, Any] = {"params": [self.weight, self.bias], "lr": rate * self.recipe.head_factor}
        decay = self.recipe.weight_decay
        return torch.optim.AdamW([{"params": layers}, head], lr=rate, weight_decay=decay, fused=True)

    def _loss(self, batch: Sequence[int]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16_is_fast()):
            vectors = self._pooled(batch)
        logits = self.root * vectors @ self.weight.T + self.bias
        return torch.nn.functional.cross_entropy(logits, self.targets[torch.tensor(batch)])

    def _pooled(self, batch: Sequence[int]) -> Tensor:
        """Return (batch, width) unit vectors; the lower states are computed only if they are not kept."""
        if self._states is not None:
            states = [self._states[i] for i in batch]
        else:
            states = self.tuned.hidden_states([self._texts[i] for i in batch], self.frozen)
        state, mask = pad_states(states)
        return self.tuned.pool(state, mask, self.frozen)

    def _batches(self, rng: Generator) -> list[list[int]]:
        """Return batches of like length, in random order."""
        # The noise shuffles texts of nearly the same length, or every epoch would have the same batches.
        lengths = self._lengths + rng.normal(0.0, 0.05 * self._lengths.mean(), len(self._lengths))
        batches = batch_by_length(lengths.tolist(), self.recipe.batch)
        return [batches[i] for i in rng.permutation(len(batches))]

    def _centroids(self, labels: int) -> Tensor:
        """Return (labels, width) unit centroids of the labels' texts under the untuned layers."""
        with torch.no_grad():
            width = self._pooled([0]).shape[1]
            sums = torch.zeros(labels, width)
            for batch in batch_by_length(self._lengths.tolist(), self.recipe.batch):
                sums.index_add_(0, self.targets[torch.tensor(batch)], self._pooled(batch))
            return torch.nn.functional.normalize(sums, dim=-1)


def loss_warnings(losses: Sequence[float]) -> tuple[str, ...]:
    """Say what a person would notice in the mean losses of the epochs."""
    if not math.isfinite(losses[-1]):
        return (f"training diverged: the loss is {losses[-1]}",)
    if len(losses) > 1 and losses[-1] > MAX_LAST_LOSS_SHARE * losses[0]:
        return (f"the loss did not fall: {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end",)
    return ()


def schedule(steps: int, warmup: float) -> Any:
    """Return the factor of the learning rate by step: up to 1 over the share `warmup`, then down to 0."""
    rising = max(1.0, warmup * steps)
    return lambda step: min((step + 1) / rising, max(0.0, (steps - step) / max(1.0, steps - rising)))


def bf16_is_fast() -> bool:
    """Whether this processor has instructions for bf16; without them it is slower than fp32."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    # Which of these private functions exist depends on torch's version.
    flags = [getattr(torch.cpu, name) for name in probes if hasattr(torch.cpu, name)]
    return "AVX512" in capabilities and any(flag() for flag in flags)
