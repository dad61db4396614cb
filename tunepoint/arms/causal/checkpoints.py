"""The last checkpoints of a training run race on the validation set: by their answers, not by their loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunepoint.arms.causal.loading import put_adapter
from tunepoint.data.examples import Example
from tunepoint.models.chat import Prompt
from tunepoint.models.endpoints import TextModel
from tunepoint.models.local import LocalEndpoint
from tunepoint.stats.arrays import Floats
from tunepoint.stats.racing import Race, look_sizes
from tunepoint.trials.grading import BatchScorer, score_replies


@dataclass(frozen=True)
class CheckpointRace:
    """The validation examples of a race, and how their answers are scored."""

    examples: tuple[Example, ...]
    """In random order, those of a group side by side."""
    prompts: tuple[Prompt, ...]
    """The prompt of each example; together they have all the lengths that training mixes."""
    scoring: BatchScorer

    def __call__(self, model: Any, tokenizer: Any, checkpoints: Sequence[Path]) -> Path:
        """Return the checkpoint that answers best; of several, the last one.

        Checkpoints that can hardly win any more stop early.
        """
        codes = self._group_codes()
        race = Race([path.name for path in checkpoints], int(np.bincount(codes).max()))
        paths = {path.name: path for path in checkpoints}
        scores: dict[str, Floats] = {name: np.empty(0) for name in paths}
        for size in look_sizes(len(self.examples)):
            end = int(np.flatnonzero(codes == codes[size - 1])[-1]) + 1  # a group is never split
            for name in race.running:
                checkpoint = put_adapter(model, paths[name], name)
                answers = self._answers(checkpoint, tokenizer, len(scores[name]), end)
                scores[name] = np.concatenate([scores[name], answers])
            race.eliminate({name: scores[name] for name in race.running}, codes[:end])
            if len(race.running) == 1:
                break
        return paths[max(reversed(race.running), key=lambda name: float(scores[name].mean()))]

    def _group_codes(self) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Return (n,) numbers of the examples' groups, in the order in which groups appear."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(_group(e), len(numbers)) for e in self.examples], dtype=np.intp)

    def _answers(self, model: Any, tokenizer: Any, start: int, end: int) -> Floats:
        """Return (end - start,) scores of a checkpoint; an answer that cannot be read scores 0."""
        examples = self.examples[start:end]
        if not examples:
            return np.empty(0)
        chat = TextModel(LocalEndpoint("checkpoint", model, tokenizer), remote=False)
        prompts = zip(self.prompts[start:end], examples, strict=True)
        replies = chat.answer([replace(prompt, input=example.input) for prompt, example in prompts])
        return score_replies(self.scoring, replies, examples)


def by_group(examples: Sequence[Example], rng: np.random.Generator) -> tuple[Example, ...]:
    """Return examples in random order, those of a group side by side."""
    shuffled = [examples[i] for i in rng.permutation(len(examples)).tolist()]
    places: dict[str, int] = {}
    for example in shuffled:
        places.setdefault(_group(example), len(places))
    return tuple(sorted(shuffled, key=lambda example: places[_group(example)]))


def _group(example: Example) -> str:
    """Return the group of an example; one without is a group of its own."""
    return example.group or f"item {example.id}"
