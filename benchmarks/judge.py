"""Coverage of a judge's differences, corrected by people's grades and not, on simulated judges.

Three arms whose true scores are right or wrong; the judge likes the first by .12, dislikes the
second by .05, is noisy, and grades from 1 to 5. Prints a table and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.stats.calibrated import rectify
from tunepoint.stats.comparisons import compare
from tunepoint.stats.paired import joint_scores

Floats = NDArray[np.float64]
JUDGE_BIAS = np.array([0.12, -0.05, 0.05])
"""What the judge adds to each arm."""


@dataclass(frozen=True)
class Row:
    """Simulated studies of one size."""

    items: int
    graded: int
    judge: str
    judge_alone: float
    """Share of 95% intervals that hold the true difference."""
    corrected: float
    people_alone: float
    width: float
    """Of the corrected interval, over that of people's grades alone."""


def studied(rng: np.random.Generator, items: int, sharp: float) -> tuple[Floats, Floats]:
    """Simulate (judge's scores, truth), each (items, 3); `sharp` is how much of the truth the judge sees."""
    ease = rng.normal(0, 0.6, (items, 1)) + rng.normal(0, 0.8, (items, 3))
    chance = 1 / (1 + np.exp(-(np.array([1.4, 1.4, 0.85]) + ease)))
    truth = (rng.random((items, 3)) < chance).astype(float)
    seen = sharp * truth + (1 - sharp) * 0.6 + JUDGE_BIAS + rng.normal(0, 0.15, (items, 3))
    return np.round(np.clip(seen, 0, 1) * 4) / 4, truth


def measure(rng: np.random.Generator, items: int, graded: int, sharp: float, studies: int) -> Row:
    """Measure the coverage of the difference between the first two arms, which are equally good."""
    true_difference = float(np.diff(studied(rng, 1_000_000, sharp)[1].mean(axis=0)[[1, 0]])[0])
    held = np.zeros(3)
    widths = np.zeros(3)
    for _ in range(studies):
        judge, truth = studied(rng, items, sharp)
        graded_items = rng.choice(items, graded, replace=False)
        human = np.full_like(truth, np.nan)
        human[graded_items] = truth[graded_items]
        arms = [rectify(judge[None, :, a], human[None, :, a]).scores for a in range(3)]
        joints = (
            joint_scores([judge[None, :, a] for a in range(3)]),
            joint_scores(arms, graded_groups=graded),
            joint_scores([truth[None, graded_items, a] for a in range(3)]),
        )
        for method, joint in enumerate(joints):
            difference = compare(joint, [(0, 1)], rng)[0].difference
            held[method] += true_difference in difference
            widths[method] += difference.high - difference.low
    share = (held / studies).tolist()
    kind = "sharp" if sharp > 0.5 else "dull"
    return Row(items, graded, kind, share[0], share[1], share[2], float(widths[1] / widths[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    sizes = ((300, 10), (300, 30), (300, 60), (1_000, 60))
    rows = [measure(rng, n, m, sharp, options.studies) for sharp in (0.6, 0.2) for n, m in sizes]
    print("| items | graded | judge | judge alone | corrected | people alone | width to people alone |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.items} | {row.graded} | {row.judge} | {row.judge_alone:.3f} | {row.corrected:.3f} | "
            f"{row.people_alone:.3f} | {row.width:.2f} |"
        )
    result: dict[str, Any] = {"studies": options.studies, "rows": [asdict(row) for row in rows]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
