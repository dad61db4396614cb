"""Prompts that a provider caches: hits by traffic, the costs that follow, and what an arm's prompts share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Fake, serving
from test_chat_study import asked
from test_decisions import cost, task
from test_economics import RNG, flat
from test_money_edges import answers
from test_report import CHROMIUM
from test_teaching import mostly_right
from test_tuned_study import routing

from tunepoint import Result, decide_trials, run
from tunepoint.costs.arms_toml import arms_toml, read_arms
from tunepoint.costs.break_even import break_even
from tunepoint.costs.caching import Arrivals, CachedPrefix, spells_of
from tunepoint.costs.cost_draws import CostDraws
from tunepoint.costs.simulation import simulate
from tunepoint.costs.tornado import tornado
from tunepoint.decision.numbers import usd
from tunepoint.errors import TaskError, TrialsError
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.chat import Prompt, Usage
from tunepoint.models.endpoints import Completion, Request, TextModel
from tunepoint.models.prompt_caches import PromptCache, known_caches, prompt_cache
from tunepoint.report.names import Names
from tunepoint.report.words import crossing_words
from tunepoint.stats.ranges import Range
from tunepoint.study.repricing import _changed_rates, _hit_without_prefix
from tunepoint.study.whatif import Scenario, what_if


def share(
    volume: float, minutes: float, *, hours: float = 168.0, burst: float = 1.0, renewed: bool = True
) -> float:
    spells = spells_of(np.array([minutes]), Arrivals(np.array([hours]), np.array([burst])))
    return float(spells.hit_share(np.array([[volume]]), renewed=renewed).item())


def flat_array(value: float) -> Any:
    return np.array([value], dtype=np.float64)


def prefix(**fields: Any) -> CachedPrefix:
    """3,000 tokens at Claude Sonnet's prices."""
    known = {"tokens": 3_000, "input": 3.0, "read": 0.3, "write": 3.75, "minutes": flat(5), "asked_for": True}
    return CachedPrefix(**{**known, **fields})


def at_volume(*arms: Any, **traffic: Any) -> CostDraws:
    return simulate(arms, task(traffic=traffic), 4, RNG(0))


# -- the share of hits ----------------------------------------------------------------------------


@pytest.mark.parametrize(("volume", "percent"), [(1_000, 11), (10_000, 68), (30_000, 97)])
def test_five_minutes_at_traffic_spread_over_the_month(volume: float, percent: int) -> None:
    per_minute = volume / (730 * 60)
    assert share(volume, 5) == pytest.approx(1 - math.exp(-5 * per_minute))
    assert round(100 * share(volume, 5)) == percent
    # a lifetime from the writing: each miss is followed by 5 minutes of hits
    assert share(volume, 5, renewed=False) == pytest.approx(5 * per_minute / (1 + 5 * per_minute))


def test_bursts_warm_the_cache_for_themselves() -> None:
    assert share(1, 5, burst=4) == pytest.approx(0.75, abs=1e-3)
    per_minute = 10_000 / (730 * 60)
    assert share(10_000, 5, burst=4) == pytest.approx(1 - math.exp(-5 * per_minute / 4) / 4)
    assert share(10_000, 5, burst=4, renewed=False) == pytest.approx(1 - 1 / (4 + 5 * per_minute))


def test_no_traffic_and_endless_traffic() -> None:
    for renewed in (True, False):
        for hours in (40.0, 168.0):
            assert share(0, 5, hours=hours, renewed=renewed) == pytest.approx(0, abs=1e-9)
            assert share(1e12, 5, hours=hours, renewed=renewed) == pytest.approx(1, abs=1e-6)


def simulated(
    volume: float, minutes: float, hours: float, burst: float, *, renewed: bool, calls: int = 60_000
) -> float:
    """The share of hits of calls that come in bursts, on five days a week if they fit there."""
    rng = RNG(0)
    bursts = round(calls / burst)
    gaps = rng.exponential(730 * 60 * burst / volume * hours / 168, bursts)
    days = 5 if hours <= 120 else 7
    number, within = np.divmod(gaps.cumsum(), hours * 60 / days)
    week, day = np.divmod(number, days)
    sizes = rng.geometric(1 / burst, bursts)
    offsets = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    times = np.sort(np.repeat((7 * week + day) * 24 * 60 + within, sizes) + offsets / 60)
    if renewed:
        return float((np.diff(times) <= minutes).mean())
    misses, at = 0, 0
    while at < len(times):
        misses += 1
        at = int(np.searchsorted(times, times[at] + minutes, side="right"))
    return 1 - misses / len(times)


@pytest.mark.parametrize("renewed", [True, False])
@pytest.mark.parametrize(("hours", "burst"), [(168.0, 1.0), (40.0, 1.0), (168.0, 4.0), (100.0, 2.5)])
@pytest.mark.parametrize("minutes", [5.0, 60.0, 1_440.0, 6_000.0])
def test_simulated_arrivals_hit_as_often_as_modelled(
    minutes: float, hours: float, burst: float, renewed: bool
) -> None:
    for volume in (300, 1_000, 10_000, 100_000):
        true = simulated(volume, minutes, hours, burst, renewed=renewed)
        modelled = share(volume, minutes, hours=hours, burst=burst, renewed=renewed)
        assert modelled == pytest.approx(true, abs=0.02), volume
        dollars = [3_000 * (0.3 * hit + 3.75 * (1 - hit)) + 1_100 for hit in (modelled, true)]
        assert dollars[0] == pytest.approx(dollars[1], rel=0.02), volume


# -- what it costs --------------------------------------------------------------------------------

PROVIDERS = {
    # provider: (input, read, write, minutes, asked for), dollars per million tokens
    "Anthropic, 5 minutes": (3.0, 0.30, 3.75, 5, True),
    "Anthropic, an hour": (3.0, 0.30, 6.00, 60, True),
    "OpenAI, minutes": (0.25, 0.025, 0.25, 7.5, False),
    "OpenAI, a day": (5.0, 0.50, 5.00, 1_440, False),
    "Gemini": (0.30, 0.03, 0.30, 5, False),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("volume", [1_000, 10_000, 100_000, 1_000_000])
def test_the_worked_example_of_each_provider(provider: str, volume: int) -> None:
    """3,000 fixed tokens, 200 of the question, 20 of the answer at 5 times the input's price."""
    dollars, read, write, minutes, asked_for = PROVIDERS[provider]
    hit = 1 - math.exp(-minutes * volume / (730 * 60))
    uncached = (3_200 + 5 * 20) * dollars
    cached = 3_000 * (hit * read + (1 - hit) * write) + (200 + 5 * 20) * dollars
    by_hand = min(cached, uncached) if asked_for else cached
    start = prefix(input=dollars, read=read, write=write, minutes=flat(minutes), asked_for=asked_for)
    arm = cost("p", usd_per_query=flat(uncached / 1e6), prefixes=(start,))
    draws = at_volume(arm, queries_per_month=volume)
    assert draws.answer()[:, 0] == pytest.approx(by_hand / 1e6, rel=1e-6)
    assert draws.per_month()[:, 0] == pytest.approx(volume * by_hand / 1e6, rel=1e-6)
    assert draws.horizon()[:, 0] == pytest.approx(12 * volume * by_hand / 1e6, rel=1e-6)
    cached_share = draws.hit_share(0)
    assert cached_share is not None and cached_share == pytest.approx(hit)


def monthly(volume: float) -> float:
    """Dollars by hand that prompting costs more in a month than a tuned model at $1 per 1,000 answers."""
    hit = 1 - math.exp(-5 * volume / (730 * 60))
    return volume * (min((3_000 * (hit * 0.3 + (1 - hit) * 3.75) + 900) / 1e6, 0.0099) - 0.001)


@pytest.mark.parametrize("upfront", [100.0, 493.0, 600.0, 2_000.0, 50_000.0])
def test_break_even_of_a_cached_prompt_is_where_the_tuned_model_stays_cheaper(upfront: float) -> None:
    """Between 11,000 and 20,000 queries a prompt gets cheaper by the month: more of its calls hit."""
    arms = [
        cost("p", usd_per_query=flat(0.0099), prefixes=(prefix(),)),
        cost("t", "tuned", usd_per_query=flat(0.001), upfront_usd=flat(upfront)),
    ]
    crossing = break_even(at_volume(*arms, queries_per_month=50_000), 0, 1)
    assert crossing.queries_per_month is not None and crossing.probability_never == 0
    volume = crossing.queries_per_month.likely
    assert 12 * monthly(volume) == pytest.approx(upfront, rel=0.002)
    assert all(12 * monthly(volume * times) > upfront for times in (1.01, 1.5, 3, 10, 1_000))


def test_where_a_prompt_is_cheaper_again_for_good_the_range_is_given() -> None:
    """A tuned model at $2 per 1,000 answers, and the prompt at $1.80 once all of its calls hit."""
    arms = [
        cost("p", usd_per_query=flat(0.0099), prefixes=(prefix(),)),
        cost("t", "tuned", usd_per_query=flat(0.002), upfront_usd=flat(50)),
    ]
    crossing = break_even(at_volume(*arms, queries_per_month=10_000), 0, 1)
    start, end = crossing.queries_per_month, crossing.queries_until
    assert start is not None and end is not None and crossing.probability_never == 0

    def lead(volume: float) -> float:
        return 12 * (monthly(volume) - 0.001 * volume) - 50

    assert lead(start.likely) == pytest.approx(0, abs=0.2) and lead(end.likely) == pytest.approx(0, abs=0.2)
    assert start.likely < 1_000 < end.likely and lead(1_000) > 0 > lead(2 * end.likely)
    band = {"low": 400, "likely": 433, "high": 450}
    words = {"from": "p", "to": "t", "queries_per_month": band, "probability_never": 0}
    words["queries_until"] = {"low": 2e4, "likely": 3e4, "high": 4e4}
    sentence = crossing_words(words, Names({}, {}))
    assert "pays off from about 430 queries a month" in sentence and "to about 30,000" in sentence


def test_growth_warms_the_cache_month_by_month() -> None:
    arm = cost("p", usd_per_query=flat(0.0099), prefixes=(prefix(asked_for=False),))
    known = {"queries_per_month": 2_000, "growth_per_month": 0.1, "horizon_months": 24}
    by_hand = 0.0
    for month in range(24):
        queries = 2_000 * 1.1**month
        hit = 1 - math.exp(-5 * queries / (730 * 60))
        by_hand += queries * (3_000 * (hit * 0.3 + (1 - hit) * 3.75) + 900) / 1e6
    assert at_volume(arm, **known).horizon()[:, 0] == pytest.approx(by_hand, rel=3e-3)
    short = at_volume(arm, **{**known, "horizon_months": 3}).horizon()[:, 0]
    months = [2_000 * 1.1**month for month in range(3)]
    assert short == pytest.approx(sum(q * at_volume(arm, queries_per_month=q).answer()[0, 0] for q in months))


def test_a_cache_that_does_not_pay_is_not_asked_for() -> None:
    # 1.25 times to write, and at 1,000 calls a month 11% to read at a tenth: dearer than without
    arm = cost("p", usd_per_query=flat(0.0099), prefixes=(prefix(),))
    assert at_volume(arm, queries_per_month=1_000).answer()[:, 0] == pytest.approx(0.0099)
    always = cost("p", usd_per_query=flat(0.0099), prefixes=(prefix(asked_for=False),))
    assert (at_volume(always, queries_per_month=1_000).answer() > 0.0099).all()


def test_a_declared_share_and_the_half_of_a_cascade() -> None:
    declared = cost("p", usd_per_query=flat(0.0099), prefixes=(prefix(hit=0.5),))
    by_hand = (3_000 * (0.5 * 0.3 + 0.5 * 3.75) + 900) / 1e6
    assert at_volume(declared, queries_per_month=10).answer()[:, 0] == pytest.approx(by_hand)
    # of bursts of 5, a tenth of the calls is escalated: bursts of .1 x 4 + 1 = 1.4 calls, on average
    thinned = spells_of(flat_array(5), Arrivals(flat_array(168), flat_array(5)), 0.1)
    assert thinned.calls_per_burst.item() == pytest.approx(1.4)
    assert thinned.bursts.item() == pytest.approx(0.1 / 1.4 / (730 * 60))
    # a quarter of 40,000 questions reaches the strong half: its cache sees 10,000
    half = cost("c", "cascade", usd_per_query=flat(0.01), prefixes=(prefix(calls=0.25),))
    draws = at_volume(half, queries_per_month=40_000)
    shares = draws.hit_share(0)
    assert shares is not None and shares == pytest.approx(share(10_000, 5))
    saved = 0.25 * 3_000 * (shares * 2.7 - (1 - shares) * 0.75) / 1e6
    assert 0.01 - draws.answer()[:, 0] == pytest.approx(saved)


def test_answers_by_batch_are_cheaper_and_find_no_cache() -> None:
    arm = cost("p", usd_per_query=flat(0.01), prefixes=(prefix(asked_for=False),), batch_discount=0.5)
    plain = cost("q", usd_per_query=flat(0.01))
    dollars = at_volume(arm, plain, queries_per_month=20_000, batch_share=0.4).answer()[0]
    # by hand: 60% at once, whose calls are 12,000 a month, and 40% at half the uncached price
    hit = share(12_000, 5)
    saved = 3_000 * (hit * (3.0 - 0.3) - (1 - hit) * 0.75) / 1e6
    assert dollars[0] == pytest.approx(0.6 * (0.01 - saved) + 0.4 * 0.005, rel=1e-9)
    assert dollars[1] == pytest.approx(0.01)
    everything = at_volume(arm, plain, queries_per_month=20_000, batch_share=1)
    assert everything.answer()[0].tolist() == pytest.approx([0.005, 0.01])
    assert everything.hit_share(0) is None


def test_arms_toml_keeps_prefixes(tmp_path: Path) -> None:
    starts = prefix(), prefix(calls=0.5, reached=Range(0.5, 0.8, 1))
    arm = cost("p", usd_per_query=flat(0.01), prefixes=starts)
    (tmp_path / "arms.toml").write_text(arms_toml([arm]))
    assert read_arms(tmp_path / "arms.toml")["p"].prefixes == arm.prefixes


def test_declared_tokens_and_minutes_follow_traffic(tmp_path: Path) -> None:
    lines = [
        {"arm": arm, "item": str(i), "score": float(i % 2), "input_tokens": 3_200, "output_tokens": 20}
        for arm in ("p", "q")
        for i in range(20)
    ]
    (tmp_path / "trials.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    price = "input = 3, output = 15, cached_input = 0.3, cache_write = 3.75"
    caching = "static_tokens = 3000, cache_minutes = 5"
    text = f'[[arm]]\nname = "p"\nkind = "prompt"\nprice = {{ {price}, {caching} }}\n'
    text += '[[arm]]\nname = "q"\nkind = "tuned"\nusd_per_query = 0.001\n'
    arms = tmp_path / "arms.toml"
    for volume in (1_000, 100_000):
        arms.write_text(text)
        known = task(traffic={"queries_per_month": volume})
        finalist = decide_trials(tmp_path / "trials.jsonl", known, arms=arms).decision.finalist("p")
        hit = share(volume, 5)
        by_hand = (3_000 * (hit * 0.3 + (1 - hit) * 3.75) + 200 * 3 + 20 * 15) / 1e6
        assert finalist.cost_per_query_usd.likely == pytest.approx(by_hand)
        assert finalist.cache_hit is not None and finalist.cache_hit.likely == pytest.approx(hit)
    for wrong, words in (
        (caching.replace("static_tokens = 3000, ", ""), "cache_minutes and static_tokens are given together"),
        (f"{caching}, cache_hit = 0.5", "give cache_hit or cache_minutes"),
    ):
        arms.write_text(text.replace(caching, wrong))
        with pytest.raises(TrialsError, match=words):
            decide_trials(tmp_path / "trials.jsonl", task(), arms=arms)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("hours_a_week", 200, "168 hours of a week"),
        ("hours_a_week", 0, "168 hours of a week"),
        ("calls_per_burst", 0.5, "at least 1"),
    ],
)
def test_impossible_traffic_is_named(key: str, value: float, words: str) -> None:
    with pytest.raises(TaskError, match=rf"traffic\.{key}.*{words}"):
        task(traffic={key: value})


def test_what_is_uncertain_about_a_cache_is_in_the_tornado() -> None:
    uncertain = prefix(minutes=Range(5, 7, 10), reached=Range(0.5, 0.8, 1))
    arms = [
        cost("p", usd_per_query=flat(0.0099), prefixes=(uncertain,)),
        cost("t", "tuned", usd_per_query=flat(0.001)),
    ]
    known = task(traffic={"queries_per_month": 10_000, "hours_a_week": [40, 60, 168]})
    swings = {swing.what: swing for swing in tornado(arms, known, 0, 1)}
    assert {"p: minutes that its prompt stays cached", "traffic.hours_a_week"} <= swings.keys()
    reached = swings["p: share of calls that reach its cached prompt"]
    assert reached.low > reached.high  # the more calls reach it, the cheaper is prompting


# -- what an arm's prompts share ------------------------------------------------------------------


class Counting:
    """An endpoint that counts a token for every four characters."""

    name = "openai/gpt-4o-mini"

    def complete(self, requests: Any, done: Any, allow: Any) -> None:
        for position, request in enumerate(requests):
            usage = Usage(self.name, input_tokens=len(text(request)) // 4, output_tokens=1)
            done(position, Completion("a", usage))


def text(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def test_the_fixed_start_of_prompts_is_counted_in_steps_from_a_minimum() -> None:
    prompts = [Prompt(f"{n} is what I ask", "Answer. " * 640, kind="text") for n in range(3)]
    cache = PromptCache(minimum_tokens=1_024, step_tokens=128)
    counted = [reply.usage.cacheable_tokens for reply in TextModel(Counting(), cache=cache).answer(prompts)]
    assert counted == [1_280] * 3  # 640 x 8 characters and a few more: 1,280 to 1,300 tokens
    short = [replace(prompt, instruction="Answer.") for prompt in prompts]
    assert [r.usage.cacheable_tokens for r in TextModel(Counting(), cache=cache).answer(short)] == [0] * 3
    alone = TextModel(Counting(), cache=cache).answer(prompts[:1])
    assert alone[0].usage.cacheable_tokens is None  # one input does not show what is fixed
    assert TextModel(Counting()).answer(prompts)[0].usage.cacheable_tokens is None


def test_known_caches_have_sources_and_the_first_pattern_counts() -> None:
    assert all(cache.source and cache.checked for cache in known_caches())
    opus, mini, newest = (
        prompt_cache(name)
        for name in ("anthropic/claude-opus-4-6", "openai/gpt-4o-mini", "openai/gpt-5.5-mini")
    )
    assert opus is not None and (opus.minimum_tokens, opus.asked_for) == (4_096, True)
    assert mini is not None and (mini.step_tokens, mini.minutes.high) == (128, 10)
    assert newest is not None and newest.minutes.likely == 1_440
    assert prompt_cache("http://127.0.0.1/v1#x") is None


# -- a study ----------------------------------------------------------------------------------------

PRICE = {"input": 1.0, "cached_input": 0.1, "cache_write": 1.25, "output": 4.0}
CACHE = {"minimum_tokens": 16, "minutes": 5}


@pytest.fixture(scope="module")
def cached_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    """A study of a server that caches prompts, which its task says."""
    folder = tmp_path_factory.mktemp("cached")
    with serving(Fake(mostly_right)) as fake:
        entry = asked(fake, price=PRICE, cache=CACHE)
        traffic = {"queries_per_month": 10_000}
        task = routing(folder, 100, models=[entry], search={"calls": 0}, traffic=traffic)
        yield run(task, out=folder / "study")


def prompted(decision: Any) -> Any:
    return next(f for f in decision.finalists if f.kind == "prompt" and f.cache_hit is not None)


def test_a_study_prices_its_prompts_by_the_traffic_of_production(cached_study: Result) -> None:
    finalist, study = prompted(cached_study.decision), Path(str(cached_study.folder))
    assert finalist.cache_hit.likely == pytest.approx(share(10_000, 5), abs=0.01)
    trials = [json.loads(line) for line in (study / "trials.jsonl").read_text().splitlines()]
    mine = [trial for trial in trials if trial["arm"] == finalist.arm]
    assert all(0 < trial["cacheable_tokens"] < trial["input_tokens"] for trial in mine)
    (start,) = read_arms(study / "arms.toml")[finalist.arm].prefixes
    assert start.tokens == pytest.approx(np.mean([trial["cacheable_tokens"] for trial in mine]))
    uncached = np.mean([trial["input_tokens"] + 4 * trial["output_tokens"] for trial in mine])
    hit = share(10_000, 5)
    by_hand = uncached - start.tokens * (hit * 0.9 - (1 - hit) * 0.25)
    assert finalist.cost_per_query_usd.likely * 1e6 == pytest.approx(by_hand, rel=0.02)
    assert f"{finalist.cache_hit.likely:.0%}" in Path(str(cached_study.report)).read_text()


def test_what_if_takes_another_share_and_another_traffic(cached_study: Result) -> None:
    folder = Path(str(cached_study.folder))
    assert prompted(what_if(folder, Scenario()).after).cache_hit == prompted(cached_study.decision).cache_hit
    overridden = prompted(what_if(folder, Scenario(cache_hit=0.25)).after)
    assert overridden.cache_hit.likely == 0.25
    busy = prompted(what_if(folder, Scenario({"traffic.queries_per_month": 1e6})).after)
    assert busy.cache_hit.likely == pytest.approx(1)
    assert busy.cost_per_query_usd.likely < overridden.cost_per_query_usd.likely
    bursts = prompted(what_if(folder, Scenario({"traffic.calls_per_burst": 10})).after)
    assert bursts.cache_hit.likely > 0.9


def test_another_price_of_input_takes_that_of_writing_along_where_both_were_equal() -> None:
    measured = {"input": 0.25, "cached_input": 0.025, "cache_write": 0.25, "output": 2.0}
    assert TokenPrice(**_changed_rates(measured, {"input": 0.05})).cache_write_rate == 0.05
    assert _changed_rates(measured, {"input": 0.05, "cache_write": 0.1})["cache_write"] == 0.1
    dearer = {**measured, "cache_write": 0.3125}
    assert _changed_rates(dearer, {"input": 0.05})["cache_write"] == 0.3125


@pytest.mark.parametrize(("cacheable", "expected"), [(0.0, 0.0), (math.nan, 0.9)])
def test_a_share_of_hits_gives_nothing_to_prompts_of_which_nothing_is_cached(
    cacheable: float, expected: float
) -> None:
    scores = replace(answers("p", [1.0], []), cache_tokens=np.array([[0.0, cacheable]]))
    assert _hit_without_prefix(cost("p"), scores, 0.9) == expected
    assert _hit_without_prefix(cost("p"), scores, None) is None


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_page_prices_a_cached_prompt_as_python_does(cached_study: Result) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(Path(str(cached_study.report)).resolve().as_uri())
        shown = {}
        for power in ("3", "4", "6"):
            page.fill("#volume", power)
            shown[power] = page.inner_text("#live-rows")
        browser.close()
    assert cached_study.decision is not None
    costs, finalist = cached_study.decision.evidence.costs, prompted(cached_study.decision)
    for power, rows in shown.items():
        mean = float(np.mean(costs.horizon(10.0 ** int(power))[:, costs.arms.index(finalist.arm)]))
        assert usd(mean) in rows, (power, rows)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_page_finds_the_same_break_even_as_python(cached_study: Result) -> None:
    """The slider's own function, for every pair that the report names."""
    playwright = pytest.importorskip("playwright.sync_api")
    pairs = [c for c in cached_study.document["break_even"] if c["queries_per_month"] is not None]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(Path(str(cached_study.report)).resolve().as_uri())
        call = "(c) => window.tunepoint.crossing(c.from, c.to, 12)"
        shown = [page.evaluate(call, {"from": c["from"], "to": c["to"]}) for c in pairs]
        browser.close()
    assert pairs
    for crossing, volume in zip(pairs, shown, strict=True):
        assert volume == pytest.approx(crossing["queries_per_month"]["likely"], rel=0.1, abs=1)
