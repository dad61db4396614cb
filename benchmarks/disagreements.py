"""How many labels a verdict needs where options disagree, against labels of random inputs.

python benchmarks/disagreements.py --data ../shared/data [--studies 200] [--out FILE]

Recordings: some items of a recording are the test set, the others the pool, and all of them the truth.
Labels are revealed in batches until the verdict is confident, in the order of `tunepoint label` or at random;
the bounds are the same, and hold at every look. Answers are recorded for banking77 (Qwen3-1.7B, and TF-IDF
trained on rungs of examples). For column types and function calls only right and wrong are: there, two wrong
answers are the same one with probability 1/4. Simulated studies have pools of 2,000 and 20,000, clusters, and
labels of which 0, 2 or 10% are wrong; then pools that are adversaries. Prints tables and a line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from answered_recordings import Answered, recordings, wrong_answers
from decision_recorded import Recording, choose, costs_of
from label_tables import COLUMNS, EQUAL, grouped, show
from numpy.typing import NDArray
from scipy import stats
from verdicts import Row, arm_scores

from tunepoint import Example, Task, decide
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.simulation import simulate
from tunepoint.decision.rule import Evidence
from tunepoint.decision.verdict import Decision
from tunepoint.stats.comparisons import compare
from tunepoint.stats.disagreements import AGREED, PoolScores, difference_p_value
from tunepoint.study.labelling.order import label_order, next_inputs
from tunepoint.study.labelling.pool import Pool
from tunepoint.trials.table import Table, joint_of

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
TEST_ITEMS = 100
LOOKS = (25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1_000)
"""Labels after which the verdict is looked at."""
VOLUME, PRICE = 30_000.0, 0.002


# -- one study -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What several arms answer to the inputs of a test set or a pool, and how they score."""

    scores: Floats
    """(arms, N)"""
    answers: Integers
    """(arms, N)"""
    clusters: Integers | None


@dataclass(frozen=True)
class Case:
    """A study and its pool, with the truth."""

    test: Inputs
    pool: Inputs
    truth: Floats
    """(arms,) true mean scores."""
    costs: Sequence[ArmCost]
    label_noise: float = 0.0


def task() -> Task:
    """Limits at their defaults: a margin of two points."""
    return Task.parse({"name": "labels", "traffic": {"queries_per_month": VOLUME}})


def table_of(case: Case) -> Table:
    arms = tuple(arm_scores(cost.arm, case.test.scores[i][None]) for i, cost in enumerate(case.costs))
    items = case.test.scores.shape[1]
    return Table(tuple(map(str, range(items))), arms, case.test.clusters, (None,) * items, 0)


def opened(case: Case, alone: Decision) -> Pool:
    """Return the pool as `tunepoint label` opens it."""
    count = case.pool.scores.shape[1]
    inputs = tuple(Example(str(i), str(i), "") for i in range(count))
    answers = tuple(tuple((str(answer),) for answer in column) for column in case.pool.answers.T.tolist())
    arms = tuple(cost.arm for cost in case.costs)
    return Pool(inputs, arms, answers, order=label_order(alone))


def graded(case: Case, rng: np.random.Generator) -> Floats:
    """Return (N, arms) scores by labels, some of which name any of the answers given, or none."""
    scores = case.pool.scores.T.copy()
    for i in np.flatnonzero(rng.random(len(scores)) < case.label_noise).tolist():
        given = np.unique(case.pool.answers[:, i])
        scores[i] = case.pool.answers[:, i] == rng.choice([*given, -1])
    return scores


def labelled_study(case: Case, rng: np.random.Generator) -> Row:
    """Reveal labels both ways until the verdict is confident; return where each way got to."""
    table, rule = table_of(case), task()
    alone = decide(table, case.costs, rule, rng)
    draws = simulate(case.costs, rule, 1, rng)
    fast = np.ones(len(case.costs), dtype=bool)
    truth = Evidence(case.truth[None], case.truth, draws, fast, rule.limits, 0.05, None)
    answers = case.test.answers
    row: Row = {
        "arms": len(case.costs),
        "agree": float(np.mean([(a == b).mean() for a, b in itertools.combinations(answers, 2)])),
        "alone": alone.strength or "undecided",
    }
    if alone.strength == "confident":
        return row
    pool, scores = opened(case, alone), graded(case, rng)
    count = len(pool.inputs)
    in_order = next_inputs(pool, rng.random(count), LOOKS[-1])
    at_random = rng.permutation(count).tolist()[: LOOKS[-1]]
    clusters, none = case.pool.clusters, np.array([], dtype=np.intp)
    ways = {
        "disagreements": (in_order, PoolScores(pool.strata, none, scores[none], clusters, pool.weights)),
        "random": (at_random, PoolScores(np.full(count, AGREED + 1), none, scores[none], clusters)),
    }
    for way, (order, unlabelled) in ways.items():
        row[way] = _reveal(case, table, rule, truth, unlabelled, (order, scores), rng)
    row["disputed"] = len(pool.disputed) / count
    return row


def _reveal(
    case: Case,
    table: Table,
    rule: Task,
    truth: Evidence,
    unlabelled: PoolScores,
    labels: tuple[Sequence[int], Floats],
    rng: np.random.Generator,
) -> Row:
    """Look after each batch until the verdict is confident or the labels end."""
    order, scores = labels
    states: dict[int, str] = {}
    holds, differ = True, False
    for look in LOOKS:
        chosen = np.array(order[:look], dtype=np.intp)
        pool = replace(unlabelled, labelled=chosen, scores=scores[chosen])
        seen = replace(table, pool=pool)
        decision = decide(seen, case.costs, rule, rng)
        for comparison in compare(joint_of(seen), _pairs(case), rng):
            holds &= case.truth[comparison.arm] - case.truth[comparison.against] in comparison.difference
            differ |= 0 not in comparison.difference
        states[look] = decision.strength or "undecided"
        if decision.strength == "confident" or look >= len(order):
            break
    winners = decision.evidence.named()
    return {
        "labels": len(chosen),
        "strength": states[look],
        "wrong": truth.risks_of(*winners).wrong > 0,
        "states": states,
        "holds": holds,
        "differ": differ,
        "another pool": difference_p_value(joint_of(table), pool) < 0.01,
    }


def _pairs(case: Case) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(len(case.costs)), 2))


# -- recordings ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The settings of one study of a recording."""

    data: Path
    recording: int
    arms: int
    close: bool
    """Whether two options are drawn that agree on 80 to 90% of all inputs."""
    seed: int


def close_pairs(source: Answered) -> list[tuple[int, int]]:
    """Return the pairs of options that agree on 80 to 90% of the inputs."""
    answers = source.answers
    return [
        pair
        for pair in itertools.combinations(range(len(answers)), 2)
        if 0.8 <= (answers[pair[0]] == answers[pair[1]]).mean() <= 0.9
    ]


def recorded(plan: Plan) -> Row:
    """Run a study of a recording."""
    source = recordings(plan.data)[plan.recording]
    recording = source.recording
    rng = np.random.default_rng([plan.seed, plan.recording, plan.arms])
    if plan.close:
        pairs = close_pairs(source)
        chosen = list(pairs[rng.integers(len(pairs))])
    else:
        chosen = choose(recording, plan.arms, rng)
    items = recording.draw(TEST_ITEMS, False, rng)
    rest = np.setdiff1d(np.arange(recording.scores.shape[1]), items)
    if recording.clusters is not None:  # a cluster that the draw has cut in two
        rest = rest[~np.isin(recording.clusters[rest], recording.clusters[items])]

    def part(positions: Integers) -> Inputs:
        clusters = None if recording.clusters is None else recording.clusters[positions]
        return Inputs(recording.scores[chosen][:, positions], source.answers[chosen][:, positions], clusters)

    truth = recording.scores[chosen].mean(axis=1)
    case = Case(part(items), part(rest), truth, costs_of(recording, chosen, PRICE))
    options = "two that agree on 80 to 90%" if plan.close else {2: "two", 5: "five"}[plan.arms]
    return {"source": recording.name, "options": options, **labelled_study(case, rng)}


# -- simulations ---------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A simulated study: a probit model of tasks that are hard for all, and for one."""

    difference: float
    """Of the second arm and the first, in mean score; the others lie between."""
    arms: int = 2
    inputs: int = 2_000
    clustered: bool = False
    noise: float = 0.0
    kind: str = "as stated"
    seed: int = 0
    own: float = 0.35
    """Standard deviation of what is hard for one arm, where that of what is hard for all is 1."""


CLUSTER = 8


def drawn(world: World, count: int, sign: float, rng: np.random.Generator) -> Inputs:
    """Draw inputs; `sign` turns the difference round."""
    truth = truth_of(world, sign)
    codes = np.arange(count) // CLUSTER if world.clustered else np.arange(count)
    if world.kind == "one giant cluster":
        codes = np.maximum(0, np.arange(count) - count // 2)
    groups = int(codes.max()) + 1
    cluster_sd = 0.5 if world.clustered or world.kind == "one giant cluster" else 0.0
    own_cluster = rng.normal(0, 0.5 * cluster_sd, (world.arms, groups))[:, codes]
    shared = rng.normal(0, 1, count) + rng.normal(0, cluster_sd, groups)[codes]
    spread = np.sqrt(1 + cluster_sd**2 * 1.25 + world.own**2)
    noise = rng.normal(0, world.own, (world.arms, count))
    right = (stats.norm.ppf(truth)[:, None] * spread + shared + own_cluster + noise > 0).astype(float)
    answers = wrong_answers(right, rng)
    if world.kind == "copies":
        answers, right = np.repeat(answers[:, ::4], 4, axis=1), np.repeat(right[:, ::4], 4, axis=1)
        codes = np.arange(count) // 4
    return Inputs(right, answers, codes if groups < count or world.kind == "copies" else None)


def truth_of(world: World, sign: float = 1.0) -> Floats:
    first, last = 0.8 - sign * world.difference / 2, 0.8 + sign * world.difference / 2
    return np.array([first, last, *np.linspace(first, last, world.arms)[1:-1]])[: world.arms]


def simulated(world: World) -> Row:
    """Run a simulated study."""
    rng = np.random.default_rng([world.seed, world.inputs, round(1000 * world.difference), world.arms])
    test = drawn(replace(world, kind="as stated"), TEST_ITEMS, 1.0, rng)
    pool = drawn(world, world.inputs, -1.0 if world.kind == "another pool" else 1.0, rng)
    plain = Recording("", tuple("abcde"), ("prompt", "tuned", "prompt", "tuned", "tuned"), test.scores, None)
    case = Case(test, pool, truth_of(world), costs_of(plain, range(world.arms), PRICE), world.noise)
    if world.kind == "always the first column":  # the order of the columns is drawn: a label by lot
        case = replace(case, label_noise=1.0)
    return {"source": "simulated", **vars(world), **labelled_study(case, rng)}


def worlds(studies: int) -> Iterator[World]:
    """Yield the simulated studies."""
    grid = itertools.product((0.0, 0.01, 0.03, 0.1), (2, 5), (2_000, 20_000), (False, True), (0.0, 0.02, 0.1))
    each = max(1, studies // 4)
    for number, (difference, arms, inputs, clustered, noise) in enumerate(grid):
        for seed in range(each if inputs < 10_000 else max(1, each // 4)):
            yield World(difference, arms, inputs, clustered, noise, seed=number * 1_000 + seed)
    for number, kind in enumerate(("another pool", "copies", "one giant cluster", "always the first column")):
        for seed in range(studies):
            yield World(0.05, 2, kind=kind, seed=100_000 * (number + 1) + seed)
    for seed in range(5 * studies):
        yield World(0.0, 2, kind="equal options", seed=900_000 + seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--studies", type=int, default=200, help="of each recording and number of options")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: Row = {}
    with ProcessPoolExecutor(options.processes) as pool:
        if options.data.exists():
            plans = [
                Plan(options.data, position, arms, close, seed)
                for position, source in enumerate(recordings(options.data))
                for arms, close in ((2, False), (5, False), (2, True))
                for seed in range(options.studies)
                if not close or close_pairs(source)
            ]
            rows = list(pool.map(recorded, plans, chunksize=8))
            result["options"] = show("recordings: options", grouped(rows, "options"), COLUMNS)
            result["source"] = show("recordings", grouped(rows, "source"), COLUMNS)
        else:
            print(f"{options.data} does not exist: recordings skipped")
        rows = list(pool.map(simulated, worlds(options.studies // 4), chunksize=4))
        plain = [row for row in rows if row["kind"] == "as stated"]
        for key in ("arms", "inputs", "clustered", "noise", "difference"):
            result[f"simulated {key}"] = show(f"simulated: {key}", grouped(plain, key), COLUMNS)
        others = [row for row in rows if row["kind"] != "as stated"]
        result["adversaries"] = show("simulated: the pool", grouped(others, "kind"), EQUAL)
    print(json.dumps({"benchmark": "disagreements", **result}))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
