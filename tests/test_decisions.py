from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from tunepoint import ArmCost, Task, Trial, decide, tabulate
from tunepoint.costs.arms_toml import arms_toml, read_arms
from tunepoint.costs.break_even import break_even
from tunepoint.costs.declared_costs import declared_cost, guessed_cost
from tunepoint.costs.prices import dated_prices, money
from tunepoint.costs.simulation import simulate
from tunepoint.data.formats import Format
from tunepoint.decision.differences import _family
from tunepoint.decision.document import document
from tunepoint.decision.rule import Risks
from tunepoint.decision.rule_of_thumb import rule_of_thumb
from tunepoint.decision.sides import best_of, rival_of
from tunepoint.decision.signals import Facts, measure_signals
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.stats.comparisons import Comparison, compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import joint_scores
from tunepoint.stats.ranges import Range, quantiles
from tunepoint.trials.table import Table

RNG = np.random.default_rng
HOURS = Range(8, 8, 8)


def table(
    accuracy: dict[str, float], items: int = 400, *, seeds: int = 1, noise: float = 0.0, **fields: Any
) -> Table:
    """Arms of exactly these accuracies, right on nested sets of items, with some noise."""
    rng = RNG(7)
    order = rng.permutation(items)
    trials = []
    for arm, share in accuracy.items():
        for seed in range(seeds):
            right = np.zeros(items)
            right[order[: round(share * items)]] = 1
            flipped = rng.random(items) < noise
            right[flipped] = 1 - right[flipped]
            trials += [
                Trial(
                    arm=arm,
                    item=str(i),
                    seed=str(seed) if seeds > 1 else None,
                    score=float(right[i]),
                    **fields,
                )
                for i in range(items)
            ]
    return tabulate(trials)


def discordant(both: int, only_one: int, only_other: int, neither: int) -> Table:
    """Two arms with exactly these numbers of items that both, one or neither gets right."""
    first_scores = [1] * both + [1] * only_one + [0] * only_other + [0] * neither
    other = [1] * both + [0] * only_one + [1] * only_other + [0] * neither
    return tabulate(
        [
            Trial(arm=arm, item=str(i), score=score)
            for arm, scores in (("one", first_scores), ("other", other))
            for i, score in enumerate(scores)
        ]
    )


def cost(arm: str, kind: Any = "prompt", **fields: Any) -> ArmCost:
    return ArmCost(arm, kind, **fields)


def task(**sections: Any) -> Task:
    """A task whose labels are still to be paid for, unless it says otherwise."""
    costs = {"labels_owned": False, **sections.pop("costs", {})}
    return Task.parse({"name": "t", "costs": costs, **sections})


def test_labels_that_are_there_cost_nothing_unless_the_task_says_otherwise() -> None:
    arm = cost("a", "tuned", labels=1_000)
    assert simulate([arm], Task.parse({"name": "t"}), 5, RNG(0)).upfront.max() == 0
    assert simulate([arm], task(), 5, RNG(0)).upfront.min() > 100


# -- money ---------------------------------------------------------------------------------


def test_money_is_exact_at_the_edge() -> None:
    assert money(0.1) == Decimal("0.100000")
    assert str(money(1e-7)) == "0.000000"


def test_horizon_cost_by_hand() -> None:
    # 100 labels x 0.5 min x $60/h = $50; 8 h x $60 = $480; 3600 core-seconds x $0.04/h = $0.04;
    # 12 months x ($10 + 1,000 x $0.002) = $144; one retraining of 2 h x $60 = $120, plus $0.04.
    arm = cost(
        "a",
        "tuned",
        labels=100,
        training_core_seconds=3600,
        hours=HOURS,
        monthly_usd=Range(10, 10, 10),
        usd_per_query=Range(0.002, 0.002, 0.002),
        retrain_hours=Range(2, 2, 2),
    )
    known = task(
        traffic={"queries_per_month": 1_000, "horizon_months": 12},
        costs={"label_minutes": 0.5, "hourly_usd": 60, "core_hour_usd": 0.04},
    )
    draws = simulate([arm], known, 10, RNG(0))
    assert draws.upfront[:, 0] == pytest.approx(530.04)
    assert draws.per_month()[:, 0] == pytest.approx(12)
    assert draws.horizon()[:, 0] == pytest.approx(530.04 + 144 + 120.04)
    owned = task(costs={"label_minutes": 0.5, "labels_owned": True})
    assert simulate([arm], owned, 10, RNG(0)).upfront[:, 0] == pytest.approx(480.04)


@pytest.mark.parametrize(("months", "repeats"), [(3, 0), (6, 0), (7, 1), (12, 1), (13, 2), (24, 3)])
def test_retraining_happens_within_the_horizon_not_at_its_end(months: float, repeats: int) -> None:
    draws = simulate([cost("a")], task(traffic={"horizon_months": months}), 2, RNG(0))
    assert draws.repeats == repeats


def test_break_even_by_hand() -> None:
    # Building costs $1,200 more, a query $0.001 less: over 12 months 1,200 / (12 x 0.001) =
    # 100,000 queries a month; at 50,000 a month $50 a month are saved: 24 months = 730.5 days.
    cheap = cost("prompt", usd_per_query=Range(0.002, 0.002, 0.002))
    dear = cost(
        "tuned", "tuned", upfront_usd=Range(1200, 1200, 1200), usd_per_query=Range(0.001, 0.001, 0.001)
    )
    draws = simulate([cheap, dear], task(traffic={"queries_per_month": 50_000}), 100, RNG(0))
    for pair in ((0, 1), (1, 0)):
        crossing = break_even(draws, *pair)
        assert (crossing.cheaper_to_build, crossing.cheaper_to_run) == ("prompt", "tuned")
        assert crossing.queries_per_month is not None and crossing.payback_days is not None
        assert crossing.queries_per_month.likely == pytest.approx(100_000)
        assert crossing.payback_days.likely == pytest.approx(730.5)
        assert crossing.probability_never == 0
    worth = np.tile([0.0, 0.005], (100, 1))
    never = break_even(draws, 0, 1, worth=worth)
    assert never.probability_never == 1 and never.queries_per_month is None
    same = break_even(draws, 0, 0)
    assert same.queries_per_month is None and same.probability_never == 1  # it is never cheaper than itself


def test_uncertain_ranges_give_a_band_and_shared_rates_do_not_blur_differences() -> None:
    arms = [cost("a", labels=100), cost("b", labels=100)]
    draws = simulate(arms, task(costs={"label_minutes": [0.2, 0.5, 2]}), 1_000, RNG(0))
    assert draws.upfront[:, 0].std() > 5
    assert draws.upfront[:, 0] == pytest.approx(draws.upfront[:, 1])
    band = quantiles(draws.upfront[:, 0])
    assert band.low < band.likely < band.high


def test_prices_are_dated_and_sourced() -> None:
    price = dated_prices()["core_hour_usd"]
    assert price.value == Decimal("0.04") and price.source
    assert price.age_days(price.checked) == 0


def arms_file(folder: Path, text: str) -> Path:
    path = folder / "arms.toml"
    path.write_text(text)
    return path


def test_declared_costs_by_hand(tmp_path: Path) -> None:
    # 1,000 input tokens of which 400 cached, 50 output: 600 x 0.15 + 400 x 0.075 + 50 x 0.6 = 150
    # dollars a million, so $0.00015 a query.
    path = arms_file(
        tmp_path,
        """
[[arm]]
name = "tokens"
kind = "prompt"
price = { input = 0.15, cached_input = 0.075, output = 0.60 }
[[arm]]
name = "seconds"
kind = "tuned"
upfront_usd = [100, 200, 400]
monthly_usd = 5
usd_per_second = 0.001
[[arm]]
name = "flat"
kind = "incumbent"
usd_per_query = 0.003
""",
    )
    declared = read_arms(path)
    measured = table(
        {"tokens": 0.5, "seconds": 0.5, "flat": 0.5, "plain": 0.5},
        10,
        input_tokens=1000,
        cached_tokens=400,
        output_tokens=50,
        seconds=2.0,
    )
    costs = {a.arm: declared_cost(declared[a.arm], a) for a in measured.arms if a.arm in declared}
    assert costs["tokens"].usd_per_query.likely == pytest.approx(0.00015)
    assert costs["seconds"].usd_per_query.likely == pytest.approx(0.002)
    assert costs["seconds"].upfront_usd == Range(100, 200, 400)
    assert costs["flat"].usd_per_query.likely == 0.003
    bare = table({"tokens": 0.5, "seconds": 0.5}, 10)
    with pytest.raises(TrialsError, match="10 of its 10 trials lack"):
        declared_cost(declared["tokens"], bare.arms[0])
    greedy = [Trial(arm="tokens", item="1", score=1, input_tokens=10, cached_tokens=100, output_tokens=1)]
    with pytest.raises(TrialsError, match="100 cached of 10 input tokens"):
        declared_cost(declared["tokens"], tabulate(greedy).arms[0])
    partly = [
        Trial(arm="tokens", item="1", score=1, input_tokens=1000, cached_tokens=400, output_tokens=50),
        Trial(arm="tokens", item="2", score=1, input_tokens=1000, output_tokens=50),
    ]
    # the second, without cached tokens: 1,000 x 0.15 + 50 x 0.6 = 180; the mean of 150 and 180
    mixed = declared_cost(declared["tokens"], tabulate(partly).arms[0])
    assert mixed.usd_per_query.likely == pytest.approx(0.000165)
    with pytest.raises(TrialsError, match="price per second, but its trials have no seconds"):
        declared_cost(declared["seconds"], bare.arms[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "expected only"),
        ("[[arm]]\nname = 'a'\nkind = 'prompt'\nprise = 1", "unknown key 'prise'; did you mean 'price'"),
        ("[[arm]]\nname = 'a'\nkind = 'magic'", "kind"),
        ("[[arm]]\nname = 'a'\nkind = 'prompt'\n[[arm]]\nname = 'a'\nkind = 'prompt'", "described twice"),
        ("[[arm]]\nname = 'a'\nkind = 'prompt'\nusd_per_query = 1\nusd_per_second = 1", "give one of"),
        ("[[arm", "not valid TOML"),
    ],
)
def test_mistakes_in_arms_toml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrialsError, match=message):
        read_arms(arms_file(tmp_path, text))
    with pytest.raises(TrialsError, match="no such file"):
        read_arms(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gpt, 5-shot", "prompt"),
        ("LoRA r16", "tuned"),
        ("fine-tuned mini", "tuned"),
        ("current prompt", "incumbent"),
        ("router", "cascade"),
        ("hybrid x", "hybrid"),
    ],
)
def test_kinds_are_guessed_and_said(name: str, kind: str) -> None:
    guessed = guessed_cost(table({name: 0.5}, 4, cost_usd=0.1).arms[0])
    assert guessed.kind == kind
    assert "guessed" in guessed.notes[0]
    assert guessed.usd_per_query.likely == pytest.approx(0.1)
    assert any("free" in note for note in guessed_cost(table({name: 0.5}, 4).arms[0]).notes)


# -- labels ----------------------------------------------------------------------------------


def test_people_read_labels_and_files_keep_names(tmp_path: Path) -> None:
    arms = table({"arm-1": 0.60, "tuned-2": 0.90})
    costs = [cost("arm-1", label="gpt, zero-shot"), cost("tuned-2", "tuned", hours=HOURS)]
    path = arms_file(tmp_path, arms_toml(costs))
    assert [arm.label for arm in read_arms(path).values()] == ["gpt, zero-shot", None]
    declared = [declared_cost(read_arms(path)[scores.arm], scores) for scores in arms.arms]
    assert [arm_cost.title for arm_cost in declared] == ["gpt, zero-shot", "tuned-2"]
    decision = decide(arms, costs, task(), RNG(0))
    assert decision.titles == {"arm-1": "gpt, zero-shot", "tuned-2": "tuned-2"}
    content = document(decision, task(), [], today=date(2026, 1, 1))
    assert [finalist.get("label") for finalist in content["finalists"]] == ["gpt, zero-shot", None]
    assert content["differences"][0]["against"] == "arm-1" and content["tornado"]["against"] == "arm-1"
    sentences = " ".join((content["because"], *content["reversal"], *content["caveats"]))
    assert "points more than gpt, zero-shot" in sentences and "arm-1" not in sentences


def test_without_a_price_of_errors_the_verdict_says_which_price_it_implies() -> None:
    """Tuned: $1,200 upfront, 30 points better; 12 x 1,000 answers: $1,200 / (12,000 x .3) = $0.33."""
    arms = table({"prompt": 0.60, "tuned": 0.90})
    costs = [cost("prompt"), cost("tuned", "tuned", upfront_usd=Range(1_200, 1_200, 1_200))]
    traffic = {"queries_per_month": 1_000, "horizon_months": 12}
    content = document(decide(arms, costs, task(traffic=traffic), RNG(0)), task(), [], today=date(2026, 1, 1))
    points = content["differences"][0]["estimate"]
    assert content["winner"] == "tuned"
    assert content["implied_error_usd"] == {
        "better": "tuned",
        "other": "prompt",
        "usd": pytest.approx(1_200 / (12_000 * points)),
        "chosen": True,
    }
    price = f"${1_200 / (12_000 * points):.2f}"
    assert (
        f"worth its price against prompt if a wrong answer costs you more than {price}" in content["because"]
    )
    busy = decide(arms, costs, task(traffic={**traffic, "queries_per_month": 1_000_000}), RNG(0))
    assert (
        "if 1,000 wrong answers cost you more than $0.3"
        in document(busy, task(), [], today=date(2026, 1, 1))["because"]
    )
    priced = decide(arms, costs, task(traffic=traffic, value={"error_usd": 0.4}), RNG(0))
    assert document(priced, task(), [], today=date(2026, 1, 1))["implied_error_usd"] is None
    free = decide(arms, [cost("prompt"), cost("tuned", "tuned")], task(traffic=traffic), RNG(0))
    assert (
        document(free, task(), [], today=date(2026, 1, 1))["implied_error_usd"] is None
    )  # better, and no dearer


@pytest.mark.parametrize(
    ("kinds", "rival"),
    [
        (("tuned", "prompt", "hybrid", "incumbent"), 3),
        (("prompt", "prompt", "cascade", "tuned"), 3),
        (("tuned", "hybrid", "cascade", "tuned"), 3),
        (("tuned", "baseline", "prompt", "baseline"), 2),
        (("tuned", "baseline", "hybrid", "cascade"), 1),
        (("prompt", "tuned", "cascade", "baseline"), 2),
        (("prompt", "baseline", "incumbent", "prompt"), 1),
        (("baseline", "baseline", "tuned", "prompt"), 3),
    ],
)
def test_the_rival_is_the_best_on_the_other_side_else_a_control_else_the_best_of_all(
    kinds: Any, rival: int
) -> None:
    assert rival_of(kinds, [0.9, 0.5, 0.6, 0.7], 0) == rival
    assert best_of(kinds, [0.9, 0.5, 0.6, 0.7], ("prompt",)) in (None, 0, 1, 2, 3)


# -- the rule ------------------------------------------------------------------------------


def test_a_clearly_better_arm_wins_with_confidence() -> None:
    arms = table({"zero-shot": 0.60, "tuned": 0.90})
    costs = [cost("zero-shot"), cost("tuned", "tuned", hours=HOURS)]
    decision = decide(arms, costs, task(), RNG(0))
    assert (decision.verdict, decision.strength, decision.winner) == ("fine-tune", "confident", "tuned")
    assert decision.differences[0].conclusion == "better"
    assert decision.finalist("tuned").probability_best > 0.99
    assert decision.evidence_needed is None


def test_of_equal_arms_the_materially_cheaper_one_wins() -> None:
    arms = table({"dear": 0.90, "cheap": 0.895}, 4_000)
    costs = [cost("dear", "tuned", hours=HOURS), cost("cheap", hours=Range(1, 1, 1))]
    decision = decide(arms, costs, task(), RNG(0))
    assert (decision.winner, decision.strength, decision.verdict) == ("cheap", "confident", "prompt")
    assert decision.differences[0].conclusion == "not worse" or decision.differences[0].difference.high < 0


def test_too_few_items_are_undecided_and_say_how_many_more() -> None:
    arms = discordant(40, 6, 9, 5)
    costs = [cost("one", hours=Range(1, 1, 1)), cost("other", "tuned", hours=HOURS)]
    decision = decide(arms, costs, task(), RNG(0))
    assert decision.verdict == "undecided" and decision.strength is None
    needed = decision.evidence_needed
    assert needed is not None and needed.test_items is not None and needed.test_items > 60
    assert f"{needed.test_items:,} more test items" in needed.why


def test_more_items_of_the_same_kind_settle_what_few_left_open() -> None:
    costs = [cost("one", hours=Range(1, 1, 1)), cost("other", "tuned", hours=HOURS)]
    few = decide(discordant(40, 6, 8, 6), costs, task(), RNG(0))
    many = decide(discordant(4_000, 600, 800, 600), costs, task(), RNG(0))
    assert few.strength is None
    assert (many.strength, many.winner) == ("confident", "other")


def test_a_true_tie_at_the_margin_cannot_be_settled_by_items() -> None:
    arms = table({"one": 0.80, "other": 0.82}, 20_000, noise=0.2)
    costs = [cost("one", hours=Range(1, 1, 1)), cost("other", "tuned", hours=HOURS)]
    shift = arms.arms[0].scores.mean() - arms.arms[1].scores.mean()
    decision = decide(arms, costs, task(limits={"margin": float(-shift)}), RNG(0))
    assert decision.strength is None
    assert decision.evidence_needed is not None


def test_an_error_has_a_price_and_then_score_is_money() -> None:
    arms = table({"cheap": 0.90, "dear": 0.92}, 4_000)
    costs = [cost("cheap", hours=Range(1, 1, 1)), cost("dear", "tuned", hours=HOURS)]
    traffic = {"queries_per_month": 100_000}
    rich = decide(arms, costs, task(value={"error_usd": 1.0}, traffic=traffic), RNG(0))
    assert (rich.winner, rich.strength) == ("dear", "confident")
    regret = rich.finalist("cheap").expected_regret_usd
    # 12 x 100,000 x 0.02 errors at $1 less the $420 that building costs more.
    assert regret == pytest.approx(24_000 - 420, rel=0.15)
    poor = decide(arms, costs, task(value={"error_usd": 0.001}, traffic={"queries_per_month": 100}), RNG(0))
    assert poor.winner == "cheap"
    assert any("queries a month, dear" in line for line in poor.reversal)


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        ({"p95_seconds": 0.5}, "p95"),
        ({"upfront_usd": 100}, "build cost"),
        ({"monthly_usd": 1}, "a month"),
        ({"min_score": 0.95}, "under the limit of 0.95"),
    ],
)
def test_an_arm_that_misses_a_limit_is_not_chosen(limits: dict[str, float], missed: str) -> None:
    rng = RNG(0)
    trials = [
        Trial(arm=arm, item=str(i), score=float(rng.random() < p), seconds=s)
        for arm, p, s in (("good", 0.94, 1.0), ("fast", 0.80, 0.1))
        for i in range(300)
    ]
    costs = [cost("good", "tuned", hours=HOURS, monthly_usd=Range(10, 10, 10)), cost("fast")]
    decision = decide(tabulate(trials), costs, task(limits=limits), RNG(0))
    assert missed in decision.finalist("good").misses[0]
    if "min_score" in limits:
        assert decision.verdict == "undecided"
        assert decision.evidence_needed is not None and "No option meets" in decision.evidence_needed.why
        assert any("No option meets every limit" in caveat for caveat in decision.caveats)
    else:
        assert decision.winner == "fast"


def test_a_latency_limit_without_seconds_is_not_met() -> None:
    decision = decide(
        table({"a": 0.9, "b": 0.5}), [cost("a"), cost("b")], task(limits={"p95_seconds": 1}), RNG(0)
    )
    assert "no seconds" in decision.finalist("a").misses[0]


def test_kinds_map_to_verdicts_and_seeds_enter() -> None:
    arms = table({"base": 0.5, "best": 0.9}, 300, seeds=3, noise=0.02)
    for kind, verdict in (("hybrid", "hybrid"), ("cascade", "hybrid"), ("incumbent", "keep")):
        decision = decide(arms, [cost("base"), cost("best", kind)], task(), RNG(0))
        assert decision.verdict == verdict


def test_the_same_seed_gives_the_same_decision() -> None:
    arms, costs = table({"a": 0.8, "b": 0.82}, noise=0.1), [cost("a"), cost("b", "tuned")]
    first, other = (decide(arms, costs, task(), RNG(5)) for _ in range(2))
    assert first.finalists == other.finalists and first.risks == other.risks


def test_format_failures_few_groups_and_single_seeds_are_caveats() -> None:
    trials = [
        Trial(arm=a, item=str(i), score=i % 2, format_ok=a == "b" or i > 3) for a in "ab" for i in range(10)
    ]
    decision = decide(tabulate(trials), [cost("a"), cost("b", "tuned")], task(), RNG(0))
    text = " ".join(decision.caveats)
    assert "A format failure is not an inability" in text.replace("\n", " ")
    assert "Only 10 independent groups" in text
    assert "one training seed" in text


def test_five_items_are_enough_to_say_that_they_are_not_enough() -> None:
    costs = [cost("one", hours=Range(1, 1, 1)), cost("other", "tuned", hours=HOURS)]
    decision = decide(discordant(1, 2, 2, 0), costs, task(), RNG(0))
    assert decision.verdict == "undecided"
    assert any("Only 5 independent groups" in caveat for caveat in decision.caveats)


def test_one_arm_is_no_decision() -> None:
    with pytest.raises(EvidenceError, match="at least 2 arms, got 1"):
        decide(table({"a": 0.8}), [cost("a")], task(), RNG(0))


def test_limits_are_tested_again_at_other_volumes() -> None:
    """The better arm costs a cent; at most $50 a month allows it up to 5,000 queries a month."""
    measured = table({"cheap": 0.7, "dear": 0.9}, 2_000)
    costs = [cost("cheap"), cost("dear", usd_per_query=Range(0.01, 0.01, 0.01))]
    low = task(limits={"monthly_usd": 50}, traffic={"queries_per_month": 1_000})
    high = task(limits={"monthly_usd": 50}, traffic={"queries_per_month": 40_000})
    small, large = (decide(measured, costs, t, RNG(0)) for t in (low, high))
    assert small.winner == "dear" and large.winner == "cheap"
    assert any(line.startswith("Above about 5") and "cheap" in line for line in small.reversal)
    assert any(line.startswith("Below about") and "dear" in line for line in large.reversal)


def test_scores_near_zero_are_doubted() -> None:
    decision = decide(table({"a": 0.0, "b": 0.0}), [cost("a"), cost("b")], task(), RNG(0))
    assert any("check the item names" in line for line in decision.caveats)


def test_strength_at_its_bounds() -> None:
    assert Risks(0.03, 0.02, 0.05).strength == "confident"
    assert Risks(0.03, 0.03, 0.051).strength == "leaning"
    assert Risks(0, 0.2, 0.2).strength == "leaning"
    assert Risks(0.1, 0.15, 0.201).strength is None


@pytest.mark.slow
def test_confident_verdicts_are_rarely_wrong() -> None:
    """Two arms, the dearer one truly better by .03: 'prompt' is wrong, however it comes out."""
    wrong = confident = 0
    for number in range(400):
        rng = RNG(number)
        hard = rng.normal(0, 1, 300)
        trials = [
            Trial(arm=arm, item=str(i), score=float(hard[i] + noise > -shift))
            for arm, shift in (("prompt", 1.0), ("tuned", 1.16))
            for i, noise in enumerate(rng.normal(0, 0.5, 300))
        ]
        costs = [cost("prompt", hours=Range(1, 1, 1)), cost("tuned", "tuned", hours=HOURS)]
        decision = decide(tabulate(trials), costs, task(), rng)
        confident += decision.strength == "confident"
        wrong += decision.strength == "confident" and decision.verdict == "prompt"
    assert wrong <= 0.05 * 400, (wrong, confident)


# -- signals -------------------------------------------------------------------------------


NOTHING_KNOWN = Facts()


def signals(facts: Facts = NOTHING_KNOWN, **sections: Any) -> dict[str, Any]:
    rng = RNG(0)
    trials = [
        Trial(arm=arm, item=str(i), score=float(rng.random() < p), seconds=s)
        for arm, p, s in (("zero-shot", 0.7, 0.3), ("tuned", 0.9, 0.1))
        for i in range(200)
    ]
    costs = [cost("zero-shot", usd_per_query=Range(0.01, 0.01, 0.01)), cost("tuned", "tuned", hours=HOURS)]
    known = task(**sections)
    decision = decide(tabulate(trials), costs, known, RNG(0))
    return {signal.id: signal for signal in measure_signals(decision, known, facts)}


def test_signals_without_facts_say_that_they_are_not_measured() -> None:
    measured = signals()
    assert list(measured) == ["P1", "P2", "P3", "P4", "P5", "F1", "F2", "F3", "F4", "F5", "H1", "H2"]
    for name in ("P1", "P3", "P4", "P5", "F2", "F3", "H1", "H2"):
        assert measured[name].holds is None and "not measured" in measured[name].detail
    assert measured["P2"].holds is False
    assert measured["F4"].holds is True and "fine-tuning pays off above" in measured["F4"].detail


def test_signals_with_facts_measure() -> None:
    wide, gain = Interval(0.0, -0.01, 0.01), Interval(0.05, 0.02, 0.08)
    far = Interval(-0.2, -0.3, -0.1)
    measured = signals(
        Facts(
            revisions=2,
            novelty=0.1,
            far_slice=far,
            examples=600,
            thinnest=30,
            format=Format("one of the labels", 1.0),
            ceiling=wide,
            light_prompt=gain,
        ),
        limits={"upfront_usd": 100, "p95_seconds": 0.2},
        declared={"newest_models": True},
    )
    for name in ("P1", "P3", "P4", "P5", "F2", "F3", "F5", "H2"):
        assert measured[name].holds is True, measured[name]
    assert measured["F1"].holds is False
    declared = signals(Facts(revisions=9), declared={"requirements_change": False})
    assert declared["P1"].holds is False


def test_rule_of_thumb() -> None:
    assert "prompt" in rule_of_thumb(9_999)
    assert "math" in rule_of_thumb(50_000)
    assert "fine-tune" in rule_of_thumb(100_001)


def test_arms_far_behind_leave_the_family_of_pairs_and_the_intervals_still_hold() -> None:
    rng = np.random.default_rng(5)
    truth = np.array([0.8, 0.79, 0.5, 0.45, 0.4])
    narrower, holds = [], []
    for _ in range(200):
        hard = rng.normal(size=400)
        ease = [(hard + rng.normal(size=400)) / 2**0.5 for _ in truth]
        scores = [(z < norm.ppf(t)).astype(float) for z, t in zip(ease, truth, strict=True)]
        joint = joint_scores([arm[None] for arm in scores])
        comparisons = _family(joint, 0, 0.02, rng)
        assert [comparison.against for comparison in comparisons] == [1, 2, 3, 4]
        beside = [(i, j) for i in range(1, 5) for j in range(1, i)]
        whole = compare(joint, [(0, 1), (0, 2), (0, 3), (0, 4)], rng, beside=beside)
        narrower.append(_width(comparisons[0]) / _width(whole[0]))
        holds.append(all(truth[0] - truth[c.against] in c.difference for c in comparisons))
    assert np.mean(narrower) < 0.85 and np.mean(holds) >= 0.94


def _width(comparison: Comparison) -> float:
    return comparison.difference.high - comparison.difference.low


def test_without_an_arm_far_behind_the_family_is_whole() -> None:
    rng = np.random.default_rng(6)
    joint = joint_scores([(rng.random(200) < 0.8).astype(float)[None] for _ in range(3)])
    whole = compare(joint, [(0, 1), (0, 2)], np.random.default_rng(7), beside=[(2, 1)])
    assert _family(joint, 0, 0.02, np.random.default_rng(7)) == whole
