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
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunepoint import Task, decide
from tunepoint.cost.break_even import simulate
from tunepoint.cost.prices import ArmCost
from tunepoint.decisions import Decision
from tunepoint.evidence import Evidence
from tunepoint.measure.races import Race, looks
from tunepoint.measure.trials import ArmScores, Table
from tunepoint.stats.ranges import Range

Floats = NDArray[np.float64]
CLUSTER = 8
"""Items of a cluster, where there are clusters."""
SEEDS = 3
ERROR_USD = 0.02
"""What a wrong answer costs, for regret in dollars."""
BUILT = {"upfront_usd": Range(1_000, 2_000, 6_000), "monthly_usd": Range(20, 50, 100)}
COSTS = (
    ArmCost("prompted", "prompt", usd_per_query=Range(0.0015, 0.002, 0.003), deterministic=True),
    ArmCost("tuned", "tuned", usd_per_query=Range(0.0001, 0.0002, 0.0004), **BUILT),
    ArmCost("hybrid", "hybrid", usd_per_query=Range(0.0003, 0.0005, 0.0008), **BUILT),
    ArmCost("cascade", "cascade", usd_per_query=Range(0.0006, 0.0009, 0.0012), **BUILT),
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
    priced: bool = False
    """Whether the rule knows what a wrong answer costs."""

    @property
    def truth(self) -> Floats:
        """(arms,) true mean scores; the hybrid and the cascade are near-ties of the tuned arm."""
        tuned = 0.8 + self.difference
        return np.array([0.8, tuned, tuned + 0.004, tuned - 0.006])[: self.arms]

    def task(self) -> Task:
        volume = [self.volume / 2, self.volume, 2 * self.volume]
        value = {"error_usd": ERROR_USD} if self.priced else {}
        return Task.parse({"name": "world", "traffic": {"queries_per_month": volume}, "value": value})


def study(world: World, items: int, rng: np.random.Generator) -> Table:
    """Scores by a probit model with effects of item, cluster, cluster x arm, seed and seed x item."""
    codes = np.arange(items) // CLUSTER if world.clustered else None
    groups = np.arange(items) if codes is None else codes
    count = int(groups.max()) + 1
    shared = rng.normal(0, 1.0, items) + world.clustered * rng.normal(0, 0.7, count)[groups]
    own = world.clustered * rng.normal(0, 0.5, (world.arms, count))[:, groups]
    variance = 1.0 + 0.5 + 0.5 + world.clustered * (0.49 + 0.25)
    arms = []
    for arm, goal in enumerate(world.truth):
        readable = 1 - (world.failures if arm == 0 else 0.0)
        seeds = 1 if arm == 0 else SEEDS
        spread = variance + (0.0 if arm == 0 else (world.seed_sd * 6.0) ** 2)
        place = stats.norm.ppf(goal / readable) * np.sqrt(spread)
        item = rng.normal(0, np.sqrt(0.5), items)
        effects = world.seed_sd * 6.0 * rng.normal(0, 1, (seeds, 1)) if arm else np.zeros((1, 1))
        noise = rng.normal(0, np.sqrt(0.5), (seeds, items))
        right = place + shared + own[arm] + item + effects + noise > 0
        parsed = rng.random((seeds, items)) < readable
        names = tuple(map(str, range(seeds))) if seeds > 1 else (None,)
        arms.append(
            ArmScores(
                COSTS[arm].arm,
                (right & parsed).astype(float),
                names,
                float(parsed.mean()),
                0.0,
                (),
                np.array([]),
                np.array([]),
                np.full((seeds * items, 3), np.nan),
            )
        )
    return Table(tuple(map(str, range(items))), tuple(arms), codes, (None,) * items, 0)


def truth_of(world: World, task: Task, rng: np.random.Generator) -> Evidence:
    """The rule's own view of the world, with nothing left to guess: one draw, the true one."""
    draws = simulate(COSTS[: world.arms], task, 1, rng)
    fast = np.ones(world.arms, dtype=bool)
    value = task.value
    scores = world.truth[None]
    return Evidence(scores, world.truth, draws, fast, task.limits, value.materiality, value.error_usd)


def rule_of_thumb(world: World) -> int:
    """Under 10,000 prompt, over 100,000 fine-tune; between, whatever scored higher is left to "do the math"."""
    return 0 if world.volume < 10_000 else 1


def run(args: tuple[World, int]) -> dict[str, Any]:
    """One study: what was decided, and what would have been right."""
    world, seed = args
    rng = np.random.default_rng([seed, 1])
    task = world.task()
    truth = truth_of(world, task, rng)
    table = study(world, world.items, rng)
    decision = decide(table, COSTS[: world.arms], task, rng)
    winner = table.names.index(decision.winner)
    naive = int(np.argmax([arm.scores.mean() for arm in table.arms]))
    money = replace(truth, error_usd=ERROR_USD)
    net = money.total()[0]
    choices = {"ours": winner, "highest mean": naive, "rule of thumb": rule_of_thumb(world)}
    return {
        "items": world.items,
        "difference": world.difference,
        "clustered": world.clustered,
        "priced": world.priced,
        "arms": world.arms,
        "seed_sd": world.seed_sd,
        "strength": decision.strength or "undecided",
        "wrong": max(*truth.risks_of(winner).__dict__.values()) > 0,
        "wrong_naive": max(*truth.risks_of(naive).__dict__.values()) > 0,
        "wrong_rule": max(*truth.risks_of(choices["rule of thumb"]).__dict__.values()) > 0,
        "regret": {name: float(net[arm] - net.min()) for name, arm in choices.items()},
        **held(decision, world, truth),
        **promised(decision, world, task, rng),
        "raced": raced(table),
    }


def held(decision: Decision, world: World, truth: Evidence) -> dict[str, Any]:
    """Which intervals hold what they are about; the simultaneous ones hold together or not."""
    true = dict(zip(truth.costs.arms, world.truth.tolist(), strict=True))
    spent = dict(zip(truth.costs.arms, truth.costs.horizon()[0].tolist(), strict=True))
    found: dict[str, Any] = {
        "scores": all(true[one.arm] in one.score for one in decision.finalists),
        "differences": all(
            true[one.arm] - true[one.against] in one.difference for one in decision.differences
        ),
        "costs": float(
            np.mean([f.horizon_usd.low <= spent[f.arm] <= f.horizon_usd.high for f in decision.finalists])
        ),
    }
    return found


def promised(decision: Decision, world: World, task: Task, rng: np.random.Generator) -> dict[str, Any]:
    """Whether the items that an undecided study asks for settle it, in a study of that size."""
    needed = decision.evidence_needed
    if needed is None or needed.test_items is None or needed.training_seeds is not None:
        return {"asked": None, "settled": None}
    items = world.items + needed.test_items
    if items > 20_000:
        return {"asked": needed.test_items, "settled": None}
    again = decide(study(world, items, rng), COSTS[: world.arms], task, rng)
    return {"asked": needed.test_items, "settled": again.strength is not None}


def raced(table: Table) -> float:
    """Share of answers that a race of these arms takes."""
    items = len(table.items)
    course = Race(table.names, CLUSTER if table.clusters is not None else 1)
    scores = {arm.arm: arm.scores[0] for arm in table.arms}
    asked, before = 0, 0
    for size in looks(items):
        end = items if size == items or table.clusters is None else -(-size // CLUSTER) * CLUSTER
        end = min(items, end)
        if len(course.running) == 1:
            break
        asked += len(course.running) * (end - before)
        before = end
        codes = None if table.clusters is None else table.clusters[:end]
        course.look({name: scores[name][:end] for name in course.running}, codes)
    return asked / (items * len(table.arms))


def grid() -> list[World]:
    """Every combination; the better arm is the tuned one or the prompted one."""
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
    return [World(*cell) for cell in cells]


def share(rows: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> float:
    return float(np.mean([of(row) for row in rows])) if rows else float("nan")


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a set of studies."""
    by = {name: [r for r in rows if r["strength"] == name] for name in ("confident", "leaning", "undecided")}
    settled = [r for r in rows if r["settled"] is not None]
    return {
        "studies": len(rows),
        **{name: len(found) / len(rows) for name, found in by.items()},
        **{f"wrong_{name}": share(found, lambda r: r["wrong"]) for name, found in by.items()},
        "wrong_highest_mean": share(rows, lambda r: r["wrong_naive"]),
        "wrong_rule_of_thumb": share(rows, lambda r: r["wrong_rule"]),
        **{key: share(rows, lambda r, key=key: r[key]) for key in ("scores", "differences", "costs")},  # type: ignore[misc]
        "power_kept": share(settled, lambda r: r["settled"]),
        "promises": len(settled),
        "regret_usd": {
            name: share(rows, lambda r, name=name: r["regret"][name])  # type: ignore[misc]
            for name in ("ours", "highest mean", "rule of thumb")
        },
        "items_raced": share(rows, lambda r: r["raced"]),
    }


COLUMNS = (
    ("studies", "studies", "d"),
    ("confident", "confident", ".0%"),
    ("wrong_confident", "wrong of these", ".1%"),
    ("leaning", "leaning", ".0%"),
    ("wrong_leaning", "wrong of these", ".1%"),
    ("undecided", "undecided", ".0%"),
    ("scores", "scores hold", ".1%"),
    ("differences", "differences hold", ".1%"),
    ("costs", "costs (90%) hold", ".1%"),
    ("power_kept", "settled as promised (80%)", ".0%"),
    ("items_raced", "answers of a race", ".0%"),
)


def show(title: str, groups: dict[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    found = {name: summary(rows) for name, rows in groups.items() if rows}
    print(f"\n| {title} | " + " | ".join(head for _, head, _ in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, figures in found.items():
        print(f"| {name} | " + " | ".join(format(figures[key], form) for key, _, form in COLUMNS) + " |")
    return found


def split_by(rows: Sequence[dict[str, Any]], key: str) -> dict[str, Sequence[dict[str, Any]]]:
    return {f"{v:,}": [r for r in rows if r[key] == v] for v in sorted({r[key] for r in rows})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", type=int, default=1, help="every so-manieth cell only, for a quick look")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cells = grid()[:: given.part] * given.repeats
    worlds = [replace(w, priced=priced) for priced in (False, True) for w in cells]
    jobs = [(world, given.seed * 1_000_000 + i) for i, world in enumerate(worlds)]
    with ProcessPoolExecutor(given.processes) as pool:
        rows = list(pool.map(run, jobs, chunksize=8))
    plain = [row for row in rows if not row["priced"]]
    result = {
        "all": show("all", {"by margin": plain, "by dollars": [row for row in rows if row["priced"]]}),
        "items": show("test items", split_by(plain, "items")),
        "difference": show("true difference", split_by(plain, "difference")),
        "clustered": show("clusters", split_by(plain, "clustered")),
        "seed_sd": show("sd of seeds", split_by(plain, "seed_sd")),
        "arms": show("arms", split_by(plain, "arms")),
    }
    for name, figures in result["all"].items():
        print(f"\nregret {name}, mean dollars a study:", figures["regret_usd"])
    print(json.dumps({"benchmark": "decision_simulated", **result}))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
