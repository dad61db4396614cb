"""An encoder that extracts: fields that stand in the input, and choices, as a JSON object."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator
from safetensors.torch import load_file, save_file

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.encoder.fields import Fields
from tunepoint.arms.encoder.tagging import Tagged, Tagger, TagRecipe, Tags, Words, tag, train
from tunepoint.arms.encoder.training import loss_warnings
from tunepoint.data.examples import Example, fingerprint
from tunepoint.data.licences import trainable
from tunepoint.errors import ModelError
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.encoder import Encoder
from tunepoint.models.parsing import schema_fault
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

SECONDS_AN_EXAMPLE = 0.008
"""Of training, an epoch, on two cores: what the plan of a study expects."""


@dataclass
class Extractor(LocalFittedArm):
    """A trained tagger."""

    tagger: Tags
    fields: Fields
    built: Built
    schema: dict[str, Any] | None = None

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """A JSON object of each input; one that departs from the task's schema says where."""
        return [self._reply(text, one) for text, one in zip(inputs, self.tagged(inputs), strict=True)]

    def tagged(self, inputs: Sequence[Input]) -> list[Tagged]:
        """The places of the fields in each input."""
        return tag(self.tagger, inputs)

    def _reply(self, text: str, found: Tagged) -> Reply:
        said = self.fields.answer(text, found.spans, found.choices)
        fault = schema_fault(self.schema, json.loads(said)) if self.schema else None
        usage = Usage(self.tagger.encoder.name)
        if fault:
            return Reply(said, None, usage, format_ok=False, error=fault)
        return Reply(said, said, usage, confidence=found.confidence)

    def save(self, path: Path) -> None:
        """Write weights and fields to one safetensors file, whole or not at all."""
        assert isinstance(self.tagger, Tagger), "an exported graph is a file already"
        facts = {"fields": self.fields.document(), "built": vars(self.built)}
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        tensors = {name: value.contiguous() for name, value in self.tagger.state_dict().items()}
        save_file(tensors, unfinished, metadata={"tunepoint": json.dumps(facts)})
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path, encoder: Encoder, schema: dict[str, Any] | None = None) -> Extractor:
        """Read what `save` wrote, on top of the encoder it was tuned from.

        Raises:
            ModelError: the file is not one of ours.

        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                facts: dict[str, Any] = json.loads((file.metadata() or {})["tunepoint"])
            fields = Fields.parse(facts["fields"])
            built = Built(**{**facts["built"], "warnings": tuple(facts["built"]["warnings"])})
            tagger = _tagger(encoder, fields, TagRecipe())
            tagger.load_state_dict(load_file(path))
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            said = str(error).split("\n")[0][:200]
            raise ModelError(
                f"{path}: damaged, or no extractor of ours ({type(error).__name__}: {said}); delete it "
                "and run again"
            ) from None
        tagger.eval()
        return cls(tagger, fields, built, schema)


@dataclass
class SpanTagger:
    """An arm: all layers of the encoder, trained to find fields in the input."""

    encoder: Encoder
    recipe: TagRecipe = field(default_factory=TagRecipe)
    fields: Fields | None = None
    """What is looked for; read from the examples of each fit if None."""
    fewest: int = 10
    seeds: int = 3
    name: str = "span encoder"
    family: str = "span encoder"
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = False
    keep: Path | None = None
    """Folder of finished training runs; a run that is there is loaded, not repeated."""
    _runs: dict[str, Extractor] = field(default_factory=dict, repr=False)

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Extractor:
        """Train on `train`, or load the run of the same data and the same `rng`.

        Raises:
            DataError: the targets have no field that can be read out of an input.

        """
        train, seed = trainable(task, train), int(rng.integers(2**31))
        fields = self.fields or Fields.read(train)
        run = f"spans-{fingerprint(train)[:12]}-{self._digest(fields)}-{seed:010d}"
        if run not in self._runs:
            self._runs[run] = self._load_or_train(task, fields, train, run, seed)
        return self._runs[run]

    def once(self) -> SpanTagger:
        """The same arm with one training run that is not kept."""
        return replace(self, seeds=1, keep=None)

    def seconds_for(self, examples: int) -> float:
        """What a training run is expected to take."""
        return 1.0 + SECONDS_AN_EXAMPLE * examples * self.recipe.epochs_for(examples)

    def _digest(self, fields: Fields) -> str:
        """Tells settings apart that give other weights."""
        content = json.dumps([asdict(self.recipe), fields.document()], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def _load_or_train(
        self, task: Task, fields: Fields, train: Sequence[Example], run: str, seed: int
    ) -> Extractor:
        path = self.keep / f"{run}.safetensors" if self.keep else None
        if path is not None and path.exists():
            return Extractor.load(path, self.encoder, task.answer.json_schema)
        fitted = self._train(task, fields, train, np.random.default_rng(seed))
        if path is not None:
            fitted.save(path)
        return fitted

    def _train(self, task: Task, fields: Fields, examples: Sequence[Example], rng: Generator) -> Extractor:
        started = time.perf_counter()
        marked = [fields.mark(example) for example in examples]
        words = Words.of(self.encoder, [one.text for one in marked])
        tagger = _tagger(self.encoder, fields, self.recipe, int(rng.integers(2**31)))
        losses = train(tagger, words, marked, self.recipe, rng)
        said = [*fields.left_out, *loss_warnings(losses)]
        missing = fields.missing(marked, examples)
        if missing:
            said.append(f"{missing} values do not stand in their inputs and were not learnt from")
        built = Built(len(examples), time.perf_counter() - started, tuple(said))
        return Extractor(tagger, fields, built, task.answer.json_schema)


def _tagger(encoder: Encoder, fields: Fields, recipe: TagRecipe, seed: int = 0) -> Tagger:
    counts = [len(one.choices) for one in fields.choices]
    return Tagger(encoder, 2 * len(fields.spans) + 1, counts, recipe.dropout, seed)
