"""`tunepoint gate`: a changed prompt is no worse, worse, or nobody can tell; in lines, Markdown and JUnit."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from conftest import ROOT
from servers import Fake, serving
from typer.testing import CliRunner

from tunepoint import Trial
from tunepoint.cli.app import app
from tunepoint.errors import StudyError
from tunepoint.study.gate import Gate, Limits, compare_with_baseline

GOOD, BAD = "Route with care: {text}", "Route in haste: {text}"


def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    text = messages[-1]["content"]
    right = "billing" if "invoice" in text else "device_setup"
    wrong = "device_setup" if right == "billing" else "billing"
    number = zlib.crc32(text.partition(": ")[2].encode())
    return wrong if ("in haste" in text and number % 3 == 0) else right


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(answer)) as running:
        yield running


def write_task(folder: Path, fake: Fake, prompt: str) -> Path:
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "queue"])
        words = ["kettle", "lamp", "mirror", "orchard", "pepper", "river", "stone", "tulip", "violin", "door"]
        for i in range(300):
            subject = f"{words[i % 10]} {words[i // 10 % 10]} {words[i // 100]} number {i}"
            text, queue = ("an invoice about", "billing") if i % 2 else ("pairing the", "device_setup")
            writer.writerow([f"{text} {subject}", queue])
    (folder / "prompt.txt").write_text(prompt)
    (folder / "task.toml").write_text(
        f"""
name = "gated"
instruction = "Route."
[data]
path = "data.csv"
input = "text"
target = "queue"
[limits]
margin = 0.05
[[models]]
name = "{fake.url}#tiny"
price = {{ input = 1, output = 4 }}
[[prompts]]
name = "today"
messages = "prompt.json"
"""
    )
    (folder / "prompt.json").write_text(json.dumps([{"role": "user", "content": prompt}]))
    return folder


def gated(folder: Path, *arguments: object) -> tuple[int, str]:
    words = ["gate", folder, "--against", folder / "gate.jsonl", "--calls", folder / "calls.sqlite"]
    done = CliRunner().invoke(app, [*map(str, words), *map(str, arguments)])
    return done.exit_code, done.output


def test_a_changed_prompt_passes_or_fails_and_the_files_say_why(fake: Fake, tmp_path: Path) -> None:
    folder = write_task(tmp_path, fake, GOOD)
    assert gated(folder)[0] == 2  # no baseline yet
    code, output = gated(folder, "--update", "--items", 120)
    assert code == 0 and "120 examples. Commit it." in output
    calls = len(fake.calls)
    code, output = gated(folder, "--items", 120)
    assert code == 0 and output.startswith("No worse than the baseline") and len(fake.calls) == calls
    write_task(tmp_path, fake, BAD)
    summary, junit = tmp_path / "summary.md", tmp_path / "junit.xml"
    code, output = gated(folder, "--items", 120, "--markdown", summary, "--junit", junit)
    assert code == 1 and "Worse than the baseline" in output and "worse by more than 5 points" in output
    text = summary.read_text()
    assert text.startswith("## ❌ Worse than the baseline") and "| got worse | before | now |" in text
    assert "… and" in text  # of 40 or so, 20 are shown
    suite = ElementTree.fromstring(junit.read_text())
    assert suite.attrib["failures"] == "1" and suite.attrib["tests"] == "3"
    assert {case.attrib["name"] for case in suite} == {"right answers", "readable answers", "cost"}
    content = json.loads(gated(folder, "--items", 120, "--json")[1])
    assert content["status"] == "failed" and content["better"] == 0 and len(content["worse"]) > 20


def test_a_spending_cap_holds_and_what_was_answered_is_kept(fake: Fake, tmp_path: Path) -> None:
    folder = write_task(tmp_path, fake, GOOD)
    code, output = gated(folder, "--update", "--items", 120, "--max-usd", 0.00001)
    assert code == 2 and "spending cap" in output and not (folder / "gate.jsonl").exists()


def test_rows_that_are_added_leave_most_examples_and_other_data_is_named(fake: Fake, tmp_path: Path) -> None:
    folder = write_task(tmp_path, fake, GOOD)
    assert gated(folder, "--update", "--items", 120)[0] == 0
    head, *rows = (folder / "data.csv").read_text().splitlines()
    (folder / "data.csv").write_text("\n".join([head, "a new invoice nobody has seen,billing", *rows]) + "\n")
    code, output = gated(folder, "--items", 120, "--margin", 0.1)
    assert code == 0 and "0 examples got worse" in output, output
    others = [row.replace("invoice about", "invoice for").replace("pairing the", "pairing a") for row in rows]
    (folder / "data.csv").write_text("\n".join([head, *others]) + "\n")
    code, output = gated(folder, "--items", 120)
    assert code == 2 and "write the baseline anew (--update)" in output


def test_what_cannot_be_gated_is_named(fake: Fake, tmp_path: Path) -> None:
    folder = write_task(tmp_path, fake, GOOD)
    code, output = gated(folder, "--option", "another")
    assert code == 2 and "--option 'another'" in output
    text = (folder / "task.toml").read_text()
    (folder / "task.toml").write_text(text + '[[prompts]]\nname = "second"\nmessages = "prompt.json"\n')
    code, output = gated(folder)
    assert code == 2 and "2 prompts could be meant" in output
    (folder / "task.toml").write_text(text.partition("[[prompts]]")[0])
    assert gated(folder, "--update", "--items", 20)[0] == 0  # the plain instruction
    (folder / "task.toml").write_text(text.partition("[[models]]")[0])
    code, output = gated(folder)
    assert code == 2 and "names no chat model" in output


# -- the comparison ------------------------------------------------------------------------------------


def trials(arm: str, wrong: set[int], count: int = 200, **more: Any) -> list[Trial]:
    right = [float(i not in wrong) for i in range(count)]
    return [Trial(arm=arm, item=str(i), score=score, answer="a", **more) for i, score in enumerate(right)]


def test_a_small_set_is_unclear_and_says_how_many_more_it_takes(tmp_path: Path) -> None:
    baseline, candidate = trials("old", set(range(3)), 40), trials("new", set(range(2, 6)), 40)
    gate = compare_with_baseline(candidate, baseline, Limits(0.05))
    assert gate.status == "unclear" and "more examples would tell" in gate.checks[0].words
    assert [regression.item for regression in gate.worse] == ["3", "4", "5"] and gate.better == 2
    worse, right = trials("new", set(range(5)), 40), trials("old", set(), 40)
    much_worse = compare_with_baseline(worse, right, Limits(0.05))
    assert "no number of examples shows a difference of" in much_worse.checks[0].words
    for arm, rows in (("old", baseline), ("new", candidate)):
        (tmp_path / f"{arm}.jsonl").write_text("".join(trial.line() for trial in rows))
    (tmp_path / "task.toml").write_text('name = "t"\n[limits]\nmargin = 0.05\n')
    words = ["gate", tmp_path, "--against", tmp_path / "old.jsonl", "--trials", tmp_path / "new.jsonl"]
    assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 3
    assert CliRunner().invoke(app, [*map(str, words), "--allow-unclear"]).exit_code == 0
    assert CliRunner().invoke(app, [*map(str, words), "--margin", "0.5"]).exit_code == 0


def test_groups_that_fail_together_make_the_gate_less_sure() -> None:
    """200 alike answers pass alone, but not where they are 20 groups of ten: any group may fail as one."""

    def found(size: int, wrong: set[int]) -> Gate:
        sides = trials("new", wrong), trials("old", set())
        grouped = [
            [trial.model_copy(update={"cluster": str(int(trial.item) // size)}) for trial in side]
            for side in sides
        ]
        return compare_with_baseline(grouped[0], grouped[1], Limits(0.05))

    assert compare_with_baseline(trials("new", set()), trials("old", set()), Limits(0.05)).status == "passed"
    assert found(1, set()).status == "passed"
    assert found(10, set()).status == "unclear"
    assert found(10, set(range(10))).status == "unclear"
    assert found(10, set(range(60))).status == "failed"


def test_a_limit_on_cost_is_unclear_where_answers_have_no_price() -> None:
    old, new = trials("old", set(), cost_usd=0.001), trials("new", set())
    assert compare_with_baseline(new, old, Limits(0.05)).status == "passed"
    limited = compare_with_baseline(new, old, Limits(0.05, cost_increase=0.1))
    assert limited.status == "unclear" and "200 of 200 answers have no cost" in limited.checks[-1].words


def test_unreadable_answers_and_cost_are_gated_too() -> None:
    old = trials("old", set(), cost_usd=0.001)
    unread = [trial.model_copy(update={"arm": "new", "format_ok": int(trial.item) % 4 > 0}) for trial in old]
    readable = {check.name: check.status for check in compare_with_baseline(unread, old, Limits(0.05)).checks}
    assert readable == {"right answers": "passed", "readable answers": "failed", "cost": "passed"}
    dear = [trial.model_copy(update={"arm": "new", "cost_usd": 0.002}) for trial in old]
    assert compare_with_baseline(dear, old, Limits(0.05)).status == "passed"
    cost = compare_with_baseline(dear, old, Limits(0.05, cost_increase=0.5)).checks[-1]
    assert cost.status == "failed" and "+100%" in cost.words and "the limit is 50.0% more" in cost.words


def test_the_gate_fails_a_candidate_at_the_margin_rarely() -> None:
    """A candidate that is exactly the margin worse passes in about 5% of the cases."""
    import numpy as np

    rng, passed = np.random.default_rng(0), 0
    for _ in range(300):
        before = rng.random(400) < 0.8
        change = rng.random(400)
        now = np.where(before, change > 0.10, change < 0.15)  # .80 -> .75
        rows = [
            [Trial(arm=arm, item=str(i), score=float(right)) for i, right in enumerate(side)]
            for arm, side in (("new", now), ("old", before))
        ]
        passed += compare_with_baseline(rows[0], rows[1], Limits(0.05)).status == "passed"
    assert passed / 300 <= 0.08


def test_mistakes_are_named() -> None:
    with pytest.raises(StudyError, match="the baseline holds 2 options"):
        compare_with_baseline(trials("new", set()), [*trials("a", set()), *trials("b", set())], Limits(0.05))
    moved = [trial.model_copy(update={"item": f"x{trial.item}"}) for trial in trials("old", set())]
    with pytest.raises(StudyError, match="share 0 of 200 examples"):
        compare_with_baseline(trials("new", set()), moved, Limits(0.05))


def test_the_action_runs_the_gate_with_every_input() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = [{"name": "", **step} for step in action["runs"]["steps"]]
    gate = next(step for step in steps if step["name"] == "Gate")
    assert steps[-1]["if"] == "always()"  # what was paid for is kept although the gate fails
    # no text of inputs becomes code
    assert gate["run"].startswith("tunepoint gate") and "${{" not in gate["run"]
    used = json.dumps(steps)
    assert all(f"inputs.{name}" in used for name in action["inputs"])
