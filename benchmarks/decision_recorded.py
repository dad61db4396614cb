"""How often the verdict is wrong on recorded answers of real models, prompted and fine-tuned.

python benchmarks/decision_recorded.py --data ../shared/data [--studies 300] [--out FILE]

Some items of a recording are the study, all of them are the truth: pairs of a prompted and a tuned
system, and sets of five, under a grid of volumes and prices. `tabann` (column types; tables are
clusters), `bfcl` (function calls) and `routerbench_mini` (a cheap and a strong model, and routers).
Prints tables in Markdown and a line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from verdicts import (
    CHOICES,
    VERDICTS,
    Row,
    arm_scores,
    outcome,
    race_items,
    reliability,
    rule_of_thumb,
    share,
    show,
    split_by,
)

from tunepoint import Task, decide
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.simulation import simulate
from tunepoint.decision.rule import Evidence
from tunepoint.stats.comparisons import compare
from tunepoint.stats.ranges import Range
from tunepoint.trials.table import Table, joint_of
from tunepoint.trials.trial import ArmKind

Floats = NDArray[np.float64]
SIZES = (100, 200, 400, 800)
VOLUMES = (3_000.0, 30_000.0, 300_000.0)
PRICES = (0.0005, 0.002, 0.01)
"""Dollars of a prompted answer; a tuned one costs a fifth, after a project of $3,000."""
ERROR_USD = 0.02
CLEAR_DIFFERENCE = 0.05
"""In mean score: from here on a race is expected to save items."""


@dataclass(frozen=True)
class Recording:
    """Recorded scores of several systems on the same items."""

    name: str
    systems: tuple[str, ...]
    kinds: tuple[ArmKind, ...]
    scores: Floats
    """(systems, items), 0 or 1."""
    clusters: NDArray[np.intp] | None
    prices: tuple[float, ...] | None = None
    """Dollars an answer, where they were recorded."""
    repeats: tuple[tuple[int, int], ...] = ()
    """Pairs of runs of the same system."""

    def draw(self, size: int, prefix: bool, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw about `size` items in whole clusters: the first of the file, or at random."""
        items = self.scores.shape[1]
        codes = np.arange(items) if self.clusters is None else self.clusters
        order = np.arange(codes.max() + 1) if prefix else rng.permutation(codes.max() + 1)
        place = np.argsort(order)[codes]
        return np.argsort(place, kind="stable")[:size] if size < items else np.argsort(place, kind="stable")


def tabann(folder: Path, dataset: str) -> Recording:
    """Column-type annotation; systems under half of the best score are left out."""
    systems = [row for row in _rows(folder / "systems.csv") if row["dataset"] == dataset]
    rows = _rows(folder / f"{dataset}_correct.csv.gz")
    scores = np.array([[float(row[system["id"]]) for row in rows] for system in systems])
    keep = np.flatnonzero(scores.mean(axis=1) >= scores.mean(axis=1).max() / 2).tolist()
    kinds: list[ArmKind] = ["tuned" if systems[i]["kind"] == "fine_tuned" else "prompt" for i in keep]
    same: dict[tuple[str, str, str], list[int]] = {}
    for position, i in enumerate(keep):
        plain = re.sub(r"-?run_\d+$", "", systems[i]["prompt"])
        if plain != systems[i]["prompt"]:
            trained = re.sub(r"run_\d+.*$", "", systems[i]["path"])
            same.setdefault((systems[i]["model"], plain, trained), []).append(position)
    repeats = tuple(pair for group in same.values() for pair in itertools.combinations(group, 2))
    clusters = np.unique([row["cluster_table"] for row in rows], return_inverse=True)[1]
    names = tuple(systems[i]["id"] for i in keep)
    return Recording(f"tabann {dataset}", names, tuple(kinds), scores[keep], clusters, repeats=repeats)


def bfcl(folder: Path) -> Recording:
    """Function calling; systems under half of the best score are left out."""
    kinds = {row["model"]: row["kind"] for row in _rows(folder / "systems.csv")}
    rows = _rows(folder / "correct_matrix.csv.gz")
    names = [name for name in rows[0] if name in kinds]
    scores = np.array([[float(row[name]) for row in rows] for name in names])
    keep = np.flatnonzero(scores.mean(axis=1) >= scores.mean(axis=1).max() / 2).tolist()
    arms: list[ArmKind] = ["tuned" if kinds[names[i]].startswith("fine") else "prompt" for i in keep]
    return Recording("bfcl", tuple(names[i] for i in keep), tuple(arms), scores[keep], None)


def routerbench(folder: Path) -> Recording:
    """A cheap model, a strong one, and routers between them; those that know the answer are left out."""
    runs_by_strategy: dict[str, dict[str, dict[str, str]]] = {}
    for row in _rows(folder / "test_predictions.csv"):
        if "oracle" not in row["strategy"]:
            runs_by_strategy.setdefault(row["strategy"], {})[row["canonical_id"]] = row
    items = list(next(iter(runs_by_strategy.values())))
    scores = np.array(
        [[float(runs[item]["correct"]) for item in items] for runs in runs_by_strategy.values()]
    )
    prices = [
        float(np.mean([float(runs[item]["cost"]) for item in items])) for runs in runs_by_strategy.values()
    ]
    kinds: list[ArmKind] = ["prompt" if name.startswith("always") else "cascade" for name in runs_by_strategy]
    return Recording("routerbench_mini", tuple(runs_by_strategy), tuple(kinds), scores, None, tuple(prices))


def _rows(path: Path) -> list[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(text.decode().splitlines(keepends=True)))


@cache
def recordings(data: Path) -> tuple[Recording, ...]:
    """All recordings of the folder."""
    return (
        tabann(data / "tabann", "wikitables-2"),
        tabann(data / "tabann", "limayeu"),
        bfcl(data / "bfcl"),
        routerbench(data / "routerbench_mini"),
    )


@dataclass(frozen=True)
class Plan:
    """The settings of one study of a recording."""

    data: Path
    recording: int
    size: int
    prefix: bool
    arms: int
    priced: bool
    volume: float
    price: float
    seed: int


def choose(recording: Recording, count: int, rng: np.random.Generator) -> list[int]:
    """Choose a prompted and a tuned system (any two if none is tuned); of five, two or three are tuned."""
    tuned = [i for i, kind in enumerate(recording.kinds) if kind != "prompt"]
    prompted = [i for i, kind in enumerate(recording.kinds) if kind == "prompt"]
    if not tuned:
        return rng.choice(prompted, count, replace=False).tolist()
    tuned_count = min(len(tuned), count // 2 + int(count > 2 and rng.random() < 0.5))
    tuned_count = max(tuned_count, count - len(prompted))
    first = rng.choice(prompted, count - tuned_count, replace=False).tolist()
    return [*first, *rng.choice(tuned, tuned_count, replace=False).tolist()]


def costs_of(recording: Recording, chosen: Sequence[int], price: float) -> list[ArmCost]:
    """Price the systems: recorded prices if there are any, else the grid's, slightly different for each."""
    costs = []
    for rank, i in enumerate(chosen):
        kind, name = recording.kinds[i], recording.systems[i]
        if recording.prices is not None:
            usd_per_query = recording.prices[i] * price / 0.002
            costs.append(ArmCost(name, kind, usd_per_query=Range.parse(usd_per_query), deterministic=True))
            continue
        usd_per_query = price * (1 + rank / 2) / (1 if kind == "prompt" else 5)
        built = Range.parse(0.0 if kind == "prompt" else 3_000.0)
        cost = ArmCost(
            name, kind, usd_per_query=Range.parse(usd_per_query), upfront_usd=built, deterministic=True
        )
        costs.append(cost)
    return costs


def run(plan: Plan) -> Row:
    """Run one study; return its decision beside the truth, which is all items of the recording."""
    recording = recordings(plan.data)[plan.recording]
    rng = np.random.default_rng([plan.seed, plan.recording, plan.size])
    chosen = choose(recording, plan.arms, rng)
    value = {"error_usd": ERROR_USD} if plan.priced else {}
    task = Task.parse({"name": "recorded", "traffic": {"queries_per_month": plan.volume}, "value": value})
    costs = costs_of(recording, chosen, plan.price)
    scores = recording.scores[chosen].mean(axis=1)
    draws = simulate(costs, task, 1, rng)
    fast = np.ones(plan.arms, dtype=bool)
    truth = Evidence(scores[None], scores, draws, fast, task.limits, 0.05, task.value.error_usd)
    table = part(recording, chosen, recording.draw(plan.size, plan.prefix, rng))
    decision = decide(table, costs, task, rng)
    kinds = [recording.kinds[i] for i in chosen]
    means = [float(arm.scores.mean()) for arm in table.arms]
    prompted = max((i for i, kind in enumerate(kinds) if kind == "prompt"), key=means.__getitem__)
    others = [i for i, kind in enumerate(kinds) if kind != "prompt"] or list(range(plan.arms))
    tuned = max(others, key=means.__getitem__)
    thumb = rule_of_thumb(plan.volume, prompted, tuned, int(np.argmax(means)))
    pairs = list(itertools.combinations(range(plan.arms), 2))
    comparisons = compare(joint_of(table), pairs, rng)
    return {
        "recording": recording.name,
        "items": plan.size,
        "arms": plan.arms,
        "prefix": plan.prefix,
        "priced": plan.priced,
        "volume": plan.volume,
        **outcome(decision, table, truth, thumb, ERROR_USD),
        "differences hold": all(scores[c.arm] - scores[c.against] in c.difference for c in comparisons),
    }


def part(recording: Recording, chosen: Sequence[int], items: NDArray[np.intp]) -> Table:
    """Some items of some systems."""
    arms = tuple(arm_scores(recording.systems[i], recording.scores[i][None, items]) for i in chosen)
    clusters = None if recording.clusters is None else recording.clusters[items]
    return Table(tuple(map(str, items.tolist())), arms, clusters, (None,) * len(items), 0)


def plans(data: Path, studies: int, seed: int) -> Iterator[Plan]:
    """Yield studies of every recording and size, over the grid of volumes and prices."""
    grid = list(itertools.product((2, 5), VOLUMES, PRICES))
    for position, recording in enumerate(recordings(data)):
        for size in SIZES:
            if size > 0.75 * recording.scores.shape[1]:
                continue
            for number in range(studies):
                arms, volume, price = grid[number % len(grid)]
                for priced in (False, True):
                    own = seed * 1_000_000 + number
                    yield Plan(data, position, size, number % 4 == 0, arms, priced, volume, price, own)


def race(recording: Recording, first: int, second: int, rng: np.random.Generator) -> tuple[int, bool]:
    """Race two systems; return the items that it took, and whether the better one won."""
    order = recording.draw(recording.scores.shape[1], False, rng)
    scores = {"one": recording.scores[first, order], "other": recording.scores[second, order]}
    answers, winner = race_items(scores, None if recording.clusters is None else recording.clusters[order])
    better = "one" if recording.scores[first].mean() >= recording.scores[second].mean() else "other"
    return answers // 2, winner == better


def races(recording: Recording, max_pairs: int, rng: np.random.Generator) -> Row | None:
    """Race pairs that differ clearly; return the share of items used, and of right winners."""
    means = recording.scores.mean(axis=1)
    pairs = itertools.combinations(range(len(means)), 2)
    clear = [pair for pair in pairs if abs(means[pair[0]] - means[pair[1]]) >= CLEAR_DIFFERENCE]
    if not clear:
        return None
    drawn = [clear[i] for i in rng.permutation(len(clear))[:max_pairs].tolist()]
    results = [race(recording, first, second, rng) for first, second in drawn]
    return {
        "pairs": len(results),
        "share of items": share(items / recording.scores.shape[1] for items, _ in results),
        "right": share(right for _, right in results),
    }


def repeated(recording: Recording, rng: np.random.Generator) -> Row | None:
    """Compare runs of the same system: how often 400 items call them different, which they are not."""
    if not recording.repeats:
        return None
    called_different = []
    for pair in recording.repeats:
        for _ in range(10):
            table = part(recording, pair, recording.draw(400, False, rng))
            interval = compare(joint_of(table), [(0, 1)], rng)[0].difference
            called_different.append(0 not in interval)
    return {"pairs": len(recording.repeats), "called different": share(called_different)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--studies", type=int, default=360, help="of each recording, size and rule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        rows = list(pool.map(run, plans(options.data, options.studies, options.seed), chunksize=16))
    by_rule = {
        f"by {'dollars' if priced else 'margin'}, {'first items of the file' if prefix else 'any items'}": [
            row for row in rows if (row["priced"], row["prefix"]) == (priced, prefix)
        ]
        for prefix in (False, True)
        for priced in (False, True)
    }
    by_margin = by_rule["by margin, any items"]
    rows = [row for row in rows if not row["prefix"]]
    extra = ("differences hold",)
    columns = (*VERDICTS, ("differences hold", ".1%"))
    result = {
        "all": show("all", by_rule, columns, extra),
        "choosers": show("wrong, and mean regret in dollars", by_rule, CHOICES),
        "stated": show(
            "stated probability of being wrong",
            reliability(rows),
            (("studies", "d"), ("wrong, ours", ".1%")),
        ),
    }
    for key in ("recording", "items", "arms", "volume"):
        groups = by_name(by_margin) if key == "recording" else split_by(by_margin, key)
        result[key] = show(f"by margin, any items: {key}", groups, columns, extra)
    rng = np.random.default_rng(options.seed)
    for recording in recordings(options.data):
        race_results, repeat_results = races(recording, 400, rng), repeated(recording, rng)
        print(
            f"\n{recording.name}: races of pairs that differ by {CLEAR_DIFFERENCE:.0%} or more: "
            f"{race_results}; repeats: {repeat_results}"
        )
        result[f"races {recording.name}"] = race_results
        result[f"repeats {recording.name}"] = repeat_results
    print(json.dumps({"benchmark": "decision_recorded", **result}))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by recording."""
    names = dict.fromkeys(row["recording"] for row in rows)
    return {name: [row for row in rows if row["recording"] == name] for name in names}


if __name__ == "__main__":
    main()
