"""Recordings with the answers of several systems to the same items, for `disagreements.py`."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from decision_recorded import Recording, bfcl, tabann
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
SAME_MISTAKE = 0.5
"""Probability that a wrong answer is the common one, where a recording knows no answers."""
RUNGS = ("04", "08", "16", "24")
"""Of banking77: examples of each label that TF-IDF with logistic regression is trained on."""


@dataclass(frozen=True)
class Answered:
    """A recording with answers."""

    recording: Recording
    answers: Integers
    """(systems, items): equal numbers are equal answers."""


def banking77(data: Path) -> Answered:
    """Qwen3-1.7B prompted, and TF-IDF with logistic regression trained on some of the examples."""
    folder = data / "banking77_qwen3"
    test = _lines(folder / "splits" / "test.jsonl")
    by_model: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*/predictions.jsonl.gz")):
        rows = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
        of_item = {row["id"]: str(row["pred"]) for row in rows}
        if len(of_item) == len(test):
            by_model[path.parent.name] = [of_item[row["id"]] for row in test]
    prompted = len(by_model)
    pool = _lines(folder / "splits" / "train_pool.jsonl")
    for rung in RUNGS:
        chosen = set(json.loads((folder / "splits" / "rungs" / f"rung_{rung}.json").read_text()))
        train = [row for row in pool if row["id"] in chosen]
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=30, max_iter=300))
        model.fit([row["text"] for row in train], [row["label"] for row in train])
        by_model[f"TF-IDF {rung}"] = model.predict([row["text"] for row in test]).tolist()
    right = [row["label"] for row in test]
    every = sorted({*right, *itertools.chain(*by_model.values())})
    codes = {answer: code for code, answer in enumerate(every)}
    answers = np.array([[codes[answer] for answer in column] for column in by_model.values()])
    scores = (answers == np.array([codes[label] for label in right])).astype(float)
    keep = np.flatnonzero(scores.mean(axis=1) >= scores.mean(axis=1).max() / 2).tolist()
    names = tuple(by_model)
    recording = Recording(
        "banking77",
        tuple(names[i] for i in keep),
        tuple("prompt" if i < prompted else "tuned" for i in keep),
        scores[keep],
        None,
    )
    return Answered(recording, answers[keep])


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wrong_answers(right: Floats, rng: np.random.Generator) -> Integers:
    """Return (systems, items) answers: 0 is right, 1 the common mistake, each other number one of its own."""
    own = np.arange(2, 2 + len(right))[:, None]
    return np.where(right > 0, 0, np.where(rng.random(right.shape) < SAME_MISTAKE, 1, own))


@cache
def recordings(data: Path) -> tuple[Answered, ...]:
    """All recordings of the folder."""
    rng = np.random.default_rng(0)
    plain = (tabann(data / "tabann", "wikitables-2"), bfcl(data / "bfcl"))
    return (banking77(data), *(Answered(each, wrong_answers(each.scores, rng)) for each in plain))
