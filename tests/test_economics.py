"""What arms cost by hosting mode and over time, each restated by hand."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decisions import cost, task
from test_report import CHROMIUM

from tunepoint import Task, decide_trials
from tunepoint.costs.arms_toml import arms_toml, read_arms
from tunepoint.costs.break_even import break_even
from tunepoint.costs.prices import money
from tunepoint.costs.schedule import Schedule
from tunepoint.costs.simulation import simulate
from tunepoint.costs.tornado import tornado
from tunepoint.errors import TaskError, TrialsError
from tunepoint.stats.ranges import Range, quantiles
from tunepoint.task.hosting import Dedicated, usd_per_thousand

RNG = np.random.default_rng


def flat(value: float) -> Range:
    return Range(value, value, value)


def always_on(**fields: Any) -> Dedicated:
    return Dedicated(**{"usd_per_hour": flat(0.526), "requests_per_second": 10.0, **fields})


# -- hosting modes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usd_per_thousand_calls", "million_calls"), [(0.896, 0.43), (0.217, 1.77), (0.107, 3.59)]
)
def test_the_published_case_of_an_always_on_machine(
    usd_per_thousand_calls: float, million_calls: float
) -> None:
    # $0.526 an hour x 730 hours = $383.98 a month; against $0.896, $0.217 and $0.107 for 1,000 calls
    # it breaks even at 0.43, 1.77 and 3.59 million calls a month.
    prompted = cost("prompted", usd_per_query=flat(usd_per_thousand_calls / 1_000))
    tuned = cost("tuned 4B", "tuned", dedicated=always_on())
    draws = simulate([prompted, tuned], task(), 20, RNG(0))
    assert draws.per_month(1.0)[:, 1] == pytest.approx(383.98)
    crossing = break_even(draws, 0, 1)
    assert (crossing.cheaper_to_build, crossing.cheaper_to_run) == ("prompted", "tuned 4B")
    assert crossing.queries_per_month is not None and crossing.probability_never == 0
    assert crossing.queries_per_month.likely == pytest.approx(
        383.98 / usd_per_thousand_calls * 1_000, rel=1e-6
    )
    assert crossing.queries_per_month.likely / 1e6 == pytest.approx(million_calls, abs=0.005)


def test_hosting_cost_of_a_thousand_calls_by_hand() -> None:
    assert usd_per_thousand(0.526, 2.0) == pytest.approx(0.526 / 7_200 * 1_000)


def test_machines_are_bought_whole_for_the_busiest_hour() -> None:
    # One machine sustains 2 requests a second at 70%, and the peak is three times the mean:
    # 2 x .7 / 3 x 3,600 x 730 = 1,226,400 queries a month.
    hosting = always_on(requests_per_second=2.0)
    assert hosting.queries_per_machine == pytest.approx(1_226_400)
    counts = hosting.machines(np.array([0.0, 1.0, 1_226_400.0, 1_226_401.0, 3e6]))
    assert counts.tolist() == [1, 1, 1, 2, 3]
    # Off at night and over the weekend: 50 of 168 hours cost less, and take less.
    office = always_on(requests_per_second=2.0, hours_a_week=50, least=2)
    assert office.hours_per_month == pytest.approx(730 * 50 / 168)
    draws = simulate([cost("o", dedicated=office)], task(), 2, RNG(0))
    assert draws.per_month(1_000.0)[:, 0] == pytest.approx(2 * 0.526 * 730 * 50 / 168)
    assert office.queries_per_machine == pytest.approx(1_226_400 * 50 / 168)


def test_a_tuned_premium_by_the_token_never_pays_back() -> None:
    # The tuned model costs twice as much for each token and saves a third of them.
    prompted = cost("prompted", usd_per_query=flat((900 * 0.40 + 20 * 1.60) / 1e6))
    tuned = cost("tuned", "tuned", upfront_usd=flat(500), usd_per_query=flat((600 * 0.80 + 20 * 3.20) / 1e6))
    crossing = break_even(simulate([prompted, tuned], task(), 20, RNG(0)), 0, 1)
    assert (
        crossing.probability_never == 1
        and crossing.queries_per_month is None
        and crossing.payback_days is None
    )


def test_a_staircase_that_meets_a_line_above_one_machine() -> None:
    # $100 a month for every 10,000 queries (or part) against $0.0125 a query and nothing fixed: at 8,000
    # queries both cost $100, and from the next step on the line is crossed again at every step.
    hosting = Dedicated(
        usd_per_hour=flat(100 / 730), requests_per_second=10_000 / (3600 * 730), utilisation=1.0, peak=1.0
    )
    assert hosting.queries_per_machine == pytest.approx(10_000)
    arms = [cost("a", usd_per_query=flat(0.0125)), cost("b", "tuned", dedicated=hosting)]
    draws = simulate(arms, task(), 5, RNG(0))
    crossing = break_even(draws, 0, 1)
    assert crossing.queries_per_month is not None
    at = crossing.queries_per_month.likely
    totals = draws.horizon(at * 1.0001)[0], draws.horizon(at * 0.9999)[0]
    assert totals[0][1] < totals[0][0] and totals[1][1] > totals[1][0]


def test_what_loses_money_every_month_pays_nothing_back_and_equal_arms_never_break_even() -> None:
    losing = [cost("p", usd_per_query=flat(0.001)), cost("t", "tuned", dedicated=always_on())]
    draws = simulate(losing, task(traffic={"queries_per_month": 9_000}), 20, RNG(0))
    assert break_even(draws, 0, 1).payback_days is None
    alike = [cost("p", usd_per_query=flat(0.001)), cost("q", "tuned", usd_per_query=flat(0.001))]
    assert break_even(simulate(alike, task(), 20, RNG(0)), 0, 1).probability_never == 1
    near = [cost(name, usd_per_query=flat(0.001), query_error_usd=1e-5) for name in ("p", "q")]
    assert 0.3 < break_even(simulate(near, task(), 2_000, RNG(0)), 0, 1).probability_never < 0.7


def test_two_staircases_cross_between_their_steps() -> None:
    # $100 for every 10,000 queries against $150 for every 14,000: between the two it is $200 against $150.
    def stairs(dollars: float, queries: float) -> Dedicated:
        rate = queries / (3600 * 730)
        return Dedicated(
            usd_per_hour=flat(dollars / 730), requests_per_second=rate, utilisation=1.0, peak=1.0
        )

    arms = [cost("a", dedicated=stairs(100, 10_000)), cost("b", "tuned", dedicated=stairs(150, 14_000))]
    crossing = break_even(simulate(arms, task(), 3, RNG(0)), 0, 1)
    assert crossing.probability_never == 0 and crossing.queries_per_month is not None
    assert crossing.queries_per_month.likely == pytest.approx(10_000, rel=0.01)


# -- over time ----------------------------------------------------------------------------------


def test_growth_and_discount_month_by_month() -> None:
    schedule = Schedule(3, growth=0.1, discount=0.21)
    worth = [1.21 ** (-month / 12) for month in (1, 2, 3)]
    assert schedule.monthly_weight == pytest.approx(sum(worth))
    assert schedule.query_weight == pytest.approx(worth[0] + 1.1 * worth[1] + 1.21 * worth[2])
    assert Schedule(2.5).monthly_weight == Schedule(2.5).query_weight == 2.5
    assert Schedule(24).events(6) == 3 and Schedule(24, discount=0.21).events(12) == pytest.approx(1 / 1.21)
    arm = cost("a", monthly_usd=flat(10), usd_per_query=flat(0.002))
    known = task(
        traffic={"queries_per_month": 1_000, "horizon_months": 3, "growth_per_month": 0.1},
        costs={"discount_per_year": 0.21},
    )
    draws = simulate([arm], known, 3, RNG(0))
    by_hand = 10 * schedule.monthly_weight + 1_000 * 0.002 * schedule.query_weight
    assert draws.horizon()[:, 0] == pytest.approx(by_hand)


def test_an_announced_retirement_is_followed_once_or_by_further_ones() -> None:
    schedule = Schedule(24)
    assert schedule.events(None) == 0 and schedule.events(None, 5) == 1 and schedule.events(None, 24) == 0
    assert schedule.events(8, 5) == 3 and schedule.events(8) == 2 and schedule.events(12, 30) == 0
    arms = [cost("p", rented=True, retires_months=5.0), cost("q", rented=True)]
    known = task(traffic={"horizon_months": 24}, costs={"reprompt_hours": 2, "hourly_usd": 50})
    assert simulate(arms, known, 2, RNG(0)).fixed_over_horizon[0].tolist() == [100, 0]


def test_a_retirement_that_is_past_is_refused() -> None:
    with pytest.raises(TaskError, match=r"models.0.retires: is in the past; use the successor model"):
        task(models=[{"name": "openai/x", "retires": "2024-01-01"}])


def test_machines_follow_traffic_that_grows() -> None:
    hosting = Dedicated(
        usd_per_hour=flat(100 / 730), requests_per_second=1_000 / (3600 * 730), utilisation=1.0, peak=1.0
    )
    known = task(traffic={"queries_per_month": 900, "horizon_months": 3, "growth_per_month": 0.5})
    draws = simulate([cost("a", "tuned", dedicated=hosting)], known, 2, RNG(0))
    assert draws.horizon()[:, 0] == pytest.approx(100 * (1 + 2 + 3))  # 900, 1,350, 2,025 queries
    assert draws.per_month()[:, 0] == pytest.approx(100)


def test_what_is_paid_upfront_and_again() -> None:
    # 100 labels at $0.30, 3 h of cleaning, 2 h of evaluation and 4 h of building at $50; $20 of training.
    tuned = cost(
        "t", "tuned", labels=100, hours=flat(4), training_usd=20.0, retrain_hours=flat(1), rented=True
    )
    prompt, today = cost("p", hours=flat(1), rented=True), cost("i", "incumbent", rented=True)
    rates = {
        "hourly_usd": 50,
        "label_usd": 0.3,
        "cleaning_hours": 3,
        "evaluation_hours": 2,
        "review_hours_per_month": 1,
        "retrain_months": 5,
        "base_model_months": 8,
        "reprompt_hours": 2,
    }
    draws = simulate([tuned, prompt, today], task(costs=rates), 4, RNG(0))
    assert draws.upfront[0].tolist() == pytest.approx([30 + 20 + (4 + 3 + 2) * 50, (1 + 2) * 50, 0])
    assert draws.monthly[0].tolist() == pytest.approx([50, 50, 50])
    # 12 months: trained again after 5 and 10 ($50 + $20); the base model retires once, after 8.
    again = [2 * 70 + 70, 100, 100]
    assert draws.fixed_over_horizon[0].tolist() == pytest.approx(
        [500 + 600 + again[0], 150 + 600 + again[1], 600 + again[2]]
    )


def test_a_tornado_by_hand() -> None:
    # Prompt: $0.001 to $0.003 an answer. Tuned: 2 to 10 hours at $50, and 200 labels of 0.3 to 0.9 minutes.
    arms = [
        cost("p", usd_per_query=Range(0.001, 0.002, 0.003)),
        cost("t", "tuned", labels=200, hours=Range(2, 4, 10)),
    ]
    known = task(
        traffic={"queries_per_month": [10_000, 20_000, 50_000], "horizon_months": 10},
        costs={"hourly_usd": 50, "label_minutes": [0.3, 0.6, 0.9], "review_hours_per_month": [0, 1, 2]},
    )
    building = 4 * 50 + 200 * 0.6 / 60 * 50
    swings = {swing.what: (swing.low, swing.high) for swing in tornado(arms, known, 0, 1)}
    assert list(swings) == [
        "traffic.queries_per_month",
        "p: price of an answer",
        "t: hours until it serves",
        "costs.label_minutes",
    ]
    assert swings["traffic.queries_per_month"] == pytest.approx((200 - building, 1000 - building))
    assert swings["p: price of an answer"] == pytest.approx((200 - building, 600 - building))
    assert swings["t: hours until it serves"] == pytest.approx((400 - 100 - 100, 400 - 500 - 100))
    assert swings["costs.label_minutes"] == pytest.approx((400 - 200 - 50, 400 - 200 - 150))
    # hours of review are the same for both, so they move nothing and are left out


def test_the_rule_of_thumb_stands_beside_the_measured_figure_with_the_reason(tmp_path: Path) -> None:
    known = crowded(tmp_path)
    priced = decide_trials(tmp_path / "trials.jsonl", known, arms=tmp_path / "arms.toml")
    rule = priced.document["rule_of_thumb"]
    assert rule.startswith(
        "over 100,000 queries a month: fine-tune. Measured here: tuned is cheaper than prompt above about "
    )
    assert "more to build and saves $" in rule
    assert "errors included; its fixed costs are $4" in rule and rule.endswith("a month more.")
    arms = (tmp_path / "arms.toml").read_text()
    (tmp_path / "arms.toml").write_text(arms[: arms.index("hosting")] + "usd_per_query = 0.005\n")
    never = decide_trials(tmp_path / "trials.jsonl", known, arms=tmp_path / "arms.toml")
    assert "tuned never becomes cheaper than prompt. It costs $" in never.document["rule_of_thumb"]


@pytest.mark.parametrize("months", [1, 12, 36])
def test_the_draws_and_exact_arithmetic_agree_within_a_cent_on_point_inputs(months: int) -> None:
    dollars = {"label_usd": Decimal("0.37"), "hourly_usd": Decimal("71.30"), "answer": Decimal("0.00123")}
    queries, month = 45_678, Decimal("19.99")
    arm = cost(
        "a",
        "tuned",
        labels=321,
        hours=flat(7.5),
        monthly_usd=flat(float(month)),
        usd_per_query=flat(float(dollars["answer"])),
        retrain_hours=flat(1.25),
        training_usd=4.56,
    )
    known = task(
        traffic={"queries_per_month": queries, "horizon_months": months},
        costs={"label_usd": 0.37, "hourly_usd": 71.3},
    )
    upfront = 321 * dollars["label_usd"] + Decimal("4.56") + Decimal("7.5") * dollars["hourly_usd"]
    again = (Decimal("1.25") * dollars["hourly_usd"] + Decimal("4.56")) * max(0, -(-months // 6) - 1)
    exact = upfront + months * (month + queries * dollars["answer"]) + again
    drawn = quantiles(simulate([arm], known, 50, RNG(0)).horizon()[:, 0])
    assert abs(money(drawn.likely) - exact) < Decimal("0.01") and drawn.low == pytest.approx(drawn.high)


# -- files --------------------------------------------------------------------------------------


def test_hosting_is_declared_in_arms_toml_and_comes_back_from_it(tmp_path: Path) -> None:
    arm = cost("x", "tuned", dedicated=always_on(hours_a_week=60), query_error_usd=0.0, training_usd=3.5)
    (tmp_path / "arms.toml").write_text(
        arms_toml([arm, cost("y", usd_per_query=flat(0.001), query_error_usd=1e-5)])
    )
    declared = read_arms(tmp_path / "arms.toml")
    assert declared["x"].hosting == arm.dedicated and declared["x"].training_usd == 3.5
    assert declared["y"].hosting is None and declared["y"].query_error_usd == 1e-5


def test_cache_writes_and_batches_by_hand(tmp_path: Path) -> None:
    # 1,000 tokens of 1,400 are static; 80% of the calls read them at $0.10, the others write them at $1.25:
    # 400 x $1 + 800 x $0.10 + 200 x $1.25 + 50 x $4 = $930 a million, and half of it in batches.
    lines = [
        {"arm": name, "item": str(i), "score": float(i % 2), "input_tokens": 1_400, "output_tokens": 50}
        for name in ("cached", "plain")
        for i in range(20)
    ]
    (tmp_path / "trials.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    rates = "input = 1, output = 4, cached_input = 0.1, cache_write = 1.25"
    caching = "static_tokens = 1000, cache_hit = 0.8, batch_discount = 0.5"
    declared = f'[[arm]]\nname = "cached"\nkind = "prompt"\nprice = {{ {rates}, {caching} }}\n'
    declared += f'[[arm]]\nname = "plain"\nkind = "prompt"\nprice = {{ {rates} }}\n'
    (tmp_path / "arms.toml").write_text(declared)
    decision = decide_trials(tmp_path / "trials.jsonl", task(), arms=tmp_path / "arms.toml").decision
    assert decision.finalist("cached").cost_per_query_usd.likely == pytest.approx(930 / 2 / 1e6)
    assert decision.finalist("plain").cost_per_query_usd.likely == pytest.approx((1_400 + 200) / 1e6)
    for wrong, message in (
        (declared.replace(", cache_hit = 0.8", ""), "cache_hit and static_tokens are given together"),
        (
            declared.replace("static_tokens = 1000", "static_tokens = 1500"),
            "static_tokens are 1500, and a trial has 1400",
        ),
        (declared.replace("batch_discount = 0.5", "batch_discount = 1.5"), "price.batch_discount"),
    ):
        (tmp_path / "arms.toml").write_text(wrong)
        with pytest.raises(TrialsError) as caught:
            decide_trials(tmp_path / "trials.jsonl", task(), arms=tmp_path / "arms.toml")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{ mode = 'dedicated', usd_per_hour = 1 }", "hosting.requests_per_second"),
        (
            "{ mode = 'dedicated', usd_per_hour = -1, requests_per_second = 1 }",
            "must not be negative, got -1",
        ),
        ("{ mode = 'dedicated', usd_per_hour = [3, 2, 1], requests_per_second = 1 }", "rising order"),
        ("{ mode = 'dedicated', usd_per_hour = 1, requests_per_second = 0 }", "greater than 0"),
        ("{ mode = 'serverless', usd_per_hour = 1, requests_per_second = 1 }", "hosting.mode"),
    ],
)
def test_bad_hosting_is_named(tmp_path: Path, declared: str, message: str) -> None:
    (tmp_path / "arms.toml").write_text(f'[[arm]]\nname = "x"\nkind = "tuned"\nhosting = {declared}\n')
    with pytest.raises(TrialsError, match=r"arms.toml: arm 'x': hosting") as caught:
        read_arms(tmp_path / "arms.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("traffic", "horizon_months", 0),
        ("traffic", "queries_per_month", -5),
        ("traffic", "queries_per_month", 0),
        ("traffic", "growth_per_month", -1.0),
        ("costs", "discount_per_year", 1.0),
        ("costs", "label_usd", -0.1),
        ("costs", "base_model_months", 0),
    ],
)
def test_bad_economics_of_a_task_are_named(section: str, key: str, value: float) -> None:
    with pytest.raises(TaskError, match=f"{section}.{key}"):
        task(**{section: {key: value}})


# -- the page -----------------------------------------------------------------------------------


def crowded(folder: Path) -> Task:
    """Foreign trials of a prompt by the token and of a tuned model on machines, with growth and discount."""
    lines = []
    for i in range(120):
        lines.append(json.dumps({"arm": "prompt", "item": str(i), "score": float(i % 10 > 1)}))
        lines.append(json.dumps({"arm": "tuned", "item": str(i), "score": float(i % 12 > 1)}))
    (folder / "trials.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "arms.toml").write_text(
        '[[arm]]\nname = "prompt"\nkind = "prompt"\nusd_per_query = [0.0008, 0.0009, 0.0012]\n'
        "rented = true\nretires_months = 3.5\n"
        '[[arm]]\nname = "tuned"\nkind = "tuned"\nhours = [4, 8, 24]\n'
        "retrain_hours = [1, 2, 4]\nlabels = 400\n"
        'hosting = { mode = "dedicated", usd_per_hour = [0.4, 0.526, 0.8], requests_per_second = 2 }\n'
    )
    return Task.parse(
        {
            "name": "crowded",
            "traffic": {"queries_per_month": [2e5, 4e5, 9e5], "horizon_months": 18, "growth_per_month": 0.04},
            "costs": {"discount_per_year": 0.08, "base_model_months": 8, "review_hours_per_month": [0, 1, 2]},
            "value": {"error_usd": 0.002},
        }
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_page_and_python_agree_to_the_cent(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    result = decide_trials(
        tmp_path / "trials.jsonl", crowded(tmp_path), arms=tmp_path / "arms.toml", out=tmp_path / "out"
    )
    scenarios = [(1_000.0, 12), (450_000.0, 18), (3_000_000.0, 18), (7_000_000.0, 18)]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto((tmp_path / "out" / "report.html").resolve().as_uri())
        page.wait_for_selector("#volume-chart .main-svg")
        shown = page.evaluate(
            "pairs => pairs.map(([v, m]) => [0, 1].map((a) => window.tunepoint.band(a, v, m)))", scenarios
        )
        volume = page.evaluate("window.tunepoint.crossing('prompt', 'tuned', 18)")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for field, value in (("growth", "-2.5"), ("discount", "20"), ("discount", "200"), ("growth", "")):
            page.fill(f"#{field}", value)  # the last two are no such numbers, and change nothing
        fields = page.evaluate("[0, 1].map((a) => window.tunepoint.band(a, 450000, 18))")
        page.fill("#prices [data-arm=prompt]", "50")
        halved = page.evaluate("window.tunepoint.band(0, 450000, 18)")
        shown_rows = page.inner_text("#live-rows")
        browser.close()
    draws = result.decision.evidence.costs
    for (queries, months), bands in zip(scenarios, shown, strict=True):
        if months != 18:
            continue  # another horizon has another schedule: below
        expected = np.quantile(draws.horizon(queries), [0.05, 0.5, 0.95], axis=0)
        assert np.abs(np.array(bands).T - expected).max() < 0.01
    other = crowded(tmp_path).model_copy(
        update={"traffic": crowded(tmp_path).traffic.model_copy(update={"horizon_months": 12})}
    )
    again = decide_trials(tmp_path / "trials.jsonl", other, arms=tmp_path / "arms.toml")
    expected = np.quantile(again.decision.evidence.costs.horizon(1_000.0), [0.05, 0.5, 0.95], axis=0)
    assert np.abs(np.array(shown[0]).T - expected).max() < 0.01
    shrinking = crowded(tmp_path)
    shrinking = shrinking.model_copy(
        update={
            "traffic": shrinking.traffic.model_copy(update={"growth_per_month": -0.025}),
            "costs": shrinking.costs.model_copy(update={"discount_per_year": 0.2}),
        }
    )
    changed = decide_trials(tmp_path / "trials.jsonl", shrinking, arms=tmp_path / "arms.toml")
    expected = np.quantile(changed.decision.evidence.costs.horizon(450_000.0), [0.05, 0.5, 0.95], axis=0)
    assert np.abs(np.array(fields).T - expected).max() < 0.01
    arms = (
        (tmp_path / "arms.toml").read_text().replace("[0.0008, 0.0009, 0.0012]", "[0.0004, 0.00045, 0.0006]")
    )
    (tmp_path / "arms.toml").write_text(arms)
    cheaper = decide_trials(tmp_path / "trials.jsonl", shrinking, arms=tmp_path / "arms.toml")
    expected = np.quantile(cheaper.decision.evidence.costs.horizon(450_000.0)[:, 0], [0.05, 0.5, 0.95])
    assert np.abs(np.array(halved) - expected).max() < 0.01  # the price of an answer, halved in the page
    assert "prompt" in shown_rows
    (crossing,) = result.decision.break_even
    assert crossing.queries_per_month is not None and crossing.probability_never < 0.2
    assert volume == pytest.approx(crossing.queries_per_month.likely, rel=0.1)  # of its first 500 draws
