"""The sealed test: what a killed run, a changed wish or a spending cap leaves costs no arm its items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Fake
from test_chat_study import asked, extract, goods, task

from tunepoint import Task, decide, run, tabulate
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.declared_costs import guessed_cost
from tunepoint.decision.futures import unit_prices
from tunepoint.errors import TaskError, TrialsError
from tunepoint.stats.comparisons import compare
from tunepoint.stats.exact import exact_difference
from tunepoint.stats.ranges import Range
from tunepoint.study.holdout import usable
from tunepoint.study.quote import Quote
from tunepoint.trials.table import joint_of
from tunepoint.trials.trial import Trial

pytestmark = pytest.mark.usefixtures("chat_alone")

RNG = np.random.default_rng


@pytest.fixture
def fake() -> Any:
    from servers import serving

    with serving(Fake(extract)) as running:
        yield running


class Runs:
    """An arm, as far as its runs go."""

    def __init__(self, name: str, seeds: int = 1, decodes: int = 1) -> None:
        self.name, self.seeds, self.decodes = name, seeds, decodes

    def decoded(self, number: int) -> Runs:
        return self


def answered(arm: str, items: int, seed: str | None = None, decode: str | None = None) -> list[Trial]:
    return [Trial(arm=arm, item=str(i), score=i % 3 > 0, seed=seed, decode=decode) for i in range(items)]


def test_a_seed_that_was_killed_half_way_is_left_out_and_a_whole_one_is_used() -> None:
    arms: Any = [Runs("a", seeds=2), Runs("b")]
    own = [*answered("a", 40, "0"), *answered("a", 40, "1"), *answered("b", 40)]
    half, whole = answered("a", 7, "2"), answered("a", 40, "2")
    assert len(tabulate(usable([*own, *half], arms)).items) == 40
    assert tabulate(usable([*own, *half], arms)).arms[0].seeds == ("0", "1")
    assert tabulate(usable([*own, *whole], arms)).arms[0].seeds == ("0", "1", "2")


def test_decodes_that_are_not_asked_for_any_more_cost_no_item() -> None:
    trials = [*answered("a", 36), *answered("b", 36), *answered("a", 6, decode="1")]
    single: Any = [Runs("a"), Runs("b")]
    three: Any = [Runs("a", decodes=3), Runs("b", decodes=3)]
    assert len(tabulate(usable(trials, single)).items) == 36
    assert len(tabulate(usable(trials, three)).items) == 36  # the mean of the decodes there are
    assert tabulate(usable(trials, three)).arms[0].decodes == ()


def test_items_asked_twice_are_the_mean_of_their_answers_and_no_other_is_lost() -> None:
    trials = [*answered("a", 200), *answered("b", 200)]
    twice = [t.model_copy(update={"decode": "1", "score": 0.0}) for t in answered("a", 20)]
    table = tabulate([*trials, *twice])
    assert len(table.items) == 200
    assert table.arms[0].scores[0, 1] == 0.5 and table.arms[0].answers == pytest.approx(1.1)


def test_lines_with_and_without_a_seed_are_said_and_slices_come_from_any_line() -> None:
    mixed = [*answered("a", 100)[:50], *answered("a", 100, "0")[50:], *answered("b", 100)]
    with pytest.raises(TrialsError, match=r"arm 'a': its training seeds \(no seed, seed 0\) share no item"):
        tabulate(mixed)
    sliced = [t.model_copy(update={"slice": "x"}) for t in answered("b", 5)]
    assert tabulate([*answered("a", 5), *sliced]).slices == ("x",) * 5
    with pytest.raises(TrialsError, match="item '0' is in slice 'y' and in 'x'"):
        tabulate([*[t.model_copy(update={"slice": "y"}) for t in answered("a", 5)], *sliced])


@pytest.mark.no_cover  # what it runs, others cover
def test_raising_the_decodes_of_a_finished_study_asks_again_and_quotes_first(
    fake: Fake, tmp_path: Path
) -> None:
    folder, out, quotes = goods(tmp_path, 60), tmp_path / "study", list[Quote]()
    model = asked(fake)
    run(task(folder, fake, models=[model]), out=out)
    calls = len(fake.calls)
    raised = {"models": [{**model, "decodes": 3}]}
    result = run(task(folder, fake, **raised), out=out, confirm=quotes.append)
    assert quotes and len(fake.calls) > calls
    assert all(f["standard_errors"]["decodes"] is not None for f in result.document["finalists"])
    items, quotes = result.decision.items, []
    run(task(folder, fake, **raised), out=out, confirm=quotes.append)
    assert not quotes
    fewer = run(task(folder, fake, models=[model]), out=out)
    assert fewer.decision.items == items
    with pytest.raises(TaskError, match="two decodes say next to nothing"):
        task(folder, fake, models=[{**model, "decodes": 2}])


@pytest.mark.no_cover  # what it runs, others cover
def test_a_cap_that_ends_the_buying_leaves_a_verdict_on_the_whole_rounds(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepoint.study.holdout.FIRST_ROUND", 10)
    monkeypatch.setattr("tunepoint.study.holdout.NEXT_ROUND", 5)
    folder, out = goods(tmp_path, 70), tmp_path / "study"
    cheap: dict[str, Any] = {"value": {"error_usd": 1e-9}, "traffic": {"queries_per_month": 10}}
    first = run(task(folder, fake, **cheap), out=out)
    spent = json.loads((out / "manifest.json").read_text())["spent_usd"]
    dear: dict[str, Any] = {"value": {"error_usd": 1_000}, "traffic": {"queries_per_month": 1_000_000}}
    capped = run(task(folder, fake, **dear), out=out, max_usd=spent + 0.0101)
    assert capped.decision.items >= first.decision.items == 10
    assert any("buying evidence ended after" in caveat for caveat in capped.decision.caveats)
    spending = json.loads((out / "manifest.json").read_text())
    assert spending["spent_usd"] <= spent + 0.0101 and not spending["bought"]["stopped"]
    on = run(task(folder, fake, **dear), out=out)
    assert on.decision.items > capped.decision.items
    assert not any("buying evidence ended" in caveat for caveat in on.decision.caveats)


def test_an_item_costs_every_answer_to_it_and_a_logged_one_costs_none() -> None:
    plain = Task.parse({"name": "t", "costs": {"label_minutes": 0, "hourly_usd": 60}})
    dear = Range.parse(0.01)
    trials = [*answered("a", 30), *answered("a", 30, decode="1"), *answered("a", 30, decode="2")]
    table = tabulate([*trials, *answered("log", 30), *answered("b", 30, "0"), *answered("b", 30, "1")])
    costs = [
        ArmCost("a", "prompt", usd_per_query=dear, deterministic=True),
        ArmCost("log", "incumbent", usd_per_query=dear),
        ArmCost("b", "tuned", usd_per_query=dear),
    ]
    prices = unit_prices(table, costs, plain)
    assert prices.item == pytest.approx(0.03 + 0 + 0.02)
    assert prices.seed == pytest.approx(30 * 0.01)


# -- few items, and scores near the top ---------------------------------------------------------


def test_fewer_than_eight_groups_give_no_verdict_whatever_they_show() -> None:
    def decision(items: int) -> Any:
        good = [Trial(arm="a", item=str(i), score=1) for i in range(items)]
        bad = [Trial(arm="b", item=str(i), score=0) for i in range(items)]
        table = tabulate([*good, *bad])
        return decide(table, [guessed_cost(arm) for arm in table.arms], Task.parse({"name": "t"}), RNG(0))

    few = decision(7)
    assert few.verdict == "undecided" and few.winner == "a"
    assert any("7 independent groups of test items decide nothing" in caveat for caveat in few.caveats)
    assert few.differences[0].bootstrap == few.differences[0].difference
    assert decision(40).strength is not None


def test_few_differing_groups_have_the_p_value_of_their_signs() -> None:
    """Three of three: 2 / 2**3; five of a hundred, all one way: 2 / 2**5 (Fisher's sign test)."""
    ones = np.ones((1, 3))
    comparison = compare(joint_of_scores(ones, 1 - ones), [(0, 1)], RNG(0))[0]
    assert comparison.p_value == pytest.approx(0.25)
    base = np.ones((1, 100))
    worse = base.copy()
    worse[0, :5] = 0
    assert compare(joint_of_scores(base, worse), [(0, 1)], RNG(0))[0].p_value == pytest.approx(2 / 32)


@pytest.mark.no_cover  # what it runs, others cover
def test_arms_that_hardly_differ_have_a_narrow_interval_that_holds() -> None:
    rng, covered, widths = RNG(7), 0, []
    groups, size, up, down = 60, 5, 0.02, 0.01
    codes = np.repeat(np.arange(groups), size)
    for _ in range(300):
        sign = rng.choice([1.0, -1.0, 0.0], p=[up, down, 1 - up - down], size=groups)
        lead = sign[codes] * (np.tile(np.arange(size), groups) < rng.integers(1, size + 1, groups)[codes])
        interval = exact_difference(lead, codes, level=0.95)
        covered += (up - down) * 3 / 5 in interval
        widths.append(interval.high - interval.low)
    assert covered / 300 >= 0.95 and np.mean(widths) < 0.15  # by betting it is .3 and more


def joint_of_scores(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> Any:
    trials = [
        Trial(arm=arm, item=str(i), score=float(score))
        for arm, scores in (("a", first), ("b", second))
        for i, score in enumerate(scores[0])
    ]
    return joint_of(tabulate(trials))


def test_arms_that_are_right_all_the_time_are_told_apart_by_no_fifty_items() -> None:
    def wrong(items: int) -> float:
        table = tabulate([Trial(arm=arm, item=str(i), score=1) for arm in "ab" for i in range(items)])
        costs = [
            ArmCost("a", "prompt", usd_per_query=Range.parse(0.001), deterministic=True),
            ArmCost("b", "prompt", usd_per_query=Range.parse(0.01), deterministic=True),
        ]
        task_ = Task.parse({"name": "t", "traffic": {"queries_per_month": 1_000_000}})
        return decide(table, costs, task_, RNG(0)).risks.unacceptable

    risks = [wrong(items) for items in (50, 100, 150, 250)]
    assert risks == sorted(risks, reverse=True)
    # none of 50 items shows a difference of 2 points with .98 ** 50 = .36, none of 100 with .13
    assert risks[0] > 0.2 and risks[1] > 0.05 and risks[3] < 0.05


@pytest.mark.no_cover  # what it runs, others cover
def test_confident_verdicts_near_the_top_are_wrong_in_a_twentieth_at_most() -> None:
    """A cheap arm that is right in 97.5%, against a dear one that always is: beyond the margin."""
    rng, confident_and_wrong, studies = RNG(5), 0, 40
    costs = [
        ArmCost("a", "prompt", usd_per_query=Range.parse(0.001), deterministic=True),
        ArmCost("b", "prompt", usd_per_query=Range.parse(0.01), deterministic=True),
    ]
    task_ = Task.parse({"name": "t", "traffic": {"queries_per_month": 1_000_000}})
    for _ in range(studies):
        right = (rng.random(70) < 0.975).astype(float)
        trials = [Trial(arm="a", item=str(i), score=float(s)) for i, s in enumerate(right)]
        table = tabulate([*trials, *(Trial(arm="b", item=str(i), score=1) for i in range(70))])
        decision = decide(table, costs, task_, rng)
        confident_and_wrong += decision.strength == "confident" and decision.winner == "a"
    assert confident_and_wrong / studies <= 0.05
