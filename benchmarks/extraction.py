"""Extraction with the embedded encoder: named entities of CoNLL++, intents and slots of SNIPS.

Each sentence is an input and its entities are the JSON target, as a user's CSV would have them; the
arm is trained on nothing else. An entity counts as found when its field and both its ends are right
(the usual entity F1). DATA is the folder that holds conllpp/ and snips/ as published, ../shared/data
unless given; what is missing is said and skipped.

    python benchmarks/extraction.py [DATA] [--examples 500 2000 20000] [--tasks conllpp snips]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tunepoint import Example, Task
from tunepoint.arms.encoder.extraction import Extractor, SpanTagger
from tunepoint.models.encoder import Encoder
from tunepoint.trials.scorers import json_fields, json_whole

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Gold = set[tuple[str, int, int]]
"""(field, start, end)"""
Items = list[tuple[Example, Gold]]


def conllpp(folder: Path, part: str) -> Items:
    """Read the sentences of one file, words joined by spaces."""
    items: Items = []
    for words, tags in sentences(folder / f"conllpp_{part}.txt"):
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        starts = ends - [len(word) for word in words]
        gold: list[list[Any]] = []
        for start, end, tag in zip(starts.tolist(), ends.tolist(), tags, strict=True):
            if tag.startswith("B-"):
                gold.append([tag[2:], start, end])
            elif tag.startswith("I-"):
                gold[-1][2] = end
        text = " ".join(words)
        target: dict[str, list[str]] = {}
        for kind, start, end in gold:
            target.setdefault(kind, []).append(text[start:end])
        items.append(
            (Example(f"{part}:{len(items)}", text, json.dumps(target)), {tuple(entity) for entity in gold})
        )
    return items


def sentences(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.split() for line in block.splitlines() if line.strip() and "-DOCSTART-" not in line]
        if rows:
            yield [row[0] for row in rows], [row[-1] for row in rows]


def snips(folder: Path, part: str) -> Items:
    """Read the queries of all intents: the intent is a choice, and its slots stand in the query."""
    items: Items = []
    pattern = "train_*_full.json" if part == "train" else "validate_*.json"
    for path in sorted(folder.glob(pattern)):
        ((intent, queries),) = json.loads(path.read_bytes().decode("utf-8", "replace")).items()
        for query in queries:
            text, slots, gold = "", dict[str, list[str]](), Gold()
            for piece in query["data"]:
                if "entity" in piece and piece["text"].strip():
                    start = len(text) + len(piece["text"]) - len(piece["text"].lstrip())
                    value = piece["text"].strip()
                    slots.setdefault(piece["entity"], []).append(value)
                    gold.add((f"slots/{piece['entity']}", start, start + len(value)))
                text += piece["text"]
            target = json.dumps({"intent": intent, "slots": slots})
            items.append((Example(f"{path.name}:{len(items)}", text, target), gold))
    return items


def measure(fitted: Extractor, test: Items) -> dict[str, float]:
    """Measure entity F1, the scorers of a study, and the time of an answer."""
    inputs = [example.input for example, _ in test]
    started = time.perf_counter()
    replies = fitted.answer(inputs)
    seconds = time.perf_counter() - started
    right = predicted = expected = 0
    for (_, gold), tagged in zip(test, fitted.tagged(inputs), strict=True):
        spans = {(fitted.fields.spans[field].name, *place) for field, place, _ in tagged.spans}
        right, predicted, expected = right + len(spans & gold), predicted + len(spans), expected + len(gold)
    answers = [(reply.answer or "", example) for reply, (example, _) in zip(replies, test, strict=True)]
    return {
        "entity_f1": 2 * right / (predicted + expected),
        "precision": right / predicted,
        "recall": right / expected,
        "json_fields": float(np.mean([json_fields(*pair) for pair in answers])),
        "json_whole": float(np.mean([json_whole(*pair) for pair in answers])),
        "ms_an_input": 1_000 * seconds / len(test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--examples", type=int, nargs="+", default=[500, 2_000, 20_000])
    parser.add_argument("--tasks", nargs="+", default=["conllpp", "snips"], choices=["conllpp", "snips"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    encoder, rows = Encoder.load(), []
    task = Task.parse({"name": "extraction", "instruction": "Extract.", "answer": {"kind": "json"}})
    print("| task | examples | entity F1 | precision | recall | JSON fields | whole | training | an input |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.tasks:
        folder = options.data / name
        if not folder.is_dir():
            print(f"{folder} does not exist: {name} is skipped")
            continue
        read, held_out = (conllpp, "test") if name == "conllpp" else (snips, "validate")
        train, test = read(folder, "train"), read(folder, held_out)
        order = np.random.default_rng(options.seed).permutation(len(train)).tolist()
        for size in sorted({min(size, len(train)) for size in options.examples}):
            chosen = [train[i][0] for i in order[:size]]
            fitted = SpanTagger(encoder).fit(task, chosen, np.random.default_rng([options.seed, size]))
            figures = measure(fitted, test)
            rows.append({"task": name, "examples": size, "seconds": fitted.built.seconds, **figures})
            print(
                f"| {name} | {size:,} | {figures['entity_f1']:.3f} | {figures['precision']:.3f} | "
                f"{figures['recall']:.3f} | {figures['json_fields']:.3f} | {figures['json_whole']:.3f} | "
                f"{fitted.built.seconds:.0f} s | {figures['ms_an_input']:.1f} ms |",
                flush=True,
            )
    print(json.dumps({"benchmark": "extraction", "rows": rows}))


if __name__ == "__main__":
    main()
