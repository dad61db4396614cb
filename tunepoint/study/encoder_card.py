"""The model card of an exported encoder: what it is, from what, how good, and how to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunepoint.arms.parity import Parity
from tunepoint.stats.intervals import Interval
from tunepoint.task.task import Task


@dataclass(frozen=True)
class EncoderFacts:
    """Where an exported encoder comes from; the keys of tunepoint.json."""

    arm: str
    """Name of the arm."""
    base: str
    """The encoder that was tuned."""
    recipe: Mapping[str, Any]
    """Settings of the training, as they stand in the file."""
    examples: int
    """Labeled examples that it learned from."""
    train_sha256: str
    data_sha256: str
    task_sha256: str
    seed: int
    """Of the study."""
    scores: Mapping[str, Interval]
    """Part of the data -> score with its 95% interval."""


def encoder_card(task: Task, facts: EncoderFacts, parity: Parity) -> str:
    """Return the model card, as Markdown with a header that model hubs read."""
    scores = "\n".join(
        f"| {part} | {score.estimate:.3f} | {score.low:.3f} to {score.high:.3f} |"
        for part, score in facts.scores.items()
    )
    recipe = ", ".join(f"{name} {value}" for name, value in facts.recipe.items())
    return f"""---
base_model: sentence-transformers/all-MiniLM-L6-v2
library_name: onnx
tags: [tunepoint]
---

# {task.name}: {facts.arm}

{task.instruction}

| | |
|---|---|
| base | {facts.base} (all-MiniLM-L6-v2) |
| license | Apache-2.0 (the base), and what your examples allow |
| examples | {facts.examples} |
| train, SHA-256 | {facts.train_sha256} |
| data, SHA-256 | {facts.data_sha256} |
| task, SHA-256 | {facts.task_sha256} |
| recipe | {recipe} |
| seed | {facts.seed} |

| measured on | score ({task.score.metric}), mean of the training seeds | 95% interval |
|---|---|---|
{scores}

This graph is the run of the first seed. Against that run, on dev: {str(parity).splitlines()[0]}.

{_how_to_run(task)}"""


def _how_to_run(task: Task) -> str:
    """How to run the graph."""
    if task.answer.kind == "json":
        return (
            "The graph gives the tags of tokens; `tunepoint.arms.encoder.onnx.served_by` turns them "
            "into JSON, and its fields are in the metadata of the file.\n"
        )
    return """```python
import json, numpy, onnxruntime, tokenizers

session = onnxruntime.InferenceSession("model.onnx")
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(256)
tokenizer.enable_padding()
rows = tokenizer.encode_batch(["your input"])
inputs = {
    "input_ids": numpy.array([row.ids for row in rows]),
    "attention_mask": numpy.array([row.attention_mask for row in rows]),
}
print([labels[i] for i in session.run(["logits"], inputs)[0].argmax(axis=1)])
```
"""
