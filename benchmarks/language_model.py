"""A language model of this machine on banking77: ways of prompting it, the controls, and its processor time.

DATA is a folder with banking77's train.csv and test.csv (columns text and category). The first `--labels`
labels by name are kept, with 20 training examples each. Every way answers the same `--items` test messages.
`overhead` is the processor time of an answer here over that of llama.cpp asked directly, in the same run,
with the same prompts.

    python benchmarks/language_model.py DATA [--model embedded:qwen2.5-coder-0.5b] [--labels 8] [--items 60]
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tunepoint import Example, Task
from tunepoint.arms.baselines.neighbor_vote import NeighborVote
from tunepoint.arms.baselines.word_counts import WordCountsBaseline
from tunepoint.arms.contract import Arm
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.styles import PromptStyle
from tunepoint.models.chat import Reply
from tunepoint.models.encoder import Encoder
from tunepoint.models.endpoints import TextModel, request_of
from tunepoint.models.gguf.endpoint import GgufEndpoint
from tunepoint.models.gguf.opening import open_gguf

EXAMPLES_PER_LABEL = 20
TIMED_PROMPTS = 8
STYLES = (
    PromptStyle("zero-shot"),
    PromptStyle("few-shot", system=True, shots=8),
    PromptStyle("few-shot", system=True, shots=24),
    PromptStyle("retrieved few-shot", system=True, retrieved=6),
    PromptStyle("retrieved few-shot", system=True, retrieved=24),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="embedded:qwen2.5-coder-0.5b")
    parser.add_argument("--labels", type=int, default=8)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--forms", nargs="+", default=["plain"], choices=["plain", "json"])
    options = parser.parse_args()
    if not (options.data / "train.csv").exists():
        print(f"skipped: no train.csv in {options.data}")
        return
    train, test = examples(options.data, options.labels, options.items)
    task = Task.parse({"name": "banking77", "instruction": "Say which intent the customer's message has."})
    encoder, endpoint = Encoder.load(), open_gguf(options.model, Path())
    model = TextModel(endpoint, remote=False)
    arms: list[Arm] = [WordCountsBaseline(), NeighborVote(encoder.embed, 6), NeighborVote(encoder.embed, 24)]
    arms += [
        ChatPrompt(model, style, "plain", encoder.embed, form=form)
        for style in STYLES
        for form in options.forms
    ]
    rows = [measured(arm, task, train, test) for arm in arms]
    few = next(arm for arm in arms if isinstance(arm, ChatPrompt) and arm.style.shots == 24)
    overhead = overhead_of(few, task, train, test, endpoint)
    print(f"{options.model}, {options.labels} labels, {len(test)} items")
    for row in rows:
        print(
            f"{row['arm']:60} {row['accuracy']:.3f} ±{row['error']:.3f}  readable {row['readable']:.2f}  "
            f"{row['core_seconds']:.2f} core s"
        )
    print(f"overhead {overhead:.2f}")
    print(json.dumps({"model": options.model, "labels": options.labels, "rows": rows, "overhead": overhead}))
    endpoint.close()


def examples(folder: Path, labels: int, items: int) -> tuple[list[Example], list[Example]]:
    """The first labels by name: 20 training examples of each, and test items drawn with a fixed seed."""
    train, test = (rows(folder / f"{part}.csv") for part in ("train", "test"))
    kept = sorted({label for _, label in train})[:labels]
    chosen = [
        Example(f"{label}-{i}", text, label)
        for label in kept
        for i, (text, _) in enumerate([row for row in train if row[1] == label][:EXAMPLES_PER_LABEL])
    ]
    known = [Example(f"test-{i}", text, label) for i, (text, label) in enumerate(test) if label in kept]
    order = np.random.default_rng(0).permutation(len(known))[:items]
    return chosen, [known[i] for i in order.tolist()]


def rows(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def measured(arm: Arm, task: Task, train: Sequence[Example], test: Sequence[Example]) -> dict[str, object]:
    """Accuracy with its standard error, share of readable answers, core seconds of an answer."""
    fitted = arm.fit(task, train, np.random.default_rng(0))
    started = time.process_time()
    replies: list[Reply] = fitted.answer([example.input for example in test])
    seconds = (time.process_time() - started) / len(test)
    right = np.array([reply.answer == example.target for reply, example in zip(replies, test, strict=True)])
    return {
        "arm": arm.name,
        "accuracy": float(right.mean()),
        "error": float(right.std() / np.sqrt(len(right))),
        "readable": float(np.mean([reply.format_ok for reply in replies])),
        "core_seconds": seconds,
    }


def overhead_of(
    arm: ChatPrompt, task: Task, train: Sequence[Example], test: Sequence[Example], endpoint: GgufEndpoint
) -> float:
    """Processor time of some answers through the arm, over that of the same bodies sent to llama.cpp."""
    fitted = arm.fit(task, train, np.random.default_rng(0))
    inputs = [example.input for example in test[:TIMED_PROMPTS]]
    bodies = [endpoint._body(request_of(prompt)) for prompt in fitted.prompts(inputs)]
    times = []
    for answer in (lambda: fitted.answer(inputs), lambda: [directly(endpoint, body) for body in bodies]):
        answer()  # the first answers compute what all of them share
        started = time.process_time()
        answer()
        times.append(time.process_time() - started)
    return times[0] / times[1]


def directly(endpoint: GgufEndpoint, body: dict[str, object]) -> None:
    server = endpoint._idle.get()
    server.handle_chat_completions(body)
    endpoint._idle.put(server)


if __name__ == "__main__":
    main()
