"""A study's tuned encoder as ONNX, with its card; kept only if it answers dev as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunepoint.arms.catalog import load_encoder
from tunepoint.arms.parity import Parity, measured_reply, parity
from tunepoint.data.examples import fingerprint
from tunepoint.data.licences import trainable
from tunepoint.data.prepare import Prepared, prepare
from tunepoint.errors import ModelError, StudyError, nearest
from tunepoint.files.text import make_folder, write_json, write_text
from tunepoint.models.chat import Reply
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.directory import read_manifest
from tunepoint.task.task import Task
from tunepoint.trials.scorers import task_scorer
from tunepoint.trials.table import mean_interval
from tunepoint.trials.trial import Trial, read_trials

if TYPE_CHECKING:
    from tunepoint.arms.encoder.classifier import FineTuned, Probe
    from tunepoint.arms.encoder.extraction import SpanTagger

GRAPH = "model.onnx"


@dataclass(frozen=True)
class ExportedEncoder:
    """What was written."""

    folder: Path
    arm: str
    parity: Parity
    """Of the graph against the measured model, on dev."""


def export_encoder(task: Task, study: Path, folder: Path, arm: str | None = None) -> ExportedEncoder:
    """Write a tuned encoder of a study as ONNX: graph, tokenizer, card.

    Args:
        task: of the study.
        arm: its name; the best encoder on dev if None.

    Raises:
        StudyError: the folder is no study of this task, or has no tuned encoder of that name.
        ModelError: packages are missing, or the graph answers otherwise; it is not kept then.

    """
    from tunepoint.arms.encoder.onnx import served_by, write_graph

    manifest = read_manifest(study)
    seed = int(manifest["seed"])
    prepared = prepare(task, seed)
    if manifest["data_sha256"] != prepared.fingerprint or manifest["task_sha256"] != task.measured_by():
        raise StudyError(
            f"{study}: is a study of other examples, or of another task, than {task.name} is now"
        )
    chosen = _chosen(task, study, arm)
    fitted = chosen.fit(task, prepared.split.train, stream(seed, Stream.FIT))
    recorded = _recorded(study, chosen.name)
    dev = [example for example in prepared.split.dev if example.id in recorded]
    measured = [recorded[example.id] for example in dev]
    make_folder(folder)
    write_graph(fitted, folder / GRAPH)
    served = served_by(folder / GRAPH, fitted).answer([example.input for example in dev])
    scoring = task_scorer(task)
    same = parity(dev, measured, served, scoring)
    if not same.holds:
        (folder / GRAPH).unlink()
        raise ModelError(
            f"the ONNX graph of {chosen.name} does not answer as it was measured, not kept: {same}"
        )
    encoder = chosen.encoder
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    facts = _facts(task, study, manifest, prepared, chosen, fitted.built.examples)
    write_json(folder / "tunepoint.json", facts)
    write_text(folder / "README.md", card(task, facts, same))
    return ExportedEncoder(folder, chosen.name, same)


def _chosen(task: Task, study: Path, name: str | None) -> FineTuned | Probe | SpanTagger:
    """The arm of that name, or the best on dev."""
    encoder = load_encoder(task)
    if encoder is None:
        raise StudyError(
            f"{study}: the task's answers are of kind {task.answer.kind!r}, no encoder gives them"
        )
    from tunepoint.arms.encoder.classifier import FineTuned, Probe
    from tunepoint.arms.encoder.extraction import SpanTagger

    keep = study / "arms"
    every: list[FineTuned | Probe | SpanTagger] = (
        [SpanTagger(encoder, keep=keep)]
        if task.answer.kind == "json"
        else [FineTuned(encoder, keep=keep), Probe(encoder)]
    )
    dev = _by_arm(study / "dev.jsonl")
    measured = [one for one in every if one.name in dev]
    if name is not None and name not in [one.name for one in measured]:
        raise StudyError(
            f"{study}: {name!r} is no tuned encoder of it that can stand alone; "
            f"{nearest(name, [one.name for one in measured])} A hybrid needs its examples beside it"
        )
    if not measured:
        raise StudyError(f"{study}: no encoder was tuned in it")
    if name is not None:
        return next(one for one in measured if one.name == name)
    return max(measured, key=lambda one: float(np.mean([trial.score for trial in dev[one.name]])))


def _recorded(study: Path, arm: str) -> dict[str, Reply]:
    """What the run of the first seed answered to dev when it was measured."""
    trials = _by_arm(study / "dev.jsonl").get(arm, [])
    return {trial.item: measured_reply(trial) for trial in trials if trial.seed in (None, "0")}


def _by_arm(path: Path) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = {}
    for trial in read_trials(path) if path.exists() and path.stat().st_size else []:
        found.setdefault(trial.arm, []).append(trial)
    return found


def _facts(
    task: Task,
    study: Path,
    manifest: Mapping[str, Any],
    prepared: Prepared,
    arm: FineTuned | Probe | SpanTagger,
    examples: int,
) -> dict[str, Any]:
    """What the card says and tunepoint.json keeps."""
    recipe = asdict(arm.recipe) if hasattr(arm, "recipe") else {"C": arm.strength}
    parts = {"dev": study / "dev.jsonl", "sealed test": study / "trials.jsonl"}
    trials = {part: _by_arm(path).get(arm.name) for part, path in parts.items()}
    return {
        "arm": arm.name,
        "base": arm.encoder.name,
        "recipe": recipe,
        "examples": examples,
        "train_sha256": fingerprint(trainable(task, prepared.split.train)),
        "data_sha256": prepared.fingerprint,
        "task_sha256": task.measured_by(),
        "seed": manifest["seed"],
        "scores": {part: asdict(mean_interval(found)) for part, found in trials.items() if found},
    }


def card(task: Task, facts: Mapping[str, Any], same: Parity) -> str:
    """The model card: what it is, from what, how good, and how to run it."""
    scores = "\n".join(
        f"| {part} | {score['estimate']:.3f} | {score['low']:.3f} to {score['high']:.3f} |"
        for part, score in facts["scores"].items()
    )
    recipe = ", ".join(f"{name} {value}" for name, value in facts["recipe"].items())
    return f"""---
base_model: sentence-transformers/all-MiniLM-L6-v2
library_name: onnx
tags: [tunepoint]
---

# {task.name}: {facts["arm"]}

{task.instruction}

| | |
|---|---|
| base | {facts["base"]} (all-MiniLM-L6-v2) |
| licence | Apache-2.0 (the base), and what your examples allow |
| examples | {facts["examples"]} |
| train, SHA-256 | {facts["train_sha256"]} |
| data, SHA-256 | {facts["data_sha256"]} |
| task, SHA-256 | {facts["task_sha256"]} |
| recipe | {recipe} |
| seed | {facts["seed"]} |

| measured on | score ({task.score.metric}), mean of the training seeds | 95% interval |
|---|---|---|
{scores}

This graph is the run of the first seed. Against that run, on dev: {str(same).splitlines()[0]}.

{_running(task)}"""


def _running(task: Task) -> str:
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
given = {
    "input_ids": numpy.array([row.ids for row in rows]),
    "attention_mask": numpy.array([row.attention_mask for row in rows]),
}
print([labels[i] for i in session.run(["logits"], given)[0].argmax(axis=1)])
```
"""
