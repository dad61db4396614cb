"""Checkpoints of one training run race on dev: by what they answer, not by their loss."""

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
from tunepoint.stats.racing import Race, looks
from tunepoint.trials.scorers import Scoring


@dataclass(frozen=True)
class CheckpointRace:
    """Dev items on which checkpoints meet, and how their answers are scored."""

    examples: tuple[Example, ...]
    """In an order that says nothing about them, groups side by side."""
    prompts: tuple[Prompt, ...]
    """What each is asked with: the prompts that training mixes."""
    scoring: Scoring

    def __call__(self, model: Any, tokenizer: Any, checkpoints: Sequence[Path]) -> Path:
        """The checkpoint that answers best; the hopeless are stopped, and the last one wins ties."""
        groups = {example.group or f"item {example.id}": None for example in self.examples}
        order = {name: i for i, name in enumerate(groups)}
        codes = np.array([order[e.group or f"item {e.id}"] for e in self.examples], dtype=np.intp)
        course = Race([path.name for path in checkpoints], int(np.bincount(codes).max()))
        named = {path.name: path for path in checkpoints}
        seen: dict[str, Floats] = {name: np.empty(0) for name in named}
        for size in looks(len(self.examples)):
            end = int(np.flatnonzero(codes == codes[size - 1])[-1]) + 1  # whole groups only
            for name in course.running:
                start = len(seen[name])
                more = self._answers(put_adapter(model, named[name], name), tokenizer, start, end)
                seen[name] = np.concatenate([seen[name], more])
            course.look({name: seen[name] for name in course.running}, codes[:end])
            if len(course.running) == 1:
                break
        return named[max(reversed(course.running), key=lambda name: float(seen[name].mean()))]

    def _answers(self, model: Any, tokenizer: Any, start: int, end: int) -> Floats:
        """(end - start,) scores of a checkpoint; an answer that cannot be read is worth 0."""
        asked = list(zip(self.prompts, self.examples, strict=True))[start:end]
        if not asked:
            return np.empty(0)
        answering = TextModel(LocalEndpoint.of("checkpoint", model, tokenizer), remote=False)
        replies = answering.answer([replace(prompt, input=example.input) for prompt, example in asked])
        graded = self.scoring([reply.answer or "" for reply in replies], [example for _, example in asked])
        return np.array(
            [
                (one.score or 0.0) * (reply.answer is not None)
                for one, reply in zip(graded, replies, strict=True)
            ]
        )


def by_group(examples: Sequence[Example], rng: np.random.Generator) -> tuple[Example, ...]:
    """Examples in random order, those of a group side by side."""
    shuffled = [examples[i] for i in rng.permutation(len(examples)).tolist()]
    places: dict[str, int] = {}
    for example in shuffled:
        places.setdefault(example.group or f"item {example.id}", len(places))
    return tuple(sorted(shuffled, key=lambda example: places[example.group or f"item {example.id}"]))
