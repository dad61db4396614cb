"""Another volume, horizon or price on the same trials; prices; what a study would cost."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from servers import Fake, serving
from test_chat_study import asked
from test_teaching import mostly_right
from test_tuned_study import routing
from typer.testing import CliRunner

from tunepoint import Result, Task, run
from tunepoint.cli.app import app
from tunepoint.errors import ModelError, StudyError, TaskError
from tunepoint.models.chat import Usage
from tunepoint.models.prices import call_price, project_prices
from tunepoint.study.cost_table import VOLUMES, costs_csv
from tunepoint.study.estimate import estimate
from tunepoint.study.whatif import Scenario, WhatIf, task_of, what_if

PRICE = {"input": 1.0, "cached_input": 0.25, "output": 4.0}


def call(*words: Any, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def paid_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A study whose prompts are paid by the token."""
    folder = tmp_path_factory.mktemp("asked")
    with serving(Fake(mostly_right)) as fake:
        entry = asked(fake, price=PRICE)
        run(routing(folder, 100, models=[entry], search={"calls": 0}), out=folder / "study")
    yield folder / "study", entry["name"]


def per_query(comparison: WhatIf, name: str) -> tuple[float, float]:
    return tuple(
        decision.finalist(name).cost_per_query_usd.likely
        for decision in (comparison.before, comparison.after)
    )  # type: ignore[return-value]


def prompted(study: Path) -> str:
    manifest = json.loads((study / "manifest.json").read_text())
    return next(
        name for name in manifest["sealed_test"]["finalists"] if manifest["arms"][name]["kind"] == "prompt"
    )


def test_nothing_changed_decides_as_before(finished: Result) -> None:
    assert finished.folder is not None
    comparison = what_if(finished.folder, Scenario())
    assert comparison.before.winner == comparison.after.winner == finished.document["winner"]
    for finalist, recorded in zip(comparison.before.finalists, finished.document["finalists"], strict=True):
        assert finalist.horizon_usd.likely == pytest.approx(recorded["horizon_usd"]["likely"], abs=1e-5)
    assert task_of(finished.folder).value.error_usd == 0.4


def test_runs_that_the_study_did_not_decide_on_are_not_decided_on_here(
    finished: Result, tmp_path: Path
) -> None:
    assert finished.folder is not None
    study = tmp_path / "study"
    shutil.copytree(finished.folder, study)
    lines = (study / "trials.jsonl").read_text().splitlines()
    tuned = [json.loads(line) for line in lines if '"seed":"0"' in line.replace(" ", "")]
    extra = [json.dumps({**row, "seed": "7", "score": 0.0}) for row in tuned[:5]]  # a seed that was killed
    (study / "trials.jsonl").write_text("\n".join([*lines, *extra]) + "\n")
    before = what_if(study, Scenario()).before
    assert (
        extra and before.items == finished.document["items"] and before.winner == finished.document["winner"]
    )


def test_volume_horizon_and_any_key_of_the_money_change_the_costs_by_their_formula(finished: Result) -> None:
    assert finished.folder is not None
    settings = {"traffic.queries_per_month": 1e6, "traffic.horizon_months": 24, "costs.hourly_usd": 0}
    comparison = what_if(finished.folder, Scenario(settings))
    for finalist in comparison.after.finalists:
        queries = 24 * 1e6 * finalist.cost_per_query_usd.likely
        assert finalist.horizon_usd.likely == pytest.approx(queries + finalist.upfront_usd.likely, rel=0.05)
    assert comparison.after.evidence.costs.months == 24


def test_other_prices_price_the_same_tokens(paid_study: tuple[Path, str]) -> None:
    study, model = paid_study
    name = prompted(study)
    double = {"input": 2.0, "cached_input": 0.5, "output": 8.0}
    before, after = per_query(what_if(study, Scenario(prices={model: double})), name)
    assert after == pytest.approx(2 * before, rel=1e-3)
    trials = [json.loads(line) for line in (study / "trials.jsonl").read_text().splitlines()]
    mine = [trial for trial in trials if trial["arm"] == name]
    prompt_tokens = [trial["input_tokens"] for trial in mine]
    # All calls find the tokens of the shortest prompt in the cache, at $0.25 in place of $1.
    hit = sum(
        0.25 * min(prompt_tokens) + (g - min(prompt_tokens)) + 4 * t["output_tokens"]
        for g, t in zip(prompt_tokens, mine, strict=True)
    )
    _, cached = per_query(what_if(study, Scenario(cache_hit=1.0)), name)
    assert cached == pytest.approx(hit / len(mine) / 1e6, rel=1e-3)
    _, cold = per_query(what_if(study, Scenario(cache_hit=0.0)), name)
    assert cold == pytest.approx(
        sum(g + 4 * t["output_tokens"] for g, t in zip(prompt_tokens, mine, strict=True)) / len(mine) / 1e6
    )


def test_what_cannot_be_asked_for_is_named(paid_study: tuple[Path, str], tmp_path: Path) -> None:
    study, model = paid_study
    for scenario, words in (
        (Scenario({"traffic.queries_per_mnth": 5}), "traffic.queries_per_mnth"),
        (Scenario({"instruction": "x"}), "has to be measured"),
        (Scenario({"traffic.queries_per_month": -1}), "must not be negative"),
        (Scenario({"traffic.horizon_months": 0}), "horizon_months"),
        (Scenario(prices={"openai/gpt": {"input": 1.0}}), "no finalist pays for 'openai/gpt'"),
        (Scenario(prices={model: {"inptu": 1.0}}), "did you mean 'input'"),
    ):
        with pytest.raises(TaskError) as caught:
            what_if(study, scenario)
        assert words in str(caught.value)
    with pytest.raises(StudyError, match="no study here"):
        what_if(tmp_path, Scenario())


def test_the_command_prints_both_scenarios_and_writes_costs(
    paid_study: tuple[Path, str], tmp_path: Path
) -> None:
    study, model = paid_study
    words = ["whatif", study, "--volume", "200000", "--horizon", "24", "--price", f"{model}.input=0.1"]
    output = call(*words, "--csv", tmp_path / "costs.csv", "--set", "costs.hourly_usd=80")
    assert "As decided:" in output and "What if:" in output
    both = json.loads(call(*words, "--json"))
    assert both["what_if"]["winner"] in both["what_if"]["arms"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "costs.csv").read_text())))
    arms = len(both["what_if"]["arms"])
    assert len(rows) == 2 * arms * len(VOLUMES) and {row["scenario"] for row in rows} == {
        "as decided",
        "what if",
    }
    assert all(float(row["month_usd_low"]) <= float(row["month_usd_high"]) for row in rows)
    assert costs_csv(what_if(study, Scenario())) == costs_csv(what_if(study, Scenario()))
    assert next(csv.reader(io.StringIO(costs_csv(what_if(study, Scenario())))))[:3] == [
        "scenario",
        "arm",
        "kind",
    ]
    assert "not negative" in call("whatif", study, "--price", f"{model}.input=-1", code=2)
    assert "KEY=VALUE" in call("whatif", study, "--set", "nonsense", code=2)


# -- prices -------------------------------------------------------------------------------------


def test_prices_are_said_with_their_source_and_an_unknown_one_is_never_free(tmp_path: Path) -> None:
    output = call("prices", "--folder", tmp_path)
    assert "core_hour_usd: 0.04" in output and "openai/ft:gpt-4o-mini" in output and "days ago" in output
    assert "genai-prices" in call("prices", "openai/gpt-4o-mini", "--folder", tmp_path)
    assert "your own machine" in call("prices", "ollama/llama3", "--folder", tmp_path)
    unknown = call("prices", "openai/gpt-999", "--folder", tmp_path, code=2)
    assert 'prices.toml as ["openai/gpt-999"] input = DOLLARS' in unknown
    (tmp_path / "prices.toml").write_text('["openai/gpt-999"]\ninput = 0.5\noutput = 2.0\n')
    own = call("prices", "openai/gpt-999", "--folder", tmp_path)
    assert "$0.5 input" in own and "prices.toml" in own
    assert "openai/gpt-999" in call("prices", "--folder", tmp_path)


def test_a_price_is_that_of_a_short_call_not_of_a_long_context() -> None:
    price = call_price("google/gemini-2.5-pro")
    assert price is not None
    rates = price.rates()
    short = price.dollars(Usage("google/gemini-2.5-pro", 800, 0, 0)) / 800 * 1e6
    assert rates["input"] == pytest.approx(short) and rates["cached_input"] < rates["input"] < rates["output"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x\n", "not valid TOML"),
        ('["a/b"]\ninput = -1\noutput = 1\n', "'a/b'] input"),
        ('["a/b"]\ninput = 1\n', "'a/b'] output"),
        ('["a/b"]\ninput = 1\noutput = 1\ncurrency = "EUR"\n', "'a/b'] currency"),
    ],
)
def test_bad_prices_of_a_project_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(ModelError, match=r"prices.toml") as caught:
        project_prices(tmp_path)
    assert words in str(caught.value)


@pytest.mark.no_cover  # what it runs, others cover
def test_a_projects_own_prices_are_what_a_study_pays(tmp_path: Path) -> None:
    with serving(Fake(mostly_right)) as fake:
        name = f"{fake.url}#tiny"
        (tmp_path / "prices.toml").write_text(f'["{name}"]\ninput = 1.0\noutput = 4.0\n')
        task = routing(tmp_path, 100, models=[{"name": name}], search={"calls": 0})
        result = run(task, out=tmp_path / "study")
    assert result.decision.finalist(prompted(tmp_path / "study")).cost_per_query_usd.likely > 0


# -- before anything is spent ---------------------------------------------------------------------


def test_a_quote_of_study_tuning_and_serving_asks_nobody(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base" / "tiny")
    with serving(Fake(mostly_right)) as fake:
        entry = {"name": f"{fake.url}#tiny", "price": PRICE}
        tune = [
            {"base": str(base), "epochs": 1, "distil": True},
            {"base": "gpt-4o-mini-2024-07-18", "provider": "openai"},
        ]
        task = routing(tmp_path, 100, models=[entry], tune=tune)
        lines = estimate(task, 0)
        plain = estimate(routing(tmp_path, 100, models=[entry]), 0)
        assert fake.calls == []
    assert lines[0].startswith("the study: about ") and "$" in lines[0]
    assert any("tuning tiny here, each of 3 runs: 55 examples" in line for line in lines)
    assert any("each of 1 jobs: openai/gpt-4o-mini" in line for line in lines)
    assert any("50,000 queries a month with tiny, " in line for line in lines)

    def calls(line: str) -> float:
        return float(line.split("about ")[1].split(" calls")[0].replace(",", ""))

    assert calls(lines[0]) == calls(plain[0]) + 55  # the teacher answers train
    assert not (tmp_path / "study").exists()


def test_the_command_says_a_quote(small_task: Path) -> None:
    assert "the study: no chat model is called" in call("quote", small_task)
    assert Task.load(small_task).name == "small"
