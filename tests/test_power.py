"""What would settle a study, what evidence is worth, and how large a study must be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tunepoint import Task, decide
from tunepoint.cli.app import app
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.decision.futures import LearningGain, unit_prices
from tunepoint.decision.sample_size import Design, cluster_size, design_of, plan_sizes
from tunepoint.decision.stakes import Stakes, stakes_of
from tunepoint.decision.value_of_information import values_of_information
from tunepoint.decision.verdict import Decision, evidence_of
from tunepoint.errors import EvidenceError
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import joint_scores
from tunepoint.stats.ranges import Range
from tunepoint.trials.table import ArmScores, Table, joint_of

RNG = np.random.default_rng


def table(scores: dict[str, np.ndarray[Any, Any]]) -> Table:
    items = next(iter(scores.values())).shape[1]
    arms = [
        ArmScores(
            name,
            values,
            tuple(map(str, range(len(values)))) if len(values) > 1 else (None,),
            1.0,
            0.0,
            (),
            np.array([]),
            np.array([]),
            np.full((values.size, 3), np.nan),
        )
        for name, values in scores.items()
    ]
    return Table(tuple(map(str, range(items))), tuple(arms), None, (None,) * items, 0)


def close(items: int, lead: float = 0.03, seeds: int = 3, sd: float = 0.0) -> Table:
    """A prompt at .8 and a tuned arm that differs on a sixth of the items and is ahead by exactly this."""
    rng = RNG(3)
    prompted = rng.permutation((np.arange(items) < 0.8 * items).astype(float))
    tuned = np.repeat(prompted[None], seeds, axis=0)
    right, wrong = np.flatnonzero(prompted == 1), np.flatnonzero(prompted == 0)
    for number in range(seeds):
        ahead = lead + sd * (number - seeds // 2)
        tuned[number, rng.choice(wrong, round(items * (0.07 + ahead)), replace=False)] = 1.0
        tuned[number, rng.choice(right, round(items * 0.07), replace=False)] = 0.0
    return table({"prompted": prompted[None], "tuned": tuned})


COSTS = (
    ArmCost("prompted", "prompt", usd_per_query=Range.parse(0.001), deterministic=True),
    ArmCost("tuned", "tuned", upfront_usd=Range.parse(2_000), training_core_seconds=3_600),
)
TRAFFIC = {"queries_per_month": 1_000_000}


def decided(arms: Table, growth: LearningGain | None = None, **task: Any) -> Decision:
    return decide(arms, COSTS, Task.parse({"name": "t", **task}), RNG(0), growth=growth)


def test_evidence_that_costs_more_than_is_at_stake_is_not_recommended() -> None:
    needed = decided(close(200)).evidence_needed
    assert needed is not None and needed.usd is not None and needed.stakes_usd is not None
    assert min(needed.usd.values()) > needed.stakes_usd > 0 and not needed.recommended
    assert needed.why.startswith("Too close to matter at your volume") and "over 12 months" in needed.why


def test_a_score_in_doubt_without_a_price_puts_nothing_at_stake_that_money_measures() -> None:
    decision = decided(close(200), limits={"margin": 0.03})
    assert decision.risks.unacceptable > 0.05 and decision.evidence_needed is not None
    assert decision.evidence_needed.stakes_usd is None and decision.evidence_needed.recommended


def test_where_the_score_is_not_in_doubt_the_saving_is_at_stake() -> None:
    evidence = decided(close(200), limits={"margin": 0.5}).evidence
    total = evidence.total()
    stakes = [stakes_of(evidence, arm) for arm in (0, 1)]
    lost = [np.maximum(0, total[:, arm] - total.min(axis=1)) for arm in (0, 1)]
    assert [known.usd for known in stakes if known] == [float(np.quantile(x, 0.975)) for x in lost]
    words = Stakes(100, months=3, simplest=1).too_close(150, ["dear", "plain"])
    assert "at most $100 over 3 months" in words and "costs about $150" in words
    assert words.endswith("The simplest option will do: plain.")


def test_the_cheapest_way_to_settle_a_study_is_named_first_with_its_price() -> None:
    decision = decided(close(200), limits={"margin": 0.03})
    needed = decision.evidence_needed
    assert decision.verdict == "undecided" and needed is not None and needed.usd is not None
    assert needed.test_items is not None and needed.test_items > 0
    # half a minute at $60 an hour, and answers that cost a thousandth
    assert needed.usd["test_items"] == pytest.approx(needed.test_items * 0.501, rel=0.01)
    assert f"About {needed.test_items:,} more test items (about $" in needed.why
    growth = LearningGain(300, {"tuned": Interval(0.05, 0.045, 0.055)})
    grown = decided(close(200), growth).evidence_needed
    assert grown is not None and grown.usd is not None and grown.training_examples is not None
    assert grown.training_examples in (300, 900, 2_100)
    assert "more training examples" in grown.why
    assert grown.why.index("training") < grown.why.index("test items")  # $150 against many labels


def test_seeds_are_asked_for_where_seeds_are_what_varies() -> None:
    needed = decided(close(5_000, lead=0.045, seeds=5, sd=0.042)).evidence_needed
    assert needed is not None and needed.training_seeds is not None and needed.training_seeds > 0


def test_what_evidence_is_worth_falls_as_the_study_grows() -> None:
    value: dict[str, Any] = {"value": {"error_usd": 0.05}, "traffic": {"queries_per_month": 150_000}}
    small, large = decided(close(60, lead=0.0), **value), decided(close(6_000, lead=0.0), **value)
    assert decided(close(60)).worth == ()
    worth = {value.kind: value for value in small.worth}
    assert set(worth) == {"test_items", "training_seeds"}
    assert worth["test_items"].value_usd > 10 * large.worth[0].value_usd
    assert worth["test_items"].price_usd == pytest.approx(100 * 0.501, rel=0.01)
    assert worth["test_items"].pays and not large.worth[0].pays
    assert worth["training_seeds"].value_usd < worth["test_items"].value_usd


def test_training_examples_are_worth_what_they_gain_at_this_volume() -> None:
    arms, task = close(2_000), Task.parse({"name": "t", "value": {"error_usd": 0.05}, "traffic": TRAFFIC})
    joint = joint_of(arms)
    evidence = evidence_of(arms, COSTS, task, joint, RNG(0))
    growth = LearningGain(100, {"tuned": Interval(0.02, 0.01, 0.03)})
    examples = values_of_information(joint, evidence, unit_prices(arms, COSTS, task), RNG(0), growth)[-1]
    # twice the examples: two points of 12 million answers at 5 cents
    assert examples.kind == "training_examples"
    assert examples.value_usd == pytest.approx(0.02 * 12_000_000 * 0.05, rel=0.35)
    none = values_of_information(
        joint,
        evidence,
        unit_prices(arms, COSTS, task),
        RNG(0),
        replace(growth, gains={"tuned": Interval(0, 0, 0)}),
    )[-1]
    assert none.value_usd == 0


def test_a_planned_size_has_the_power_that_it_promises() -> None:
    design = Design(disagreement=0.16, seed_sd=0.0)
    items = design.items_for(0.03, 0.8)
    assert items == pytest.approx((1.96 + 0.8416) ** 2 * (0.16 - 0.0009) / 0.0009, rel=0.09)
    rng, detected = RNG(1), 0
    for _ in range(300):
        lead = rng.choice([1.0, 0.0, -1.0], p=[0.095, 0.84, 0.065], size=items)
        joint = joint_scores([(0.5 + lead / 2)[None], np.full((1, int(items or 0)), 0.5)])
        detected += compare(joint, [(0, 1)], rng)[0].difference.low > 0
    assert detected / 300 == pytest.approx(0.8, abs=0.07)


def test_clusters_and_seeds_cost_items() -> None:
    plain = Design(seed_sd=0.0).items_for(0.03, 0.8)
    clustered = Design(seed_sd=0.0, cluster_size=11, intraclass=0.1).items_for(0.03, 0.8)
    seeded = Design(seed_sd=0.008, seeds=5).items_for(0.03, 0.8)
    assert plain is not None and clustered is not None and seeded is not None
    assert clustered == pytest.approx(2 * plain, rel=0.07) and seeded > plain
    assert Design(seed_sd=0.05, seeds=3).items_for(0.01, 0.8) is None
    with pytest.raises(EvidenceError, match="at least 2 training seeds, got 1"):
        Design(seeds=1)
    with pytest.raises(EvidenceError, match="lies between 0 and 1, got 3; 3 points"):
        plan_sizes(None, Design(), (3.0,), 0.8)


def test_a_study_tells_the_variances_of_the_next() -> None:
    rng = RNG(4)
    lead = np.repeat(rng.choice([1.0, 0.0, -1.0], p=[0.1, 0.8, 0.1], size=400), 5)
    clusters = np.repeat(np.arange(400), 5)
    joint = joint_scores([(0.5 + lead / 2)[None], np.full((1, 2_000), 0.5)], clusters)
    design = design_of(joint, 0, 1)
    assert design.cluster_size == 5 and design.intraclass == pytest.approx(1.0, abs=0.1)
    assert design.disagreement == pytest.approx(0.2 / 4, abs=0.01) and design.measured


def test_plan_prints_sizes_and_refuses_nonsense(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["plan", "--difference", "0.03"])
    assert shown.exit_code == 0 and "see a difference of 3.0%" in shown.output and "80% power" in shown.output
    wrong = CliRunner().invoke(app, ["plan", "--difference", "3"])
    assert wrong.exit_code == 2 and "3 points are 0.03" in wrong.output
    trials = tmp_path / "trials.jsonl"
    lines = [
        {"arm": arm, "item": str(i), "score": (i * k) % 5 > 0}
        for arm, k in (("a", 1), ("b", 3))
        for i in range(60)
    ]
    trials.write_text("".join(json.dumps({**line, "score": float(line["score"])}) + "\n" for line in lines))
    measured = CliRunner().invoke(app, ["plan", "--study", str(trials)])
    assert measured.exit_code == 0, measured.output
    assert "from the study's trials" in " ".join(measured.output.split())
    trials.write_text('{"arm": "a", "item": "1", "score": 1}\n{"arm": "a", "item": "2", "score": 0}\n')
    alone = CliRunner().invoke(app, ["plan", "--study", str(trials)])
    assert alone.exit_code == 2 and "has one arm" in alone.output


def test_groups_are_counted_as_large_as_an_item_sees_them() -> None:
    from tunepoint import Example

    examples = [Example(str(i), "x", "y", group="a" if i < 3 else None) for i in range(4)]
    assert cluster_size(examples) == pytest.approx((9 + 1) / 4)
