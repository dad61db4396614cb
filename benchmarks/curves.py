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
STEPS = ((256, 512), (256, 1_024), (512, 1_024), (512, 2_048), (512, 4_096), (512, 16_384), (1_024, 4_096))
ITEMS = 250


def runs(path: Path) -> dict[int, list[float]]:
    """Accuracies by number of training examples; rows that were written twice count once."""
    found: dict[int, list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in sorted({tuple(row) for row in csv.reader(file) if row[0] != "n_shots"}):
            found[int(row[0])].append(float(row[1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "longctx_icl" / "finetuning"
    recorded = {name: runs(folder / f"{name}.csv") for name in TASKS}
    print("| fitted up to | asked for | task | foretold | 90% interval | measured | holds |")
    print("|---|---|---|---|---|---|---|")
    held, asked, started = defaultdict(int), 0, time.perf_counter()
    for top, target in STEPS:
        for name, found in recorded.items():
            sizes = [size for size in sorted(found) if size <= top]
            scores = [float(np.mean(found[size])) for size in sizes]
            seed = np.sqrt(np.mean([np.var(found[size], ddof=1) for size in sizes]))
            items = [score * (1 - score) / ITEMS for score in scores]
            spread = zip(sizes, items, strict=True)
            errors = [float(np.hypot(seed / len(found[size]) ** 0.5, part**0.5)) for size, part in spread]
            told = fit_curve(sizes, scores, errors, np.random.default_rng(0)).at(target)
            truth = float(np.mean(found[target]))
            held[top, target] += truth in told
            asked += 1
            interval = f"{told.low:.3f} to {told.high:.3f}"
            holds = "yes" if truth in told else "**no**"
            print(
                f"| {top} | {target:,} | {name} | {told.estimate:.3f} | {interval} | {truth:.3f} | {holds} |"
            )
    print(f"\n{sum(held.values())} of {asked} hold, {(time.perf_counter() - started) / asked:.2f} s a curve")


if __name__ == "__main__":
    main()
