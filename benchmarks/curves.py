"""Do learning curves fitted to few examples cover what many examples brought?

python benchmarks/curves.py --data DIRECTORY

Recorded LoRA accuracies on five classification tasks (`longctx_icl/finetuning`, 32 to 16,384 training
examples, about five runs each, 250 test items): a curve is fitted up to one size and asked for another.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from tunepoint.stats.curves import fit_curve

TASKS = ("banking77", "clinic", "nlu", "trec", "trecfine")
EXTRAPOLATIONS = (
    (256, 512),
    (256, 1_024),
    (512, 1_024),
    (512, 2_048),
    (512, 4_096),
    (512, 16_384),
    (1_024, 4_096),
)
"""(examples that a curve is fitted to, examples it is asked for)"""
ITEMS = 250


def runs(path: Path) -> dict[int, list[float]]:
    """Accuracies by number of training examples; rows that were written twice count once."""
    accuracies: dict[int, list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in sorted({tuple(row) for row in csv.reader(file) if row[0] != "n_shots"}):
            accuracies[int(row[0])].append(float(row[1]))
    return accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "longctx_icl" / "finetuning"
    recorded = {name: runs(folder / f"{name}.csv") for name in TASKS}
    print("| fitted up to | asked for | task | predicted | 90% interval | measured | holds |")
    print("|---|---|---|---|---|---|---|")
    hits, predictions, started = defaultdict(int), 0, time.perf_counter()
    for top, target in EXTRAPOLATIONS:
        for name, accuracies in recorded.items():
            sizes = [size for size in sorted(accuracies) if size <= top]
            scores = [float(np.mean(accuracies[size])) for size in sizes]
            seed = np.sqrt(np.mean([np.var(accuracies[size], ddof=1) for size in sizes]))
            items = [score * (1 - score) / ITEMS for score in scores]
            spread = zip(sizes, items, strict=True)
            errors = [
                float(np.hypot(seed / len(accuracies[size]) ** 0.5, part**0.5)) for size, part in spread
            ]
            predicted = fit_curve(sizes, scores, errors, np.random.default_rng(0)).at(target)
            truth = float(np.mean(accuracies[target]))
            hits[top, target] += truth in predicted
            predictions += 1
            interval = f"{predicted.low:.3f} to {predicted.high:.3f}"
            holds = "yes" if truth in predicted else "**no**"
            cells = (top, f"{target:,}", name, f"{predicted.estimate:.3f}", interval, f"{truth:.3f}", holds)
            print("| " + " | ".join(map(str, cells)) + " |")
    seconds = (time.perf_counter() - started) / predictions
    print(f"\n{sum(hits.values())} of {predictions} hold, {seconds:.2f} s a curve")


if __name__ == "__main__":
    main()
