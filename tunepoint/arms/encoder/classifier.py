"""Arms that classify with an encoder: logistic regression on its vectors, and fine-tuning."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.encoder.runs import load_or_train, read_run, run_file, write_run
from tunepoint.arms.encoder.training import Recipe, TrainingRun, loss_warnings
from tunepoint.data.examples import Example, fingerprint, labels_of
from tunepoint.data.licences import trainable
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.encoder import Encoder
from tunepoint.models.nearest_label import Vectors, label_as_words, softmax
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

SECONDS_PER_100_EXAMPLES = 4
"""Training time on two cores, for the quote of a study."""


@dataclass
class Classifier(LocalFittedArm):
    """A fitted head on an encoder, its own or the shared one."""

    concurrent: ClassVar[bool] = True
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
        """Return the most probable label of each input."""
        odds = self.probabilities(self.encoder.embed(inputs))
        best = odds.argmax(axis=1)
        return [
            Reply(
                self.labels[label],
                self.labels[label],
                Usage(self.encoder.name),
                confidence=float(odds[row, label]),
            )
            for row, label in enumerate(best.tolist())
        ]

    def probabilities(self, vectors: Vectors) -> Vectors:
        """Return (n, labels) probabilities for (n, width) vectors of the encoder."""
        return softmax(vectors @ self.weight.T + self.bias)

    def save(self, path: Path) -> None:
        """Write head and tuned layers to one safetensors file, whole or not at all."""
        tensors = {"weight": torch.from_numpy(self.weight), "bias": torch.from_numpy(self.bias)}
        # Only the tuned layers: the frozen ones are those of the published model.
        for number, layer in enumerate(self.encoder.layers[self.frozen :], start=self.frozen):
            for name, value in layer.state_dict().items():
                tensors[f"layer.{number}.{name}"] = value
        facts = {
            "labels": list(self.labels),
            "frozen": self.frozen,
            "examples": self.built.examples,
            "seconds": self.built.seconds,
            "warnings": list(self.built.warnings),
        }
        write_run(path, tensors, facts)

    @classmethod
    def load(cls, path: Path, encoder: Encoder) -> Classifier:
        """Read what `save` wrote, on top of the encoder it was tuned from.

        Raises:
            ModelError: the file is damaged, or no classifier.

        """
        tensors, facts = read_run(path, "a classifier")
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
    """An arm: logistic regression on the frozen encoder's vectors."""

    encoder: Encoder
    strength: float = 10.0
    """Inverse regularization, scikit-learn's C."""
    name: str = "probe"
    family: str = "probe"
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = False
    base_model: ClassVar[str | None] = None
    label: ClassVar[str] = "logistic regression on MiniLM vectors"
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Classifier:
        """Fit the head; the problem is convex, so `rng` is not needed."""
        from sklearn.linear_model import LogisticRegression

        labels, train = labels_of(task, train), trainable(task, train)
        inputs = [example.input for example in train]
        self.encoder.cache_vectors(inputs)
        position = {label: i for i, label in enumerate(labels)}
        targets = np.array([position[example.target] for example in train])
        started = time.perf_counter()
        weight = np.zeros((len(labels), self.encoder.embed(inputs[:1]).shape[1]), np.float32)
        # A label without a training example is never the most probable one.
        bias = np.full(len(labels), -1e9, np.float32)
        present = np.unique(targets)
        if len(present) == 1:
            bias[present] = 0.0
        else:
            model = LogisticRegression(C=self.strength, max_iter=1_000)
            model.fit(self.encoder.embed(inputs), targets)
            binary = len(present) == 2  # scikit-learn keeps one row for two classes
            rows = np.concatenate([-model.coef_, model.coef_]) / 2 if binary else model.coef_
            offsets = np.array([-1, 1]) * model.intercept_ / 2 if binary else model.intercept_
            weight[present], bias[present] = rows, offsets
        built = Built(len(train), time.perf_counter() - started)
        return Classifier(self.encoder, labels, weight, bias, built)


@dataclass
class FineTuned:
    """An arm: the encoder's upper layers and a head, trained together."""

    encoder: Encoder
    recipe: Recipe = field(default_factory=Recipe)
    min_examples: int = 2
    seeds: int = 3
    name: str = "fine-tuned encoder"
    family: str = "fine-tuned encoder"
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = False
    base_model: ClassVar[str | None] = None
    label: ClassVar[str] = "tuned MiniLM (22M)"
    keep: Path | None = None
    """Folder of finished training runs; a run that is there is loaded, not repeated."""
    familiar: tuple[Input, ...] = ()
    """Inputs that selection asks again and again, embedded once for each run."""
    _runs: dict[str, Classifier] = field(default_factory=dict, repr=False)

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Classifier:
        """Train on `train`, or load the run of the same data and the same `rng`."""
        labels, train, seed = labels_of(task, train), trainable(task, train), int(rng.integers(2**31))

        def load(path: Path) -> Classifier:
            return self._with_vectors(Classifier.load(path, self.encoder))

        def train_anew() -> Classifier:
            return self._with_vectors(self._train(labels, train, np.random.default_rng(seed)))

        return load_or_train(_run_name(train, seed), self._runs, self.keep, load, train_anew)

    def run_name(self, task: Task, train: Sequence[Example], rng: Generator) -> str:
        """Return the name of the file of the run that `fit` would load or train."""
        return run_file(_run_name(trainable(task, train), int(rng.integers(2**31))))

    def keeping(self, folder: Path) -> FineTuned:
        """Return the same arm with its runs in another folder and none in memory."""
        return replace(self, keep=folder, familiar=(), _runs={})

    def once(self) -> FineTuned:
        """Return the same arm with one training run that is not kept."""
        return replace(self, seeds=1, keep=None, familiar=())

    def seconds_for(self, examples: int) -> float:
        """Return the seconds that a training run is expected to take."""
        return 2.0 + examples * SECONDS_PER_100_EXAMPLES / 100

    def cache_vectors(self, texts: Sequence[Input]) -> None:
        """Embed inputs once for each run, those that are still to be loaded included."""
        self.familiar = (*self.familiar, *texts)
        for run in self._runs.values():
            run.encoder.cache_vectors(texts)

    def _with_vectors(self, fitted: Classifier) -> Classifier:
        fitted.encoder.cache_vectors(self.familiar)
        return fitted

    def _train(self, labels: tuple[str, ...], train: Sequence[Example], rng: Generator) -> Classifier:
        position = {label: i for i, label in enumerate(labels)}
        # Each label's name is one more example of it, which helps most where there are few.
        texts = [example.input for example in train] + [label_as_words(label) for label in labels]
        targets = torch.tensor([position[e.target] for e in train] + list(range(len(labels))))
        started = time.perf_counter()
        run = TrainingRun(self.encoder, self.recipe, texts, targets, len(labels))
        losses = run.train(rng)
        built = Built(len(train), time.perf_counter() - started, loss_warnings(losses))
        return Classifier(run.tuned, labels, *run.head(), built, run.frozen)


def _run_name(train: Sequence[Example], seed: int) -> str:
    return f"{fingerprint(train)[:12]}-{seed:010d}"
