"""Replacing what runs today: the log and the task, the test of non-inferiority, and the page."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decisions import cost, table
from test_report import CHROMIUM
from typer.testing import CliRunner

from tunepoint import Decision, Example, Task, decide, decide_trials
from tunepoint.arms.incumbent import incumbent_arms
from tunepoint.cli.app import app
from tunepoint.data.examples import read_source
from tunepoint.data.migration import base_of, draft_migration
from tunepoint.decision.document import document
from tunepoint.errors import DataError, EvidenceError, StudyError, TaskError
from tunepoint.models.production_log import read_production_log
from tunepoint.report.first_screen import headline
from tunepoint.report.words import migration_words
from tunepoint.stats.ranges import Range

RNG = np.random.default_rng
TUNED = "openai/ft:gpt-4.1-mini-2025-04-14:acme::abc"
BEFORE, AFTER = date(2026, 11, 27), date(2027, 2, 1)


# -- the decision ---------------------------------------------------------------------------------


def at(dollars: float) -> Range:
    return Range(dollars, dollars, dollars)


def replacing(accuracy: dict[str, float], usd: dict[str, float], **fields: Any) -> Decision:
    """A decision on arms of these accuracies and prices of an answer, of which `today` has to go."""
    costs = [
        cost(
            arm,
            "incumbent" if arm == "today" else "prompt",
            usd_per_query=at(usd[arm]),
            replaced=arm == "today",
            **(fields if arm == "today" else {}),
        )
        for arm in accuracy
    ]
    task = Task.parse({"name": "t", "limits": {"margin": 0.03}})
    return decide(table(accuracy, 2_000, noise=0.02), costs, task, RNG(0))


def test_the_cheapest_option_that_is_not_worse_than_today_is_chosen_though_another_is_better() -> None:
    accuracy = {"today": 0.8, "best": 0.95, "alike": 0.81, "worse": 0.7}
    usd = {"today": 0.001, "best": 0.02, "alike": 0.01, "worse": 0.005}
    decision = replacing(accuracy, usd, retires_months=1.5)
    assert (decision.winner, decision.strength, decision.rival) == ("alike", "confident", "today")
    migration = decision.migration
    assert migration is not None and (migration.replaced, migration.months_left) == ("today", 1.5)
    options = {option.arm: option for option in migration.options}
    assert [option.arm for option in migration.options] == ["best", "alike", "worse"]
    assert [options[arm].conclusion for arm in ("best", "worse")] == ["better", "worse"]
    assert options["alike"].difference.low > -0.03 and options["alike"].probability > 0.999
    assert options["worse"].probability < 0.001
    queries = 10_000 * 12
    assert options["best"].saved_usd == pytest.approx(-0.019 * queries)
    (today,) = [finalist for finalist in decision.finalists if finalist.arm == "today"]
    assert today.misses == ("it has to be replaced",)


def test_what_has_to_go_is_not_chosen_even_where_all_others_are_worse() -> None:
    decision = replacing({"today": 0.9, "a": 0.6, "b": 0.5}, {"today": 0.001, "a": 0.01, "b": 0.01})
    assert decision.winner == "a" and decision.strength is None
    assert decision.migration is not None
    assert [option.conclusion for option in decision.migration.options] == ["worse", "worse"]
    words = migration_words(written(decision))
    assert words[0] == "Today has to be replaced."
    assert words[1].startswith("a: worse than today by more than 3 points (")


def written(decision: Decision) -> dict[str, Any]:
    return document(decision, Task.parse({"name": "t"}), [], today=BEFORE)


def test_the_words_name_the_days_the_margin_and_the_money() -> None:
    usd = {"today": 0.001, "alike": 0.01}
    decision = replacing({"today": 0.8, "alike": 0.8}, usd, retires_months=1.5)
    content = written(decision)
    words = migration_words(content)
    assert words[0] == "Today has to be replaced; it is shut down in 46 days."
    assert words[1].startswith("Alike: not worse than today by more than 3 points (")
    assert words[1].endswith("sure that it is not). It costs another $1,080 over 12 months.")
    assert "; over 99% sure" in words[1]
    assert headline(content) == (
        "Replace what runs today: keep prompting. "
        "It should cost about $1,080 more a year than what runs today."
    )


def test_no_option_that_is_good_enough_is_said_and_today_is_not_advertised() -> None:
    decision = replacing({"today": 0.9, "a": 0.6, "b": 0.5}, {"today": 0.001, "a": 0.01, "b": 0.01})
    needed = decision.evidence_needed
    assert (
        needed is not None and "No option is within 3 points of what runs today (over 99% sure)" in needed.why
    )
    assert "worth its price" not in written(decision)["because"]


def test_without_a_price_of_today_nothing_is_said_of_savings() -> None:
    decision = replacing({"today": 0.8, "alike": 0.8}, {"today": 0.0, "alike": 0.01})
    today, alike = migration_words(written(decision))
    assert "its log has no price" in today and "It costs" not in alike and "saves" not in alike


def test_an_option_that_may_be_worse_is_undecided() -> None:
    decision = replacing({"today": 0.8, "a": 0.763}, {"today": 0.001, "a": 0.001})
    assert decision.strength is None and decision.migration is not None
    assert "not clear whether it is worse than today" in migration_words(written(decision))[1]


def test_studies_that_replace_nothing_say_nothing_of_it() -> None:
    task = Task.parse({"name": "t"})
    decision = decide(table({"a": 0.8, "b": 0.7}), [cost("a"), cost("b")], task, RNG(0))
    assert decision.migration is None and "migration" not in document(decision, task, [], today=BEFORE)
    assert migration_words(document(decision, task, [], today=BEFORE)) == []


def test_one_arm_has_to_go_at_most_and_only_a_log_can() -> None:
    costs = [cost(arm, "incumbent", replaced=True) for arm in ("a", "b")]
    with pytest.raises(EvidenceError, match="a and b are both to be replaced"):
        decide(table({"a": 0.8, "b": 0.7}), costs, Task.parse({"name": "t"}), RNG(0))
    with pytest.raises(TaskError, match="openai/x is no log of what runs today"):
        Task.parse({"name": "t", "models": [{"name": "openai/x", "replaced": True}]})


# -- the draft ------------------------------------------------------------------------------------

ROWS = [
    (f"message {i}", ("billing", "alerts")[i % 2], ("billing", "alerts", "billing")[i % 3]) for i in range(40)
]


def tickets(folder: Path) -> Path:
    lines = [
        "text,queue,answered,output_tokens",
        *(f"{t},{q},{o},{3 + i}" for i, (t, q, o) in enumerate(ROWS)),
    ]
    lines[5] = lines[5].replace(ROWS[4][2] + ",7", ",n/a")  # no output, and no number
    (folder / "tickets.csv").write_text("\n".join(lines) + "\n")
    return folder / "tickets.csv"


def test_migrate_writes_a_log_and_a_task_that_a_study_reads(tmp_path: Path) -> None:
    path = tickets(tmp_path)
    given = ["migrate", str(path), "--outputs", "answered", "--model", TUNED]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "39 outputs of today's model" in result.output and "2027-01-14" in result.output
    task = Task.load(tmp_path)
    today, encoder = task.models
    assert today.replaced and encoder.name == "embedded:minilm" and task.limits.margin == 0.02
    assert task.data is not None and (task.data.columns.input, task.data.columns.target) == (
        ("text",),
        "queue",
    )
    log = read_production_log(tmp_path / "today.jsonl", "today")
    examples = read_source(path, task.data.columns).examples
    outputs = [log.output_for(example.id, "") for example in examples]
    assert [output.text for output in outputs if output] == [o for i, (_, _, o) in enumerate(ROWS) if i != 4]
    assert outputs[0] is not None and outputs[0].usage.output_tokens == 3
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 2 and "--force replaces" in again.output


def test_the_answers_in_a_log_of_chats_count_as_right(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    system = {"role": "system", "content": "Sort the message."}
    path.write_text(
        "".join(
            json.dumps(
                {"messages": [system, {"role": "user", "content": t}, {"role": "assistant", "content": q}]}
            )
            + "\n"
            for t, q, _ in ROWS
        )
    )
    draft = draft_migration(path, None, TUNED, BEFORE)
    assert draft.today.is_right and draft.today.retires == date(2027, 1, 14)
    (tmp_path / "task.toml").write_text(draft.task.toml(today=draft.today))
    task = Task.load(tmp_path)
    assert task.limits.margin == 0.05 and "agreement with it" in (tmp_path / "task.toml").read_text()
    assert json.loads(draft.log.splitlines()[0]) == {"item": "calls.jsonl:1", "output": "billing"}


def test_a_day_that_has_passed_or_is_not_known_is_said(tmp_path: Path) -> None:
    path = tickets(tmp_path)
    passed = draft_migration(path, "answered", TUNED, AFTER)
    assert passed.today.retires is None and "was shut down on 2027-01-14" in passed.notes[1]
    unknown = draft_migration(path, "answered", "openai/ft:nobody-knows:x", BEFORE)
    assert unknown.today.retires is None and "no day is known" in unknown.notes[1]
    assert "--model NAME" in draft_migration(path, "answered", None, BEFORE).notes[1]
    assert base_of(TUNED) == base_of(TUNED.removeprefix("openai/")) == "openai/gpt-4.1-mini-2025-04-14"
    assert base_of("google/x") == "google/x"


def test_an_input_named_like_a_count_and_a_thin_log(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text(
        "text,seconds,answered\n" + "".join(f"call {i},{i % 7},{i % 7 if i % 2 else ''}\n" for i in range(40))
    )
    draft = draft_migration(tmp_path / "calls.csv", "answered", None, BEFORE)
    assert draft.task.target == "seconds"
    assert "20 outputs of today's model for 40 rows: 90% of the test examples need one" in draft.notes[0]


def test_a_log_that_is_too_thin_to_be_replaced_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(f'{{"item": "{i}", "output": "x"}}\n' for i in range(8)))
    log = {"name": "recorded:log.jsonl", "replaced": True}
    task = Task.parse({"name": "t", "models": [log]}, folder=tmp_path)
    test = [Example(str(i), f"text {i}", "x") for i in range(10)]
    with pytest.raises(StudyError, match=r"log.jsonl: what has to be replaced cannot be compared: its log"):
        incumbent_arms(task, test, test)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (None, "--outputs COLUMN (they are text, queue, answered, output_tokens)"),
        ("answer", "no column 'answer'; did you mean 'answered'?"),
        ("empty", "no row has an output in 'empty' (40 rows read)"),
    ],
)
def test_a_table_without_outputs_is_an_error(outputs: str | None, words: str, tmp_path: Path) -> None:
    path = tickets(tmp_path)
    if outputs == "empty":
        lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{lines[0]},empty", *(f"{line}," for line in lines[1:])]) + "\n")
    with pytest.raises(DataError) as error:
        draft_migration(path, outputs, None, BEFORE)
    assert words in str(error.value)


# -- the page -------------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_page_replaces_what_has_to_go_as_python_does(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    accuracy, usd = {"today": 0.8, "best": 0.95, "alike": 0.81}, {"today": 0.001, "best": 0.02, "alike": 0.01}
    order = RNG(1).permutation(2_000)
    with (tmp_path / "trials.jsonl").open("w") as file:
        for arm, share in accuracy.items():
            for place, item in enumerate(order.tolist()):
                trial = {"arm": arm, "item": str(item), "score": float(place < share * 2_000), "seconds": 1.0}
                file.write(json.dumps(trial) + "\n")
    arms = [
        f'[[arm]]\nname = "{arm}"\nkind = "{"incumbent" if arm == "today" else "prompt"}"\n'
        f"usd_per_query = {usd[arm]}\nreplaced = {str(arm == 'today').lower()}\n"
        for arm in accuracy
    ]
    (tmp_path / "arms.toml").write_text("".join(arms))
    task = Task.parse({"name": "t", "limits": {"margin": 0.03}})
    trials, declared = tmp_path / "trials.jsonl", tmp_path / "arms.toml"
    result = decide_trials(trials, task, arms=declared, out=tmp_path / "study")
    assert result.decision.winner == "alike"  # against the best, `best` would be the only choice
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(Path(str(result.report)).resolve().as_uri())
        live, section = page.inner_text("#live"), page.inner_text("#migration")
        browser.close()
    assert ": alike (" in live
    words = migration_words(written(result.decision))
    assert words[0] == "Today has to be replaced." and len(words) == 3
    assert all(line.partition(". It")[0] in section for line in words)
