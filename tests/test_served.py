"""What is served against what was measured, through a real endpoint."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TEMPLATE, tiny_checkpoint
from test_local import served
from test_tuned_study import routing
from typer.testing import CliRunner

from tunepoint import Task
from tunepoint.arms.causal.dev_answers import DEV_ANSWERS_FILE
from tunepoint.arms.causal.server_parity import PARITY_FILE, check_served
from tunepoint.arms.causal.tune import tune_model
from tunepoint.cli.app import app
from tunepoint.errors import StudyError, TunepointError
from tunepoint.task.sections import Tune

needs_server = pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None, reason="`transformers serve` needs fastapi and uvicorn"
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned and merged model, and the task beside it."""
    folder = tmp_path_factory.mktemp("tuned")
    base = tiny_checkpoint(folder / "base")
    task = routing(folder, 120)
    tune_model(task, Tune(base=str(base), epochs=6, learning_rate=1e-2), folder / "out", merge=True)
    (folder / "task.toml").write_text(
        'name = "routing"\ninstruction = "Route the message."\n'
        '[data]\npath = "messages.csv"\ninput = "text"\ntarget = "queue"\nid = "id"\n'
        "[traffic]\nqueries_per_month = 50_000\n"
    )
    return folder


def parity(folder: Path, url: str, model: Path, *options: str) -> Any:
    words = ["parity", str(folder / "out"), "--task", str(folder), "--at", f"{url}#{model}", *options]
    return CliRunner().invoke(app, words)


@needs_server
def test_a_server_of_the_merged_model_answers_as_it_was_measured(tuned: Path, tmp_path: Path) -> None:
    merged = tuned / "out" / "merged"
    with served(merged, tmp_path / "home") as url:
        done = parity(tuned, url, merged)
    assert done.exit_code == 0, done.output
    assert "full prompt: 18 of 18 answers are the same" in done.output
    (report,) = json.loads((tuned / "out" / PARITY_FILE).read_text()).values()
    assert report["holds"] and set(report["prompts"]) == {"full", "short", "none"}


@needs_server
def test_another_chat_template_or_other_weights_are_noticed_and_shown(tuned: Path, tmp_path: Path) -> None:
    merged = tuned / "out" / "merged"
    other = tmp_path / "other"
    shutil.copytree(merged, other)
    (other / "chat_template.jinja").write_text(TEMPLATE.replace("<|end|>{%", "<|end|>\n{%"))
    with served(other, tmp_path / "home") as url:
        done = parity(tuned, url, other, "--prompt", "short")
    assert done.exit_code == 2 and "another chat template" in done.output
    assert "must not be promoted" in done.output
    untuned = tuned / "base"
    with served(untuned, tmp_path / "home2") as url:
        done = parity(tuned, url, untuned, "--prompt", "none")
    assert done.exit_code == 2 and "of 18 answers are the same; score -" in done.output
    assert "measured, " in done.output and "served" in done.output  # the first that differ
    reports = json.loads((tuned / "out" / PARITY_FILE).read_text())
    assert [report["holds"] for report in reports.values()][-2:] == [False, False]


def test_what_cannot_be_compared_is_refused(tuned: Path, tmp_path: Path) -> None:
    task = Task.load(tuned)
    with pytest.raises(StudyError, match=f"no tunepoint.json and {DEV_ANSWERS_FILE} in it"):
        check_served(tmp_path, task, "http://127.0.0.1:9/v1#x")
    changed = task.model_copy(update={"instruction": "Route it."})
    with pytest.raises(StudyError, match="tuned on other examples or another instruction"):
        check_served(tuned / "out", changed, "http://127.0.0.1:9/v1#x")
    for name, text, message in (
        ("tunepoint.json", "{", "damaged"),
        ("tunepoint.json", "{}", "answer_tokens, data_sha256, seed, task_sha256 missing"),
        (DEV_ANSWERS_FILE, "", "no trials"),
        (PARITY_FILE, "[", "damaged"),
    ):
        broken = tmp_path / f"{name}-{len(text)}"
        shutil.copytree(tuned / "out", broken, ignore=shutil.ignore_patterns("runs", "merged"))
        (broken / name).write_text(text)
        with pytest.raises(TunepointError, match=message):
            check_served(broken, task, "http://127.0.0.1:9/v1#x")
    some = tmp_path / "some"
    shutil.copytree(tuned / "out", some, ignore=shutil.ignore_patterns("runs", "merged"))
    lines = (some / DEV_ANSWERS_FILE).read_text().splitlines(keepends=True)
    (some / DEV_ANSWERS_FILE).write_text("".join(line for line in lines if '"none"' in line))
    with pytest.raises(StudyError, match="lacks answers to the whole validation set with the prompts full"):
        check_served(some, task, "http://127.0.0.1:9/v1#x", prompts=["full"])
    unknown = parity(tuned, "http://127.0.0.1:9/v1", Path("x"), "--prompt", "long")
    assert unknown.exit_code == 2 and "the prompts are full, short, none" in unknown.output
