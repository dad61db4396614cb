"""Public datasets as tasks for the benchmarks: banking77, CLINC150, SNIPS, GSM8K, as published."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from extraction import snips

from tunepoint import Example, Task

EXAMPLES_PER_LABEL = 20
EXTRACTION_EXAMPLES, NUMBER_EXAMPLES = 500, 200


@dataclass(frozen=True)
class PublicTask:
    """A task with examples to learn from and test items."""

    task: Task
    train: list[Example]
    test: list[Example]


def banking77(folder: Path, labels: int, items: int) -> PublicTask:
    """The first labels by name, 20 training examples of each; test items drawn with a fixed seed."""
    train, test = (rows(folder / "banking77" / f"{part}.csv") for part in ("train", "test"))
    return _labels("banking77", "Say which intent the customer's message has.", train, test, labels, items)


def clinc150(folder: Path, labels: int, items: int) -> PublicTask:
    """The same of CLINC150, without the inputs that are out of its scope."""
    content = json.loads((folder / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    train, test = ([(text, label) for text, label in content[part]] for part in ("train", "test"))
    return _labels("clinc150", "Say what the user wants of the assistant.", train, test, labels, items)


def snips_json(folder: Path, labels: int, items: int) -> PublicTask:
    """Intent and slots of SNIPS as one JSON object."""
    train, test = (
        [example for example, _ in snips(folder / "snips", part)] for part in ("train", "validate")
    )
    slots = sorted({slot for example in train for slot in json.loads(example.target)["slots"]})
    values = {"type": "array", "items": {"type": "string"}}
    schema = {
        "type": "object",
        "properties": {
            "intent": {"type": "string", "enum": sorted({json.loads(e.target)["intent"] for e in train})},
            "slots": {
                "type": "object",
                "properties": dict.fromkeys(slots, values),
                "additionalProperties": False,
            },
        },
        "required": ["intent", "slots"],
        "additionalProperties": False,
    }
    task = Task.parse(
        {
            "name": "snips",
            "instruction": "Find the intent of the query, and its slots: the words that fill them.",
            "answer": {"kind": "json", "json_schema": schema},
            "score": {"metric": "json_fields"},
        }
    )
    return PublicTask(task, _some(train, EXTRACTION_EXAMPLES), _some(test, items))


def gsm8k(folder: Path, labels: int, items: int) -> PublicTask:
    """The first problems of GSM8K, whose answers are numbers."""
    train, test = (
        [
            Example(
                f"{name}-{i}", row["question"], row["answer"].rpartition("####")[2].strip().replace(",", "")
            )
            for i, row in enumerate(map(json.loads, (folder / "gsm8k" / name).read_text().splitlines()))
        ]
        for name in ("train_first2000.jsonl", "test.jsonl")
    )
    task = Task.parse(
        {
            "name": "gsm8k",
            "instruction": "Solve the problem.",
            "answer": {"kind": "number"},
            "score": {"metric": "numeric"},
        }
    )
    return PublicTask(task, train[:NUMBER_EXAMPLES], test[:items])


PUBLIC_TASKS: Mapping[str, Callable[[Path, int, int], PublicTask]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "snips": snips_json,
    "gsm8k": gsm8k,
}
"""Name -> reads it from (the folder of all datasets, labels, test items)."""


def rows(path: Path) -> list[tuple[str, str]]:
    """The text and the label of each row of banking77."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def _labels(
    name: str,
    instruction: str,
    train: list[tuple[str, str]],
    test: list[tuple[str, str]],
    labels: int,
    items: int,
) -> PublicTask:
    kept = sorted({label for _, label in train})[:labels]
    chosen = [
        Example(f"{label}-{i}", text, label)
        for label in kept
        for i, (text, _) in enumerate([row for row in train if row[1] == label][:EXAMPLES_PER_LABEL])
    ]
    known = [Example(f"test-{i}", text, label) for i, (text, label) in enumerate(test) if label in kept]
    return PublicTask(Task.parse({"name": name, "instruction": instruction}), chosen, _some(known, items))


def _some(examples: list[Example], count: int) -> list[Example]:
    """Examples drawn with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(examples))[:count]
    return [examples[i] for i in order.tolist()]
