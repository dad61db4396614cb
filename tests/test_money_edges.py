"""Retirements before a payback, other currencies, skewed prices, prices nobody knows, who is hosted where."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decisions import cost, task
from test_economics import always_on, flat
from test_rates import TokenPrice

from tunepoint import Task, decide_trials
from tunepoint.arms.cascade import Cascade, Gate
from tunepoint.arms.incumbent import incumbent_arms
from tunepoint.capture.records import nanodollars
from tunepoint.costs.arms_toml import arms_toml, read_arms
from tunepoint.costs.break_even import break_even
from tunepoint.costs.price_list import price_of
from tunepoint.costs.simulation import simulate
from tunepoint.data.examples import Example
from tunepoint.decision.caveats import late_payback
from tunepoint.errors import ModelError, TaskError, TrialsError
from tunepoint.files.currencies import in_dollars
from tunepoint.files.machine import cores
from tunepoint.models.named_models import NamedModel
from tunepoint.models.opening import open_models
from tunepoint.models.prices import project_price, project_prices
from tunepoint.stats.moments import deviations, mean_of
from tunepoint.stats.ranges import Range
from tunepoint.study.arm_costs import answer_cost, hosting_of, last_day, monthly_usd
from tunepoint.study.language_models import check_price
from tunepoint.trials.table import ArmScores, Table

RNG = np.random.default_rng


# -- a base model that retires first ---------------------------------------------------------------


def retiring(months: float | None, folder: Path) -> dict[str, Any]:
    """A tuned arm that costs $1,000 to build and saves $100 a month: it pays back after 10 months."""
    lines = [
        json.dumps({"arm": arm, "item": str(i), "score": 1.0 if i % 10 else 0.0})
        for i in range(300)
        for arm in ("prompt", "tuned")
    ]
    (folder / "trials.jsonl").write_text("\n".join(lines) + "\n")
    retires = "" if months is None else f"retires_months = {months}\n"
    (folder / "arms.toml").write_text(
        '[[arm]]\nname = "prompt"\nkind = "prompt"\nusd_per_query = 0.01\n'
        '[[arm]]\nname = "tuned"\nkind = "tuned"\nupfront_usd = 1000\nusd_per_query = 0\n' + retires
    )
    request_task = Task.parse({"name": "t", "traffic": {"queries_per_month": 10_000, "horizon_months": 24}})
    result = decide_trials(folder / "trials.jsonl", request_task, arms=folder / "arms.toml")
    return dict(result.document)


def test_a_payback_after_the_base_model_retires_is_none(tmp_path: Path) -> None:
    document = retiring(9, tmp_path)
    (crossing,) = document["break_even"]
    assert crossing["payback_days"] is None
    assert (crossing["probability_never"], crossing["probability_no_payback"]) == (0, 1)
    assert crossing["base_model_days"] == round(9 * 365.25 / 12)
    signal = next(signal for signal in document["signals"] if signal["id"] == "P5")
    assert signal["holds"] is True and "retires in 274 days" in signal["detail"]
    assert any("tuned has no payback against prompt" in caveat for caveat in document["caveats"])


def test_a_payback_before_it_is_one(tmp_path: Path) -> None:
    document = retiring(11, tmp_path)
    (crossing,) = document["break_even"]
    assert crossing["payback_days"]["likely"] == pytest.approx(10 * 365.25 / 12, abs=0.01)
    assert crossing["probability_no_payback"] == 0
    signal = next(signal for signal in document["signals"] if signal["id"] == "P5")
    assert signal["holds"] is False
    assert not any("no payback" in caveat for caveat in document["caveats"])


def test_payback_is_of_the_arm_that_costs_more_to_build_whatever_stands() -> None:
    # The prompt stands at $400 a month; tuning costs $1,000 once and its base retires after a month.
    arms = [
        cost("p", monthly_usd=flat(400)),
        cost("t", "tuned", upfront_usd=flat(1_000), rented=True, retires_months=1.0),
    ]
    crossing = break_even(simulate(arms, task(), 4, RNG(0)), 0, 1)
    # Over a year the tuned arm costs less even before any query.
    assert (crossing.cheaper_to_build, crossing.dearer_to_build) == ("t", "t")
    assert crossing.payback_days is None and crossing.probability_no_payback == 1
    assert crossing.lifetime_days == pytest.approx(365.25 / 12)
    longer = [arms[0], cost("t", "tuned", upfront_usd=flat(1_000))]
    crossing = break_even(simulate(longer, task(), 4, RNG(0)), 0, 1)
    assert crossing.payback_days is not None
    assert crossing.payback_days.likely == pytest.approx(2.5 * 365.25 / 12)
    assert late_payback([crossing], "t") == []


def test_without_a_date_nothing_is_said_of_it(tmp_path: Path) -> None:
    document = retiring(None, tmp_path)
    assert document["break_even"][0]["base_model_days"] is None
    assert next(signal for signal in document["signals"] if signal["id"] == "P5")["holds"] is None


def test_the_usual_life_of_a_base_model_counts_only_for_what_a_provider_serves() -> None:
    arms = [cost("p", usd_per_query=flat(0.01)), cost("t", "tuned", upfront_usd=flat(1_000))]
    known = task(costs={"base_model_months": 5}, traffic={"queries_per_month": 10_000})
    assert break_even(simulate(arms, known, 4, RNG(0)), 0, 1).probability_no_payback == 0
    rented = [arms[0], cost("t", "tuned", upfront_usd=flat(1_000), rented=True)]
    assert break_even(simulate(rented, known, 4, RNG(0)), 0, 1).probability_no_payback == 1


# -- means of skewed prices ------------------------------------------------------------------------


def test_a_skewed_price_is_drawn_as_the_bootstrap_of_its_mean_would() -> None:
    values = RNG(3).lognormal(-7, 1.4, 150)  # a few long answers cost most
    mean = mean_of(values)
    drawn = mean.value + deviations(mean.error, mean.skew, 200_000, RNG(0))
    resampled = values[RNG(1).integers(0, 150, (20_000, 150))].mean(axis=1)
    for share, off in ((0.01, 0.05), (0.05, 0.015), (0.5, 0.015), (0.95, 0.015), (0.99, 0.015)):
        assert np.quantile(drawn, share) == pytest.approx(np.quantile(resampled, share), rel=off)
    normal = mean.value + deviations(mean.error, 0.0, 200_000, RNG(0))
    assert np.quantile(normal, 0.01) < 0.8 * np.quantile(resampled, 0.01)  # what a normal gets wrong


def test_means_of_few_equal_or_no_values() -> None:
    assert mean_of(np.array([])).value == 0
    assert mean_of(np.array([2.0])).error == 0
    assert (mean_of(np.full(50, 3.0)).error, mean_of(np.full(50, 3.0)).skew) == (0, 0)
    left = deviations(1.0, -0.8, 100_000, RNG(0))
    assert left.mean() == pytest.approx(0, abs=0.02) and left.std() == pytest.approx(1, abs=0.02)
    assert ((left - left.mean()) ** 3).mean() == pytest.approx(-0.8, abs=0.05)


def test_skewness_survives_arms_toml(tmp_path: Path) -> None:
    arm = cost("x", usd_per_query=flat(0.001), query_error_usd=1e-4, query_skew=0.3, core_seconds_skew=-0.1)
    (tmp_path / "arms.toml").write_text(arms_toml([arm]))
    declared = read_arms(tmp_path / "arms.toml")["x"]
    assert (declared.query_skew, declared.core_seconds_skew) == (0.3, -0.1)


# -- other currencies ------------------------------------------------------------------------------


def test_amounts_in_another_currency_are_taken_at_the_declared_rate(tmp_path: Path) -> None:
    parsed = Task.parse(
        {
            "name": "t",
            "currencies": {"EUR": 1.1},
            "costs": {"hourly_usd": ["50 EUR", "60 EUR", 88]},
            "limits": {"upfront_usd": "1_000 EUR", "monthly_usd": "20 USD"},
            "models": [{"name": "openai/x", "price": {"input": "0.50 EUR", "output": 2}}],
        }
    )
    hourly = parsed.costs.hourly_usd
    assert (hourly.low, hourly.likely, hourly.high) == pytest.approx((55, 66, 88))
    assert parsed.limits.upfront_usd == pytest.approx(1_100)
    assert parsed.limits.monthly_usd == 20
    assert parsed.models[0].price is not None and parsed.models[0].price.input == pytest.approx(0.55)
    (tmp_path / "arms.toml").write_text(
        '[currencies]\nGBP = 1.25\n[[arm]]\nname = "x"\nkind = "prompt"\nusd_per_query = "0.004 GBP"\n'
    )
    declared = read_arms(tmp_path / "arms.toml")["x"].usd_per_query
    assert declared is not None and declared.likely == pytest.approx(0.005)
    (tmp_path / "prices.toml").write_text(
        '[currencies]\nEUR = 1.1\n["openai/x"]\ninput = "1 EUR"\noutput = 3\n'
    )
    assert project_prices(tmp_path)["openai/x"].input == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"costs": {"hourly_usd": "80 EUR"}}, r"costs.hourly_usd: '80 EUR': the file has no rate for EUR"),
        ({"currencies": {"EUR": 0}}, "currencies.EUR: 0: expected three capital letters"),
        ({"currencies": {"euro": 1.1}}, "currencies.euro: 1.1"),
        ({"currencies": {"USD": 2}}, "currencies.USD: must be 1, got 2"),
        ({"currencies": 3}, "expected a table"),
        ({"currencies": {"EUR": 1.1}, "costs": {"hourly_usd": "-5 EUR"}}, "must not be negative"),
        ({"currencies": {"EUR": 1.1}, "costs": {"hourly_usd": ["9 EUR", "5 EUR", "8 EUR"]}}, "hourly_usd"),
    ],
)
def test_bad_currencies_are_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.parse({"name": "t", **content})


def test_only_money_is_converted(tmp_path: Path) -> None:
    content = {"name": "5 EUR", "instruction": "Say 5 EUR", "currencies": {"EUR": 2.0}}
    assert in_dollars(content)["instruction"] == "Say 5 EUR"
    euro = {"currencies": {"EUR": 2.0}}
    for given, dollars in ((".5 EUR", 1.0), ("1e3 EUR", 2_000.0), ("1_000 EUR", 2_000.0)):
        assert in_dollars({**euro, "costs": {"hourly_usd": given}})["costs"]["hourly_usd"] == dollars
    for given in ("EUR", "1__0 EUR", "\u0663 EUR"):
        assert in_dollars({**euro, "costs": {"hourly_usd": given}})["costs"]["hourly_usd"] == given
    (tmp_path / "arms.toml").write_text('[[arm]]\nname = "x"\nkind = "prompt"\nusd_per_query = "1 EUR"\n')
    with pytest.raises(TrialsError, match=r"no rate for EUR"):
        read_arms(tmp_path / "arms.toml")
    (tmp_path / "prices.toml").write_text('["openai/x"]\ninput = "1 EUR"\noutput = 3\n')
    with pytest.raises(ModelError, match=r"openai/x.input: '1 EUR': the file has no rate for EUR"):
        project_prices(tmp_path)


def test_what_is_declared_of_a_log_holds_for_what_runs_today(tmp_path: Path) -> None:
    examples = [Example(str(i), f"question {i}", "yes") for i in range(4)]
    rows = [json.dumps({"input": example.input, "output": "yes"}) for example in examples]
    (tmp_path / "today.jsonl").write_text("\n".join(rows) + "\n")
    hosting = {"mode": "dedicated", "usd_per_hour": 1, "requests_per_second": 5}
    model = {"name": "recorded:today.jsonl", "hosting": hosting, "retires": "2999-01-01"}
    declared = Task.parse({"name": "t", "models": [model]}, folder=tmp_path)
    (arm,), _ = incumbent_arms(declared, examples, examples)
    machines, cheap = hosting_of(arm, declared)
    assert arm.name == "today" and machines == declared.models[0].hosting is not None and cheap is None
    assert last_day(arm, declared) == date(2999, 1, 1)


# -- a price that nobody knows ---------------------------------------------------------------------


def test_a_model_without_a_known_price_is_not_asked(tmp_path: Path) -> None:
    named = NamedModel("http://models.example/v1#their-own-7b")
    with (
        pytest.raises(ModelError, match=r"price of 'http://models.example/v1#their-own-7b' is unknown"),
        open_models([named], tmp_path / "calls.sqlite", lambda endpoint, price: endpoint, project_prices={}),
    ):
        pass


def test_nothing_is_tuned_whose_answers_nobody_can_price(tmp_path: Path) -> None:
    (unknown,) = task(tune=[{"base": "their-own", "provider": "together"}]).tune
    with pytest.raises(
        ModelError, match=r"price of 'together/ft:their-own' is unknown.*\[\[tune\]\] hosting"
    ):
        check_price(unknown, {})
    check_price(unknown, {"together/ft:their-own": TokenPrice(input=1, output=1)})
    hosting = {"mode": "dedicated", "usd_per_hour": 1, "requests_per_second": 5}
    check_price(task(tune=[{"base": "x", "provider": "together", "hosting": hosting}]).tune[0], {})
    check_price(task(tune=[{"base": "gpt-4.1-mini-2025-04-14", "provider": "openai"}]).tune[0], {})
    (tmp_path / "prices.toml").write_text('["openai/ft:gpt-9"]\ninput = 1\noutput = 2\n')
    assert "$1 input" in price_of("openai/ft:gpt-9:org::id", tmp_path)


def test_amounts_of_money_are_exact_and_finite() -> None:
    assert nanodollars(np.float64(0.001)) == nanodollars(0.001) == 1_000_000
    assert (nanodollars(1), nanodollars(2.5e-9), nanodollars(1e12)) == (10**9, 2, 10**21)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not an amount of money"):
            nanodollars(bad)


def test_a_tuned_model_may_be_priced_by_its_base() -> None:
    price = TokenPrice(input=1, output=2)
    own = {"openai/ft:gpt-9": price}
    assert project_price("openai/ft:gpt-9:org::id", own) is price
    assert project_price("openai/gpt-9", own) is None


# -- machines of encoders, logs and cascades -------------------------------------------------------


@dataclass
class Shown:
    """An arm as far as hosting looks at it."""

    name: str
    kind: str = "tuned"
    family: str = "f"
    remote: bool = False
    seeds: int = 1


@dataclass
class OnMachines(Shown):
    hosting: Any = None


def test_an_encoder_is_hosted_where_the_task_says() -> None:
    machine = {"mode": "dedicated", "usd_per_hour": 0.1, "requests_per_second": 50}
    known = task(models=[{"name": "embedded:minilm", "hosting": machine}])
    hosting, beside = hosting_of(Shown("probe"), known)  # type: ignore[arg-type]
    assert hosting is not None and hosting.requests_per_second == 50 and beside is None
    assert hosting_of(Shown("gpt", remote=True), known) == (None, None)  # type: ignore[arg-type]


def test_the_strong_half_of_a_cascade_gets_what_the_gate_lets_through() -> None:
    strong = OnMachines("strong", hosting=always_on(requests_per_second=2.0))
    arm: Any = Cascade(Shown("cheap"), strong, Gate(1, 0, 0.5), 0.25)  # type: ignore[arg-type]
    hosting, beside = hosting_of(arm, task())
    assert beside is None and hosting is not None
    assert hosting.requests_per_second == 8.0  # a quarter of the questions: four times as many in all
    machine = {"mode": "dedicated", "usd_per_hour": 0.1, "requests_per_second": 50}
    cheap_too = hosting_of(arm, task(models=[{"name": "embedded:minilm", "hosting": machine}]))[1]
    assert cheap_too is not None and cheap_too.requests_per_second == 50


def test_a_retirement_of_what_is_tuned_is_declared_with_it() -> None:
    day = date.today() + timedelta(days=100)
    dated = task(tune=[{"base": "gpt-4.1-mini", "provider": "openai", "retires": day.isoformat()}])
    assert dated.tune[0].retires == day
    without = task(tune=[{"base": "gpt-4.1-mini", "provider": "openai"}])
    assert dated.trials_fingerprint() == without.trials_fingerprint()  # it measures nothing anew
    with pytest.raises(TaskError, match="is in the past"):
        task(tune=[{"base": "x", "provider": "openai", "retires": "2024-01-01"}])


def test_the_machines_of_a_cheap_half_are_paid_by_the_month() -> None:
    hosting = always_on(requests_per_second=1.0, usd_per_hour=Range(0.1, 0.2, 0.4), peak=1.0, utilisation=1.0)
    known = task(traffic={"queries_per_month": [1_000, 2_628_000, 5_256_001]})
    monthly = monthly_usd(hosting, known)
    assert (monthly.low, monthly.likely, monthly.high) == pytest.approx((73.0, 146.0, 3 * 0.4 * 730))


@dataclass
class FromBase(Shown):
    base_model: str = ""
    provider_name: str = "openai"
    announced_end: date | None = None


def test_a_base_retires_for_what_was_tuned_from_it_and_for_its_cascade() -> None:
    day = date.today() + timedelta(days=100)
    known = task(tune=[{"base": "b", "provider": "openai", "retires": day.isoformat()}])
    tuned: Any = FromBase("t", base_model="b")
    assert last_day(tuned, known) == day
    assert last_day(Cascade(Shown("cheap"), tuned, Gate(1, 0, 0.5)), known) == day  # type: ignore[arg-type]
    announced: Any = FromBase("t", base_model="c", announced_end=day)
    assert last_day(announced, known) == day
    nothing: Any = FromBase("t", base_model="d")
    assert last_day(nothing, known) is None


def answers(arm: str, dollars: list[float], seconds: list[float]) -> ArmScores:
    tokens, times, prices = np.full((4, 3), np.nan), np.array(seconds), np.array(dollars)
    return ArmScores(arm, np.ones((1, 4)), (None,), 1.0, 0.0, (), times, prices, tokens)


def rows(*arms: ArmScores) -> Table:
    return Table(("a", "b", "c", "d"), arms, None, (None,) * 4, 0)


def test_a_cascade_with_machines_is_put_together_from_its_halves() -> None:
    strong = OnMachines("strong", hosting=always_on())
    arm: Any = Cascade(Shown("cheap"), strong, Gate(1, 0, 0.5), 0.25)  # type: ignore[arg-type]
    cheap, dear, whole = (
        answers("cheap", [], [0.01] * 4),
        answers("strong", [], [2.0] * 4),
        answers(arm.name, [], [1.0] * 4),
    )
    dollars, seconds, _ = answer_cost(arm, rows(cheap, dear, whole), task(), {})
    assert (dollars.value, seconds.value) == (0, pytest.approx(0.01 * cores()))  # machines give the rest
    dollars, seconds, _ = answer_cost(arm, rows(answers("cheap", [0.01] * 4, []), dear, whole), task(), {})
    assert (dollars.value, seconds.value) == (pytest.approx(0.01), 0)
    machine = {"mode": "dedicated", "usd_per_hour": 0.1, "requests_per_second": 50}
    hosted = task(models=[{"name": "embedded:minilm", "hosting": machine}])
    remote = Shown("strong", remote=True)
    other: Any = Cascade(Shown("cheap"), remote, Gate(1, 0, 0.5), 0.25)  # type: ignore[arg-type]
    dollars, seconds, _ = answer_cost(
        other, rows(cheap, answers("strong", [0.04] * 4, []), whole), hosted, {}
    )
    assert (dollars.value, seconds.value) == (pytest.approx(0.25 * 0.04), 0)


def test_a_model_of_this_machine_costs_its_processor_time_and_only_where_it_was_asked() -> None:
    """The encoder answers everything in .01 s; a quarter is passed on, and takes 3 core seconds each."""
    arm: Any = Cascade(Shown("cheap"), Shown("strong"), Gate(1, 0, 0.5), 0.25)  # type: ignore[arg-type]
    strong = replace(answers("strong", [], [2.0] * 4), core_seconds=np.full(4, 3.0))
    whole = replace(answers(arm.name, [], [1.0] * 4), core_seconds=np.array([3.0]))
    table = rows(answers("cheap", [], [0.01] * 4), strong, whole)
    assert answer_cost(Shown("strong"), table, task(), {})[1].value == 3.0  # type: ignore[arg-type]
    dollars, seconds, _ = answer_cost(arm, table, task(), {})
    assert (dollars.value, seconds.value) == (0, pytest.approx(0.01 * cores() + 0.25 * 3.0))


# -- shared adapters -------------------------------------------------------------------------------


def test_shared_adapters_by_hand() -> None:
    # A provider serves an adapter at its base's price, $0.20 for a million tokens in and out, and takes
    # $1.50 a month for keeping it. The prompted rival sends 900 tokens more at the same price.
    adapter = cost(
        "adapter", "tuned", usd_per_query=flat(120 * 0.20 / 1e6), monthly_usd=flat(1.5), upfront_usd=flat(30)
    )
    prompted = cost("prompted", usd_per_query=flat(1_020 * 0.20 / 1e6))
    draws = simulate([prompted, adapter], task(traffic={"queries_per_month": 50_000}), 4, RNG(0))
    assert draws.per_month()[0].tolist() == pytest.approx([50_000 * 0.000204, 1.5 + 50_000 * 0.000024])
    crossing = break_even(draws, 0, 1)
    assert crossing.queries_per_month is not None
    assert crossing.queries_per_month.likely == pytest.approx((30 + 12 * 1.5) / (12 * 900 * 0.20 / 1e6))
