"""An encoder with a head: a probe on frozen vectors, and full fine-tuning.

What makes fine-tuning fast enough for a laptop (figures in docs/log.md): the word
embeddings and the lower four layers stay fixed and their output is computed once;
batches hold texts of like length; attention is eager; bf16 is used where the processor
has instructions for it, and only there. What makes it good with few examples: the head
starts from the class centroids, in which each label's name counts as one more example.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunepoint.arms import ArmKind, Built, InProcess, Input, labels_of
from tunepoint.data.examples import Example, fingerprint
from tunepoint.errors import ModelError
from tunepoint.models.chat import Prompt, Reply, Usage
from tunepoint.models.encoder import Encoder, Vectors, by_length, padded, readable, softmax
from tunepoint.task import Task

CACHED_TOKENS = 500_000
"""Tokens whose lower states are kept (1.5 kB each); more are computed batch by batch."""


@dataclass(frozen=True)
class Recipe:
    """Settings of fine-tuning; the defaults were found on banking77 (docs/log.md)."""

    frozen: int = 4
    """Lowest layers, of six, that stay as they are."""
    epochs: int = 4
    most_steps: int = 3_000
    """Epochs are cut so that no run takes more optimiser steps than this."""
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
        """Whole epochs within `most_steps`, at least one."""
        steps = math.ceil(examples / self.batch)
        return max(1, min(self.epochs, self.most_steps // steps))


@dataclass
class Classifier(InProcess):
    """A fitted head on an encoder, its own or the shared one."""

    encoder: Encoder
    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    """(labels, width)"""
    bias: NDArray[np.float32]
    """(labels,)"""
    built: Built
    frozen: int = 6
    """Layers that the encoder shares with the untuned one."""

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """The most probable label of each input."""
        started = time.perf_counter()
        odds = self.probabilities(self.encoder.embed(inputs))
        seconds = (time.perf_counter() - started) / max(1, len(inputs))
        best = odds.argmax(axis=1)
        return [
            Reply(
                self.labels[label],
                self.labels[label],
                Usage(self.encoder.name, seconds=seconds),
                confidence=float(odds[row, label]),
            )
            for row, label in enumerate(best.tolist())
        ]

    def probabilities(self, vectors: Vectors) -> Vectors:
        """(n, labels) probabilities for (n, width) vectors of the encoder."""
        return softmax(vectors @ self.weight.T + self.bias)

    def save(self, path: Path) -> None:
        """Write head and tuned layers to one safetensors file, whole or not at all."""
        tensors = {"weight": torch.from_numpy(self.weight), "bias": torch.from_numpy(self.bias)}
        for number, layer in enumerate(self.encoder.layers[self.frozen :], start=self.frozen):
            for name, value in layer.state_dict().items():
                tensors[f"layer.{number}.{name}"] = value.contiguous()
        facts = {
            "labels": list(self.labels),
            "frozen": self.frozen,
            "examples": self.built.examples,
            "seconds": self.built.seconds,
            "warnings": list(self.built.warnings),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        save_file(tensors, unfinished, metadata={"tunepoint": json.dumps(facts)})
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path, encoder: Encoder) -> Classifier:
        """Read what `save` wrote, on top of the encoder it was tuned from.

        Raises:
            ModelError: the file is not one of ours.

        """
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if "tunepoint" not in metadata:
            raise ModelError(f"{path}: not a classifier saved by tunepoint; delete it and run again")
        facts: dict[str, Any] = json.loads(metadata["tunepoint"])
        tensors = load_file(path)
        frozen = int(facts["frozen"])
        tuned = encoder.tunable_copy(frozen)
        for number, layer in enumerate(tuned.layers[frozen:], start=frozen):
            prefix = f"layer.{number}."
            layer.load_state_dict(
                {
                    name.removeprefix(prefix): value
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                }
            )
        built = Built(facts["examples"], facts["seconds"], tuple(facts["warnings"]))
        weight, bias = tensors["weight"].numpy(), tensors["bias"].numpy()
        return cls(tuned, tuple(facts["labels"]), weight, bias, built, frozen)


@dataclass
class Probe:
    """Logistic regression on the frozen encoder's vectors."""

    encoder: Encoder
    strength: float = 10.0
    """Inverse regularisation, scikit-learn's C."""
    name: str = "probe"
    family: str = "probe"
    kind: ArmKind = "tuned"
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Classifier:
        """Fit the head; the solution is unique, so `rng` is not needed."""
        from sklearn.linear_model import LogisticRegression

        labels = labels_of(task, train)
        inputs = [example.input for example in train]
        self.encoder.remember(inputs)
        position = {label: i for i, label in enumerate(labels)}
        targets = np.array([position[example.target] for example in train])
        started = time.perf_counter()
        weight = np.zeros((len(labels), self.encoder.embed(inputs[:1]).shape[1]), np.float32)
        bias = np.full(len(labels), -1e9, np.float32)
        present = np.unique(targets)
        if len(present) == 1:
            bias[present] = 0.0
        else:
            model = LogisticRegression(C=self.strength, max_iter=1_000)
            model.fit(self.encoder.embed(inputs), targets)
            both = len(present) == 2  # scikit-learn keeps one row for two classes
            rows = np.concatenate([-model.coef_, model.coef_]) / 2 if both else model.coef_
            offsets = np.array([-1, 1]) * model.intercept_ / 2 if both else model.intercept_
            weight[present], bias[present] = rows, offsets
        built = Built(len(train), time.perf_counter() - started)
        return Classifier(self.encoder, labels, weight, bias, built)


@dataclass
class FineTuned:
    """The encoder's upper layers and a head, trained together."""

    encoder: Encoder
    recipe: Recipe = Recipe()
    seeds: int = 3
    name: str = "fine-tuned encoder"
    family: str = "fine-tuned encoder"
    kind: ArmKind = "tuned"
    keep: Path | None = None
    """Folder of finished training runs; a run that is there is loaded, not repeated."""
    familiar: tuple[Input, ...] = ()
    """Inputs that selection asks again and again, embedded once for each run."""
    _runs: dict[str, Classifier] = field(default_factory=dict, repr=False)

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Classifier:
        """Train on `train`, or load the run of the same data and the same `rng`."""
        seed = int(rng.integers(2**31))
        run = f"{fingerprint(train)[:12]}-{seed:010d}"
        if run not in self._runs:
            self._runs[run] = self._load_or_train(task, train, run, seed)
            self._runs[run].encoder.remember(self.familiar)
        return self._runs[run]

    def remember(self, texts: Sequence[Input]) -> None:
        """Embed inputs once for every run, those that are still to be loaded included."""
        self.familiar = (*self.familiar, *texts)
        for run in self._runs.values():
            run.encoder.remember(texts)

    def _load_or_train(self, task: Task, train: Sequence[Example], run: str, seed: int) -> Classifier:
        path = self.keep / f"{run}.safetensors" if self.keep else None
        if path is not None and path.exists():
            return Classifier.load(path, self.encoder)
        fitted = self._train(task, train, np.random.default_rng(seed))
        if path is not None:
            fitted.save(path)
        return fitted

    def _train(self, task: Task, train: Sequence[Example], rng: Generator) -> Classifier:
        labels = labels_of(task, train)
        position = {label: i for i, label in enumerate(labels)}
        texts = [example.input for example in train] + [readable(label) for label in labels]
        targets = torch.tensor([position[e.target] for e in train] + list(range(len(labels))))
        started = time.perf_counter()
        run = _Run(self.encoder, self.recipe, texts, targets, len(labels))
        losses = run.train(rng)
        built = Built(len(train), time.perf_counter() - started, run.warnings(losses))
        return Classifier(run.tuned, labels, *run.head(), built, self.recipe.frozen)


class _Run:
    """One training run: the tuned layers, the head and the cached lower states."""

    def __init__(
        self, encoder: Encoder, recipe: Recipe, texts: Sequence[str], targets: Tensor, labels: int
    ) -> None:
        self.recipe = recipe
        self.tuned = encoder.tunable_copy(recipe.frozen)
        self.targets = targets
        self._texts = list(texts)
        self._lengths = np.array([len(text) for text in encoder.tokens(texts)])
        kept = int(self._lengths.sum()) <= CACHED_TOKENS
        self._states = encoder.hidden(texts, recipe.frozen) if kept else None
        self.root = math.sqrt(recipe.scale)
        self.weight = torch.nn.Parameter(self._centroids(labels) * self.root)
        self.bias = torch.nn.Parameter(torch.zeros(labels))

    def train(self, rng: Generator) -> list[float]:
        """Mean loss of each epoch."""
        recipe = self.recipe
        epochs = recipe.epochs_for(len(self._texts))
        steps = epochs * math.ceil(len(self._texts) / recipe.batch)
        optimizer = self._optimizer()
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(steps, recipe.warmup))
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
        """Weight and bias that apply to unit vectors."""
        return (self.weight * self.root).detach().numpy().copy(), self.bias.detach().numpy().copy()

    def warnings(self, losses: list[float]) -> tuple[str, ...]:
        """What a person would notice in the loss curve."""
        if not math.isfinite(losses[-1]):
            return (f"training diverged: the loss is {losses[-1]}",)
        if len(losses) > 1 and losses[-1] > 0.9 * losses[0]:
            return (f"the loss did not fall: {losses[0]:.3f} at first, {losses[-1]:.3f} at last",)
        return ()

    def _optimizer(self) -> torch.optim.Optimizer:
        layers = []
        for layer in self.tuned.layers[self.recipe.frozen :]:
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
                layers.append(parameter)
        rate = self.recipe.learning_rate
        head = {"params": [self.weight, self.bias], "lr": rate * self.recipe.head_factor}
        decay = self.recipe.weight_decay
        return torch.optim.AdamW([{"params": layers}, head], lr=rate, weight_decay=decay, fused=True)

    def _loss(self, batch: Sequence[int]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16_is_fast()):
            vectors = self._pooled(batch)
        logits = self.root * vectors @ self.weight.T + self.bias
        return torch.nn.functional.cross_entropy(logits, self.targets[torch.tensor(batch)])

    def _pooled(self, batch: Sequence[int]) -> Tensor:
        """(batch, width) unit vectors, through the trainable layers only."""
        if self._states is not None:
            states = [self._states[i] for i in batch]
        else:
            states = self.tuned.hidden([self._texts[i] for i in batch], self.recipe.frozen)
        state, mask = padded(states)
        return self.tuned.pooled(state, mask, self.recipe.frozen)

    def _batches(self, rng: Generator) -> list[list[int]]:
        """Batches of like length, in random order; ties and neighbours are shuffled."""
        lengths = self._lengths + rng.normal(0.0, 0.05 * self._lengths.mean(), len(self._lengths))
        batches = by_length(lengths.tolist(), self.recipe.batch)
        return [batches[i] for i in rng.permutation(len(batches))]

    def _centroids(self, labels: int) -> Tensor:
        """(labels, width) unit class centroids under the untuned layers."""
        with torch.no_grad():
            width = self._pooled([0]).shape[1]
            sums = torch.zeros(labels, width)
            for batch in by_length(self._lengths.tolist(), self.recipe.batch):
                sums.index_add_(0, self.targets[torch.tensor(batch)], self._pooled(batch))
            return torch.nn.functional.normalize(sums, dim=-1)


def _schedule(steps: int, warmup: float) -> Any:
    """Linear rise over the share `warmup` of the steps, then linear fall to zero."""
    rising = max(1.0, warmup * steps)
    return lambda step: min((step + 1) / rising, max(0.0, (steps - step) / max(1.0, steps - rising)))


def bf16_is_fast() -> bool:
    """Whether this processor multiplies in bf16 itself; emulated, it is slower than fp32."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    flags = [getattr(torch.cpu, name) for name in probes if hasattr(torch.cpu, name)]
    return "AVX512" in capabilities and any(flag() for flag in flags)


@dataclass
class LightPrompted(InProcess):
    """A tuned encoder that also reads a prompt: label names, or retrieved demonstrations."""

    tuned: Classifier
    weight: float
    built: Built
    template: Prompt
    k: int = 0
    inputs: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()
    vectors: Vectors | None = None

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies from the head's odds and the prompt's, mixed by `weight`."""
        started = time.perf_counter()
        vectors = self.tuned.encoder.embed(inputs)
        head = self.tuned.probabilities(vectors)
        read = self._named(vectors) if self.vectors is None else self._voted(vectors)
        odds = (1 - self.weight) * head + self.weight * read
        seconds = (time.perf_counter() - started) / max(1, len(inputs))
        return [self.tuned.encoder.reply(self.template, row, seconds) for row in odds]

    def _named(self, vectors: Vectors) -> Vectors:
        encoder = self.tuned.encoder
        return np.stack([encoder.probabilities(self.template, vector) for vector in vectors])

    def _voted(self, vectors: Vectors) -> Vectors:
        """(n, labels) votes of the k most similar training examples."""
        assert self.vectors is not None
        similarity = vectors @ self.vectors.T
        near = np.argsort(-similarity, axis=1, kind="stable")[:, : self.k]
        weights = softmax(np.take_along_axis(similarity, near, axis=1) / 0.05)
        voted = np.zeros((len(vectors), len(self.tuned.labels)), np.float32)
        targets = np.array(self.targets)[near]
        np.add.at(voted, (np.arange(len(vectors))[:, None], targets), weights)
        return voted


@dataclass
class TunedWithNames:
    """Hybrid: the fine-tuned encoder, prompted with the label names."""

    base: FineTuned
    weight: float
    kind: ArmKind = "hybrid"
    family: str = "tuned + label names"

    def __post_init__(self) -> None:
        self.name = f"tuned + label names, weight {self.weight:g}"
        self.seeds = self.base.seeds

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> LightPrompted:
        """Fine-tune as the base does, then add the prompt."""
        return self.prompt(task, train, self.base.fit(task, train, rng))

    def prompt(self, task: Task, train: Sequence[Example], tuned: Classifier) -> LightPrompted:
        """Add the light prompt to a tuned encoder."""
        template = Prompt("", task.instruction, tuned.labels)
        return LightPrompted(tuned, self.weight, tuned.built, template)


@dataclass
class TunedWithRetrieval:
    """Hybrid: the fine-tuned encoder, prompted with the most similar examples."""

    base: FineTuned
    k: int
    weight: float
    kind: ArmKind = "hybrid"
    family: str = "tuned + retrieved"

    def __post_init__(self) -> None:
        self.name = f"tuned + retrieved, {self.k} similar, weight {self.weight:g}"
        self.seeds = self.base.seeds

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> LightPrompted:
        """Fine-tune as the base does, then add the prompt."""
        return self.prompt(task, train, self.base.fit(task, train, rng))

    def prompt(self, task: Task, train: Sequence[Example], tuned: Classifier) -> LightPrompted:
        """Add the light prompt to a tuned encoder."""
        inputs = tuple(example.input for example in train)
        position = {label: i for i, label in enumerate(tuned.labels)}
        tuned.encoder.remember(inputs)
        return replace(
            LightPrompted(tuned, self.weight, tuned.built, Prompt("", labels=tuned.labels)),
            k=self.k,
            inputs=inputs,
            targets=tuple(position[example.target] for example in train),
            vectors=tuned.encoder.embed(inputs),
        )
