"""An arm that extracts with an encoder: fields that stand in the input, and choices, as a JSON object."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.encoder.decoding import TaggedInput, tag
from tunepoint.arms.encoder.fields import Fields
from tunepoint.arms.encoder.runs import load_or_train, read_run, run_file, write_run
from tunepoint.arms.encoder.tagging import Tagger, TagRecipe, TagScorer, train
from tunepoint.arms.encoder.training import loss_warnings
from tunepoint.arms.encoder.windows import Words
from tunepoint.data.examples import Example, fingerprint
from tunepoint.data.licences import trainable
from tunepoint.errors import ModelError
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.encoder import Encoder
from tunepoint.models.parsing import schema_fault
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

SECONDS_PER_EXAMPLE = 0.008
"""Training time of one example and epoch on two cores, for the quote of a study."""
BUILT_FILE_KEYS = {"teacher_usd": "asked_usd"}
"""Attributes of `Built` that a run's file keeps under another key, which stays."""


@dataclass
class Extractor(LocalFittedArm):
    """A trained tagger."""

    tagger: TagScorer
    fields: Fields
    built: Built
    schema: dict[str, Any] | None = None

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return a JSON object for each input; one that departs from the task's schema says where."""
        return [self._reply(text, tagged) for text, tagged in zip(inputs, self.tagged(inputs), strict=True)]

    def tagged(self, inputs: Sequence[Input]) -> list[TaggedInput]:
        """Return the places of the fields in each input."""
        return tag(self.tagger, inputs)

    def _reply(self, text: str, tagged: TaggedInput) -> Reply:
        answer = self.fields.answer(text, tagged.spans, tagged.choices)
        fault = schema_fault(self.schema, json.loads(answer)) if self.schema else None
        usage = Usage(self.tagger.encoder.name)
        if fault:
            return Reply(answer, None, usage, format_ok=False, error=fault)
        return Reply(answer, answer, usage, confidence=tagged.confidence)

    def save(self, path: Path) -> None:
        """Write weights and fields to one safetensors file, whole or not at all."""
        assert isinstance(self.tagger, Tagger), "an exported graph is a file already"
        facts = {"fields": self.fields.document(), "built": _built_document(self.built)}
        write_run(path, self.tagger.state_dict(), facts)

    @classmethod
    def load(cls, path: Path, encoder: Encoder, schema: dict[str, Any] | None = None) -> Extractor:
        """Read what `save` wrote, on top of the encoder it was tuned from.

        Raises:
            ModelError: the file is damaged, or no extractor.

        """
        tensors, facts = read_run(path, "an extractor")
        try:
            fields = Fields.parse(facts["fields"])
            built = _parse_built(facts["built"])
            tagger = _tagger(encoder, fields, TagRecipe())
            tagger.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            message = str(error).split("\n")[0][:200]
            raise ModelError(
                f"{path}: damaged, or not an extractor saved by tunepoint ({type(error).__name__}: "
                f"{message}); delete it and run again"
            ) from None
        tagger.eval()
        return cls(tagger, fields, built, schema)


@dataclass
class SpanTagger:
    """An arm: all layers of the encoder, trained to find fields in the input."""

    encoder: Encoder
    recipe: TagRecipe = field(default_factory=TagRecipe)
    fields: Fields | None = None
    """The fields to look for; detected in the examples of each fit if None."""
    min_examples: int = 10
    seeds: int = 3
    name: str = "span encoder"
    family: str = "span encoder"
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = False
    base_model: ClassVar[str | None] = None
    label: ClassVar[str] = "tuned MiniLM, finds fields"
    keep: Path | None = None
    """Folder of finished training runs; a run that is there is loaded, not repeated."""
    _runs: dict[str, Extractor] = field(default_factory=dict, repr=False)

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Extractor:
        """Train on `train`, or load the run of the same data and the same `rng`.

        Raises:
            DataError: the targets have no field that can be read out of an input.

        """
        train, fields, seed = self._drawn(task, train, rng)
        schema = task.answer.json_schema

        def load(path: Path) -> Extractor:
            return Extractor.load(path, self.encoder, schema)

        def train_anew() -> Extractor:
            return self._train(schema, fields, train, np.random.default_rng(seed))

        return load_or_train(self._run_name(train, fields, seed), self._runs, self.keep, load, train_anew)

    def run_name(self, task: Task, train: Sequence[Example], rng: Generator) -> str:
        """Return the name of the file of the run that `fit` would load or train."""
        return run_file(self._run_name(*self._drawn(task, train, rng)))

    def keeping(self, folder: Path) -> SpanTagger:
        """Return the same arm with its runs in another folder and none in memory."""
        return replace(self, keep=folder, _runs={})

    def once(self) -> SpanTagger:
        """Return the same arm with one training run that is not kept."""
        return replace(self, seeds=1, keep=None)

    def seconds_for(self, examples: int) -> float:
        """Return the seconds that a training run is expected to take."""
        return 1.0 + SECONDS_PER_EXAMPLE * examples * self.recipe.epochs_for(examples)

    def _drawn(
        self, task: Task, train: Sequence[Example], rng: Generator
    ) -> tuple[Sequence[Example], Fields, int]:
        """Return what a run is trained on: the examples, their fields, and its seed."""
        train, seed = trainable(task, train), int(rng.integers(2**31))
        return train, self.fields or Fields.read(train), seed

    def _run_name(self, train: Sequence[Example], fields: Fields, seed: int) -> str:
        return f"spans-{fingerprint(train)[:12]}-{self._digest(fields)}-{seed:010d}"

    def _digest(self, fields: Fields) -> str:
        """Return eight hex digits that tell apart settings with other weights."""
        content = json.dumps([asdict(self.recipe), fields.document()], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def _train(
        self, schema: dict[str, Any] | None, fields: Fields, examples: Sequence[Example], rng: Generator
    ) -> Extractor:
        started = time.perf_counter()
        marked = [fields.mark(example) for example in examples]
        words = Words.of(self.encoder, [example.text for example in marked])
        tagger = _tagger(self.encoder, fields, self.recipe, int(rng.integers(2**31)))
        losses = train(tagger, words, marked, self.recipe, rng)
        warnings = [*fields.left_out, *loss_warnings(losses)]
        missing = fields.missing(marked, examples)
        if missing:
            warnings.append(f"{missing} values do not stand in their inputs and were not trained on")
        built = Built(len(examples), time.perf_counter() - started, tuple(warnings))
        return Extractor(tagger, fields, built, schema)


def _tagger(encoder: Encoder, fields: Fields, recipe: TagRecipe, seed: int = 0) -> Tagger:
    value_counts = [len(field.choices) for field in fields.choices]
    return Tagger(encoder, 2 * len(fields.spans) + 1, value_counts, recipe.dropout, seed)


def _built_document(built: Built) -> dict[str, Any]:
    return {BUILT_FILE_KEYS.get(name, name): value for name, value in asdict(built).items()}


def _parse_built(content: Mapping[str, Any]) -> Built:
    attributes = {key: name for name, key in BUILT_FILE_KEYS.items()}
    facts = {attributes.get(key, key): value for key, value in content.items()}
    return Built(**{**facts, "warnings": tuple(facts["warnings"])})
