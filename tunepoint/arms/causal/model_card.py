"""The facts of a tuned model, as its folder keeps them and as its card tells them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.templates import PromptLength
from tunepoint.stats.intervals import Interval
from tunepoint.task.task import Task

MODEL_FILE = "tunepoint.json"
"""In the folder of a tuned model: its facts."""


@dataclass(frozen=True)
class ModelFacts:
    """What a tuned model is, and how well it answers."""

    base: str
    recipe: CausalRecipe
    examples: int
    train_sha256: str
    data_sha256: str
    task_sha256: str
    seed: int
    answer_tokens: int
    """Tokens that an answer may have."""
    seconds: float
    """Training time."""
    dev_scores: Mapping[PromptLength, Interval]
    """By prompt length."""
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the facts under the keys of the file."""
        return {
            "base": self.base,
            "recipe": self.recipe.document(),
            "examples": self.examples,
            "train_sha256": self.train_sha256,
            "task_sha256": self.task_sha256,
            "seed": self.seed,
            "answer_tokens": self.answer_tokens,
            "seconds": self.seconds,
            "dev_scores": {length: asdict(score) for length, score in self.dev_scores.items()},
            "warnings": list(self.warnings),
            "data_sha256": self.data_sha256,
        }


def model_card(task: Task, facts: ModelFacts) -> str:
    """Return the README of a tuned model: what it is, what it was made from, and how well it answers."""
    settings = facts.recipe.document().items()
    recipe = ", ".join(f"{name} {value}" for name, value in settings if value not in (None, [], ()))
    scores = "\n".join(
        f"| {length} | {score.estimate:.3f} | {score.low:.3f} to {score.high:.3f} |"
        for length, score in facts.dev_scores.items()
    )
    warnings = "".join(f"* {warning}\n" for warning in facts.warnings) or "* none\n"
    return f"""---
base_model: {json.dumps(facts.base)}
library_name: {"transformers" if facts.recipe.method == "full" else "peft"}
tags: [tunepoint]
---

# {task.name}: {facts.base}, fine-tuned

{task.instruction}

| | |
|---|---|
| base | {facts.base} |
| license | that of the base, and what your examples allow |
| examples | {facts.examples} |
| training set, SHA-256 | {facts.train_sha256} |
| data, SHA-256 | {facts.data_sha256} |
| task, SHA-256 | {facts.task_sha256} |
| recipe | {recipe} |
| seed | {facts.seed} |
| training | {facts.seconds:.0f} s |

| prompt | score on the validation set ({task.score.metric}) | 95% interval |
|---|---|---|
{scores}

Training stopped by the same validation set, so these scores are a little too high. A study measures on a
sealed test set.

Warnings:

{warnings}"""
