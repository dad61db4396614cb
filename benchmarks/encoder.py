"""Fine-tuning the embedded encoder on banking77, beside the plain transformers Trainer.

Both train the same examples for the same number of epochs, one after the other, once for each
seed; the Trainer has its defaults (fp32, every layer, batches of 8). DATA is the folder with
banking77's train.csv and test.csv (columns text and category) as its authors publish them,
../shared/data/banking77 unless given; where it is missing the benchmark says so and skips.

    python benchmarks/encoder.py [DATA] [--seeds 3] [--per-label 5 10 20]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tunepoint import Example, Task
from tunepoint.arms.encoder.classifier import FineTuned, Probe
from tunepoint.arms.encoder.training import Recipe
from tunepoint.models.encoder import Encoder
from tunepoint.models.encoder_weights import find_weights

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"


def read(path: Path) -> list[Example]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [Example(f"{path.name}:{i}", row["text"], row["category"]) for i, row in enumerate(rows)]


def subset(train: list[Example], per_label: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Example]] = {}
    for example in train:
        by_label.setdefault(example.target, []).append(example)
    return [members[i] for members in by_label.values() for i in rng.permutation(len(members))[:per_label]]


def accuracy(fitted: Any, test: list[Example]) -> float:
    replies = fitted.answer([example.input for example in test])
    return float(np.mean([r.answer == e.target for r, e in zip(replies, test, strict=True)]))


def plain_trainer(train: list[Example], test: list[Example], epochs: int) -> tuple[float, float]:
    """Train with transformers' Trainer at its defaults; return examples/s and accuracy."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    labels = sorted({example.target for example in train})
    weights = str(find_weights())
    tokenizer = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=len(labels))
    rows = [{**tokenizer(e.input, truncation=True), "label": labels.index(e.target)} for e in train]
    test_rows = [{**tokenizer(e.input, truncation=True), "label": labels.index(e.target)} for e in test]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        predicted = trainer.predict(test_rows).predictions.argmax(axis=1)
    right = [labels[i] == e.target for i, e in zip(predicted.tolist(), test, strict=True)]
    return epochs * len(train) / seconds, float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?", default=DATA, help="banking77's train.csv and test.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-label", type=int, nargs="+", default=[5, 10, 20])
    options = parser.parse_args()
    if not (options.data / "train.csv").exists():
        print(f"skipped: no train.csv in {options.data}; banking77 is published by PolyAI")
        print(json.dumps({"benchmark": "encoder", "skipped": True}))
        return
    train, test = read(options.data / "train.csv"), read(options.data / "test.csv")
    labels = {example.target: "" for example in sorted(train, key=lambda e: e.target)}
    task = Task.parse({"name": "banking77", "answer": {"labels": labels}})
    encoder = Encoder.load()
    encoder.cache_states([example.input for example in test])
    epochs = Recipe().epochs
    figures: dict[str, Any] = {"benchmark": "encoder", "epochs": epochs, "seeds": options.seeds}
    print(f"{'per label':>9} {'probe':>8} {'tuned':>8} {'examples/s':>11}   accuracy by seed")
    for per_label in options.per_label:
        tuned, probed, speed = [], [], []
        for seed in range(options.seeds):
            chosen = subset(train, per_label, seed)
            started = time.perf_counter()
            fitted = FineTuned(encoder).fit(task, chosen, np.random.default_rng(seed))
            speed.append(epochs * len(chosen) / (time.perf_counter() - started))
            tuned.append(accuracy(fitted, test))
            probed.append(accuracy(Probe(encoder).fit(task, chosen, np.random.default_rng(seed)), test))
        mean, rate = float(np.mean(tuned)), float(np.median(speed))
        by_seed = ", ".join(f"{value:.4f}" for value in tuned)
        print(f"{per_label:>9} {np.mean(probed):8.4f} {mean:8.4f} {rate:11.0f}   {by_seed}", flush=True)
        figures[f"tuned_{per_label}"] = round(mean, 4)
        figures[f"probe_{per_label}"] = round(float(np.mean(probed)), 4)
        figures[f"examples_per_second_{per_label}"] = round(rate, 1)
    figures |= side_by_side(task, encoder, train, test, options.per_label[0], options.seeds)
    print(json.dumps(figures))


def side_by_side(
    task: Task, encoder: Encoder, train: list[Example], test: list[Example], per_label: int, seeds: int
) -> dict[str, float]:
    """Run ours and the plain Trainer in turn on the same examples; return examples/s and their ratio."""
    epochs = Recipe().epochs
    ours, plain, right = [], [], []
    for seed in range(seeds):
        chosen = subset(train, per_label, seed)
        started = time.perf_counter()
        FineTuned(encoder).fit(task, chosen, np.random.default_rng(seed))
        ours.append(epochs * len(chosen) / (time.perf_counter() - started))
        rate, accurate = plain_trainer(chosen, test, epochs)
        plain.append(rate)
        right.append(accurate)
        print(f"seed {seed}: ours {ours[-1]:.0f}, plain Trainer {rate:.0f} examples/s", flush=True)
    ratio = float(np.median(np.array(ours) / np.array(plain)))
    print(f"plain Trainer at {per_label} per label: accuracy {np.mean(right):.4f}; ratio {ratio:.1f}")
    return {
        "trainer_examples_per_second": round(float(np.median(plain)), 1),
        "trainer_accuracy": round(float(np.mean(right)), 4),
        "ratio": round(ratio, 2),
    }


if __name__ == "__main__":
    main()
