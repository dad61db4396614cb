"""How often the verdict is wrong, and how often intervals hold, on simulated studies with a known truth.

python benchmarks/decision_simulated.py [--repeats 3] [--out FILE]

A grid of true differences, numbers of items, clusters, seed noise, format failures, volumes and
numbers of arms; every study draws its own scores and its own true costs from the stated ranges.
Prints tables in Markdown and a line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from verdicts import (
    CHOICES,
    VERDICTS,
    Row,
    arm_scores,
    outcome,
    race_items,
    reliability,
    rule_of_thumb,
    show,
    split_by,
)

from tunepoint import Task, decide
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.simulation import simulate
from tunepoint.decision.rule import Evidence
from tunepoint.decision.verdict import Decision
from tunepoint.stats.comparisons import compare
from tunepoint.stats.ranges import Range
from tunepoint.trials.table import Table, joint_of

Floats = NDArray[np.float64]
CLUSTER = 8
"""Items of a cluster, where there are clusters."""
SEEDS = 3
LATENT = 6.0
"""About how many latent standard deviations move the mean score by one."""
MAX_ADDED_ITEMS = 20_000
"""Items added at most to see whether a promise is kept."""
ERROR_USD = 0.02
"""What a wrong answer costs, for regret in dollars."""
BUILD_COST = {"upfront_usd": Range(1_000, 2_000, 6_000), "monthly_usd": Range(20, 50, 100)}
COSTS = (
    ArmCost("prompted", "prompt", usd_per_query=Range(0.0015, 0.002, 0.003), deterministic=True),
    ArmCost("tuned", "tuned", usd_per_query=Range(0.0001, 0.0002, 0.0004), **BUILD_COST),
    ArmCost("hybrid", "hybrid", usd_per_query=Range(0.0003, 0.0005, 0.0008), **BUILD_COST),
    ArmCost("cascade", "cascade", usd_per_query=Range(0.0006, 0.0009, 0.0012), **BUILD_COST),
)


@dataclass(frozen=True)
class World:
    """What is true in one study, and how large the study is."""

    difference: float
    """Tuned minus prompted, in mean score."""
    items: int
    clustered: bool
    seed_sd: float
    """Standard deviation of the mean score over training seeds, about."""
    failures: float
    """Share of the prompted arm's answers that do not parse."""
    volume: float
    arms: int
    high: bool = False
    """Whether the best arm is nearly always right, where a few hundred items hardly show a difference."""
    priced: bool = False
    """Whether the rule knows what a wrong answer costs."""

    @property
    def truth(self) -> Floats:
        """(arms,) true mean scores; the hybrid and the cascade are near-ties of the tuned arm."""
        prompted = 0.985 - max(0.0, self.difference) if self.high else 0.8
        tuned = prompted + self.difference
        return np.array([prompted, tuned, tuned + 0.004, tuned - 0.006])[: self.arms]

    def task(self) -> Task:
        """Limits and values at their defaults; the volume is known to a factor of two."""
        volume = [self.volume / 2, self.volume, 2 * self.volume]
        value = {"error_usd": ERROR_USD} if self.priced else {}
        return Task.parse({"name": "world", "traffic": {"queries_per_month": volume}, "value": value})


def study(world: World, items: int, seeds: Floats, rng: np.random.Generator) -> list[tuple[Floats, float]]:
    """Scores (seeds, items) of each arm and its share of answers that parse.

    A probit model with effects of item, cluster, cluster x arm, seed and seed x item.

    Args:
        seeds: (arms, SEEDS) effects of the training seeds, standard normal.

    """
    groups = np.arange(items) // (CLUSTER if world.clustered else 1)
    count = int(groups.max()) + 1
    shared = rng.normal(0, 1.0, items) + world.clustered * rng.normal(0, 0.7, count)[groups]
    own = world.clustered * rng.normal(0, 0.5, (world.arms, count))[:, groups]
    variance = 1.0 + 0.5 + 0.5 + world.clustered * (0.49 + 0.25)
    results = []
    for arm, goal in enumerate(world.truth):
        effects = LATENT * world.seed_sd * seeds[arm, :, None] if arm else np.zeros((1, 1))
        spread = variance + (LATENT * world.seed_sd) ** 2 * (arm > 0)
        readable = 1 - (world.failures if arm == 0 else 0.0)
        place = stats.norm.ppf(goal / readable) * np.sqrt(spread)
        noise = rng.normal(0, np.sqrt(0.5), items) + rng.normal(0, np.sqrt(0.5), (len(effects), items))
        parsed = rng.random(noise.shape) < readable
        right = place + shared + own[arm] + effects + noise > 0
        results.append(((right & parsed).astype(float), float(parsed.mean())))
    return results


def table_of(world: World, *parts: list[tuple[Floats, float]]) -> Table:
    """Join the parts of a study, one after the other, into a table."""
    arms = []
    for arm in range(world.arms):
        scores = np.concatenate([part[arm][0] for part in parts], axis=1)
        arms.append(arm_scores(COSTS[arm].arm, scores, parts[0][arm][1]))
    items = arms[0].scores.shape[1]
    codes = np.arange(items) // CLUSTER if world.clustered else None
    return Table(tuple(map(str, range(items))), tuple(arms), codes, (None,) * items, 0)


def truth_of(world: World, task: Task, rng: np.random.Generator) -> Evidence:
    """Return the rule's view of the world with no uncertainty left: one draw, the true one."""
    draws = simulate(COSTS[: world.arms], task, 1, rng)
    fast = np.ones(world.arms, dtype=bool)
    value = task.value
    scores = world.truth[None]
    return Evidence(scores, world.truth, draws, fast, task.limits, value.materiality, value.error_usd)


def run(args: tuple[World, int]) -> Row:
    """Run one study; return its decision beside what would have been right."""
    world, seed = args
    rng = np.random.default_rng([seed, 1])
    task = world.task()
    truth = truth_of(world, task, rng)
    seeds = rng.standard_normal((world.arms, SEEDS))
    first = study(world, world.items, seeds, rng)
    table = table_of(world, first)
    decision = decide(table, COSTS[: world.arms], task, rng)
    highest = int(np.argmax([arm.scores.mean() for arm in table.arms]))
    thumb = rule_of_thumb(world.volume, 0, 1, highest)
    answers, _ = race_items({arm.arm: arm.scores[0] for arm in table.arms}, table.clusters)
    promise: Row = {"items asked for": None, "settled as promised": None}
    needed = decision.evidence_needed
    if needed is not None and needed.test_items is not None and needed.training_seeds is None:
        promise["items asked for"] = needed.test_items
        if needed.test_items <= MAX_ADDED_ITEMS:
            rest = study(world, needed.test_items // CLUSTER * CLUSTER + CLUSTER, seeds, rng)
            again = decide(table_of(world, first, rest), COSTS[: world.arms], task, rng)
            promise["settled as promised"] = again.strength is not None
    return {
        **asdict(world),
        **outcome(decision, table, truth, thumb, ERROR_USD),
        **held(decision, table, world, truth, rng),
        **promise,
        "answers of a race": answers / (len(table.items) * world.arms),
    }


def held(decision: Decision, table: Table, world: World, truth: Evidence, rng: np.random.Generator) -> Row:
    """Check which intervals hold the truth; simultaneous ones count only if all of them do."""
    true_scores, true_costs = world.truth, truth.costs.horizon()[0]
    pairs = list(itertools.combinations(range(world.arms), 2))
    joint = joint_of(table)
    all_pairs = compare(joint, pairs, rng)
    one_pair = compare(joint, [(1, 0)], rng)[0].difference
    costs = [
        f.horizon_usd.low <= usd <= f.horizon_usd.high
        for f, usd in zip(decision.finalists, true_costs, strict=True)
    ]
    return {
        "scores hold": all(
            value in f.score for f, value in zip(decision.finalists, true_scores, strict=True)
        ),
        "differences hold": all(
            true_scores[c.arm] - true_scores[c.against] in c.difference for c in all_pairs
        ),
        "one difference holds": true_scores[1] - true_scores[0] in one_pair,
        "costs (90%) hold": float(np.mean(costs)),
    }


def grid() -> list[World]:
    """Return every combination; either the tuned or the prompted arm is the better one."""
    differences = (0.0, 0.01, -0.01, 0.03, -0.03, 0.1, -0.1)
    cells = itertools.product(
        differences,
        (100, 300, 1_000, 5_000),
        (False, True),
        (0.0, 0.01),
        (0.0, 0.05),
        (3_000.0, 30_000.0, 300_000.0),
        (2, 4),
    )
    worlds = [World(*cell) for cell in cells]
    return worlds + [replace(world, high=True) for world in worlds if not world.failures]


EXTRA_COLUMNS = (
    "scores hold",
    "differences hold",
    "one difference holds",
    "costs (90%) hold",
    "settled as promised",
    "answers of a race",
)
STATED = (("studies", "d"), ("wrong, ours", ".1%"))
COLUMNS = (*VERDICTS, *((name, ".1%") for name in EXTRA_COLUMNS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", type=int, default=1, help="run every n-th cell only, for a quick look")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=Path, help="every study, for a closer look")
    options = parser.parse_args()
    cells = grid()[:: options.part] * options.repeats
    worlds = [replace(w, priced=priced) for priced in (False, True) for w in cells]
    jobs = [(world, options.seed * 1_000_000 + i) for i, world in enumerate(worlds)]
    with ProcessPoolExecutor(options.processes) as pool:
        rows = list(pool.map(run, jobs, chunksize=8))
    by_margin = [row for row in rows if not row["priced"]]
    by_rule = {"by margin": by_margin, "by dollars": [row for row in rows if row["priced"]]}
    result = {
        "all": show("all", by_rule, COLUMNS, EXTRA_COLUMNS),
        "choosers": show("mean regret in dollars", by_rule, CHOICES),
        "stated": show("stated probability of being wrong", reliability(rows), STATED),
    }
    for key in ("items", "difference", "clustered", "seed_sd", "failures", "volume", "arms", "high"):
        result[key] = show(f"by margin: {key}", split_by(by_margin, key), COLUMNS, EXTRA_COLUMNS)
    print(json.dumps({"benchmark": "decision_simulated", **result}))
    if options.rows:
        options.rows.write_text(json.dumps(rows))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
