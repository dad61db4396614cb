"""An encoder with a head: a probe on frozen vectors, and full fine-tuning."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.encoder.training import Recipe, TrainingRun, loss_warnings
from tunepoint.data.examples import Example, fingerprint, labels_of
from tunepoint.data.licences import trainable
from tunepoint.errors import ModelError
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.encoder import Encoder, Vectors, readable, softmax
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


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
        """The most probable label of each input."""
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
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        except SafetensorError as error:
            raise ModelError(f"{path}: damaged ({error}); delete it and run again") from None
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
    remote: ClassVar[bool] = False
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Classifier:
        """Fit the head; the solution is unique, so `rng` is not needed."""
        from sklearn.linear_model import LogisticRegression

        labels, train = labels_of(task, train), trainable(task, train)
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
    recipe: Recipe = field(default_factory=Recipe)
    fewest: int = 2
    seeds: int = 3
    name: str = "fine-tuned encoder"
    family: str = "fine-tuned encoder"
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = False
    keep: Path | None = None
    """Folder of finished training runs; a run that is there is loaded, not repeated."""
    familiar: tuple[Input, ...] = ()
    """Inputs that selection asks again and again, embedded once for each run."""
    _runs: dict[str, Classifier] = field(default_factory=dict, repr=False)

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Classifier:
        """Train on `train`, or load the run of the same data and the same `rng`."""
        labels, train, seed = labels_of(task, train), trainable(task, train), int(rng.integers(2**31))
        run = f"{fingerprint(train)[:12]}-{seed:010d}"
        if run not in self._runs:
            self._runs[run] = self._load_or_train(labels, train, run, seed)
            self._runs[run].encoder.remember(self.familiar)
        return self._runs[run]

    def once(self) -> FineTuned:
        """The same arm with one training run that is not kept."""
        return replace(self, seeds=1, keep=None, familiar=())

    def seconds_for(self, examples: int) -> float:
        """What a training run is expected to take."""
        return 2.0 + examples * 4 / 100

    def remember(self, texts: Sequence[Input]) -> None:
        """Embed inputs once for every run, those that are still to be loaded included."""
        self.familiar = (*self.familiar, *texts)
        for run in self._runs.values():
            run.encoder.remember(texts)

    def _load_or_train(
        self, labels: tuple[str, ...], train: Sequence[Example], run: str, seed: int
    ) -> Classifier:
        path = self.keep / f"{run}.safetensors" if self.keep else None
        if path is not None and path.exists():
            return Classifier.load(path, self.encoder)
        fitted = self._train(labels, train, np.random.default_rng(seed))
        if path is not None:
            fitted.save(path)
        return fitted

    def _train(self, labels: tuple[str, ...], train: Sequence[Example], rng: Generator) -> Classifier:
        position = {label: i for i, label in enumerate(labels)}
        texts = [example.input for example in train] + [readable(label) for label in labels]
        targets = torch.tensor([position[e.target] for e in train] + list(range(len(labels))))
        started = time.perf_counter()
        run = TrainingRun(self.encoder, self.recipe, texts, targets, len(labels))
        losses = run.train(rng)
        built = Built(len(train), time.perf_counter() - started, loss_warnings(losses))
        return Classifier(run.tuned, labels, *run.head(), built, self.recipe.frozen)
