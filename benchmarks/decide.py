"""Time and memory of a decision over many arms: all intervals, probabilities and break-evens.

python benchmarks/decide.py [--arms 20] [--items 5000]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from tunepoint import Task, Trial, decide, read_trials, tabulate
from tunepoint.costs.declared_costs import guessed_cost


def write_trials(path: Path, arms: int, items: int, rng: np.random.Generator) -> None:
    hard = rng.normal(0, 1, items)
    with path.open("w") as file:
        for arm in range(arms):
            right = hard + rng.normal(0, 0.5, items) + 0.5 + 0.05 * arm > 0
            for item in range(items):
                trial = Trial(arm=f"arm {arm}", item=str(item), score=float(right[item]), cost_usd=1e-4)
                file.write(trial.line())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arms", type=int, default=20)
    parser.add_argument("--items", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trials.jsonl"
        write_trials(path, options.arms, options.items, np.random.default_rng(0))
        started = time.perf_counter()
        table = tabulate(read_trials(path))
        read = time.perf_counter() - started
        costs = [guessed_cost(scores) for scores in table.arms]
        started = time.perf_counter()
        decision = decide(table, costs, Task.parse({"name": "bench"}), np.random.default_rng(1))
        decided = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{options.arms} arms x {options.items} items, {len(decision.differences)} differences of the winner"
    )
    print(f"{'reading and tabulating':<28}{read:8.2f} s")
    print(f"{'deciding, all intervals':<28}{decided:8.2f} s")
    print(f"{'peak memory':<28}{memory:8.2f} GiB")
    figures = {
        "benchmark": "decide",
        "arms": options.arms,
        "items": options.items,
        "read_seconds": round(read, 3),
        "decide_seconds": round(decided, 3),
        "peak_gib": round(memory, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
