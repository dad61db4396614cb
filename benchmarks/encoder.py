"""Fine-tuning the embedded encoder on banking77, beside the plain transformers Trainer.

Both train the same examples for the same number of epochs in one run; the Trainer with its
defaults (fp32, every layer, batches of 8). Looks for banking77 in ../shared/data and skips
where it is missing.

    python benchmarks/encoder.py [--seeds 3] [--per-label 5 10 20]
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
from tunepoint.models.encoder import Encoder, find_weights
from tunepoint.tuning.classifier import FineTuned, Probe, Recipe

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"


def read(name: str) -> list[Example]:
    with (DATA / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [Example(f"{name}:{i}", row["text"], row["category"]) for i, row in enumerate(rows)]


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
    """Examples a second and accuracy of transformers' Trainer as it comes."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    labels = sorted({example.target for example in train})
    weights = str(find_weights())
    tokenizer = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=len(labels))
    rows = [{**tokenizer(e.input, truncation=True), "label": labels.index(e.target)} for e in train]
    asked = [{**tokenizer(e.input, truncation=True), "label": labels.index(e.target)} for e in test]
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
        predicted = trainer.predict(asked).predictions.argmax(axis=1)
    right = [labels[i] == e.target for i, e in zip(predicted.tolist(), test, strict=True)]
    return epochs * len(train) / seconds, float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-label", type=int, nargs="+", default=[5, 10, 20])
    options = parser.parse_args()
    if not DATA.exists():
        print(f"skipped: no banking77 in {DATA}")
        print(json.dumps({"benchmark": "encoder", "skipped": True}))
        return
    train, test = read("train.csv"), read("test.csv")
    labels = {example.target: "" for example in sorted(train, key=lambda e: e.target)}
    task = Task.parse({"name": "banking77", "answer": {"labels": labels}})
    encoder = Encoder.load()
    encoder.warm([example.input for example in test])
    epochs = Recipe().epochs
    figures: dict[str, Any] = {"benchmark": "encoder", "epochs": epochs}
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
    first = options.per_label[0]
    plain, plain_accuracy = plain_trainer(subset(train, first, 0), test, epochs)
    ratio = figures[f"examples_per_second_{first}"] / plain
    print(f"plain Trainer at {first} per label: {plain:.0f} examples/s, accuracy {plain_accuracy:.4f}")
    print(f"ratio of examples/s at {first} per label: {ratio:.1f}")
    figures |= {
        "trainer_examples_per_second": round(plain, 1),
        "ratio": round(ratio, 2),
        "trainer_accuracy": round(plain_accuracy, 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
