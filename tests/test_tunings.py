"""Tuning one model outside a study, exports for other tools, and what is served against what was measured."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from test_tuned_study import routing
from typer.testing import CliRunner

from tunepoint import Example, Task, prepare
from tunepoint.arms.causal.export import export_examples
from tunepoint.arms.causal.export_forms import FORMS
from tunepoint.arms.causal.tune import base_to_tune, tune_model
from tunepoint.arms.parity import parity
from tunepoint.cli.app import app
from tunepoint.errors import EvidenceError, ModelError, TaskError
from tunepoint.models.chat import Reply, Usage
from tunepoint.task.sections import Tune
from tunepoint.trials.grading import batch_scorer
from tunepoint.trials.scorers import scorer

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


def written(folder: Path, task: Task) -> Path:
    path = folder / "task.toml"
    path.write_text(
        f'name = "{task.name}"\ninstruction = "{task.instruction}"\n'
        '[data]\npath = "messages.csv"\ninput = "text"\ntarget = "queue"\nid = "id"\n'
        "[traffic]\nqueries_per_month = 50_000\n"
    )
    return path


# -- tune ---------------------------------------------------------------------------------------


def test_a_tuned_model_is_written_with_its_card_and_merged_where_it_answers_the_same(
    base: Path, tmp_path: Path
) -> None:
    task = routing(tmp_path, 120)
    quotes: list[Any] = []
    tune = Tune(base=str(base), epochs=4, learning_rate=5e-3)
    tuned = tune_model(task, tune, tmp_path / "out", merge=True, confirm=quotes.append)
    assert len(quotes) == 1 and set(tuned.scores) == {"full", "short", "none"}
    assert tuned.merged is not None and tuned.parity is not None and tuned.parity.holds
    for folder in (tuned.folder, tuned.merged):
        card = (folder / "README.md").read_text()
        facts = json.loads((tmp_path / "out" / "tunepoint.json").read_text())
        assert facts["train_sha256"] in card and str(base) in card and "95% interval" in card
    assert (tuned.folder / "adapter_model.safetensors").exists()
    assert (tuned.merged / "model.safetensors").exists()
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tuned.merged)
    again = tune_model(task, tune, tmp_path / "out", confirm=quotes.append)
    assert len(quotes) == 1 and again.scores == tuned.scores  # nothing is trained twice


def test_a_merged_model_that_answers_otherwise_is_not_kept(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunepoint.arms.causal.base import CausalBase

    def broken(self: CausalBase, folder: Path) -> None:
        tiny_checkpoint(folder)  # the base, without what was learnt
        self.release()

    monkeypatch.setattr(CausalBase, "merge", broken)
    tune = Tune(base=str(base), epochs=6, learning_rate=1e-2)
    with pytest.raises(ModelError, match=r"does not answer as the adapter did .* answers are the same"):
        tune_model(routing(tmp_path, 200), tune, tmp_path / "out", merge=True)
    assert not (tmp_path / "out" / "merged").exists()


def test_the_command_tunes_asks_and_says_what_came_out(base: Path, tmp_path: Path) -> None:
    path = written(tmp_path, routing(tmp_path, 120))
    shown = RUNNER.invoke(
        app,
        ["tune", str(path), "--base", str(base), "--epochs", "1", "--out", str(tmp_path / "out"), "--yes"],
    )
    assert shown.exit_code == 0, shown.output
    assert "about" in shown.output and "a run" in shown.output  # the quote
    assert "validation score without a prompt:" in shown.output and "Model:" in shown.output
    none = RUNNER.invoke(app, ["tune", str(path), "--yes"])
    assert none.exit_code == 2 and "no base to tune: name one with --base" in none.output


def test_the_command_line_overrides_the_task(tmp_path: Path) -> None:
    task = routing(tmp_path, tune=[{"base": "a", "provider": "openai"}, {"base": "b", "rank": 4}])
    assert base_to_tune(task, None, None, None) == Tune(base="b", rank=4)
    assert base_to_tune(task, "c", "full", 7) == Tune(base="c", rank=4, method="full", epochs=7)
    with pytest.raises(TaskError, match=r"the command line: .*method"):
        base_to_tune(task, None, "dora", None)


# -- export -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", sorted(FORMS))
def test_train_and_dev_are_exported_and_the_test_never(form: str, tmp_path: Path) -> None:
    task = routing(tmp_path, 80)
    prepared = prepare(task, 0)
    exported = export_examples(task, prepared, tmp_path / "out", form)
    split = prepared.split
    rows = {
        part: [json.loads(line) for line in (tmp_path / "out" / f"{part}.jsonl").read_text().splitlines()]
        for part in ("train", "dev")
    }
    assert len(rows["train"]) == exported.train == len(split.train)
    assert len(rows["dev"]) == exported.dev == len(split.dev)
    everything = "".join(path.read_text() for path in exported.files)
    assert not any(example.input in everything for example in split.test)
    system, user, assistant = rows["train"][0]["messages"]
    assert (system["role"], user["role"], assistant["role"]) == ("system", "user", "assistant")
    assert assistant["content"] == split.train[0].target and split.train[0].input in user["content"]
    assert "{folder}" not in exported.next


def test_configurations_name_the_base_the_files_and_the_recipe(tmp_path: Path) -> None:
    task = routing(tmp_path, 80, tune=[{"base": "me/base", "rank": 8, "epochs": 5, "method": "qlora"}])
    prepared = prepare(task, 0)
    out = tmp_path / "out"
    for form in ("axolotl", "llama-factory", "unsloth"):
        export_examples(task, prepared, out, form)
    axolotl = settings(out / "axolotl.yaml")
    assert axolotl["base_model"] == "me/base" and axolotl["adapter"] == "qlora" and axolotl["lora_r"] == 8
    assert [part["path"] for part in (*axolotl["datasets"], *axolotl["test_datasets"])] == [
        "train.jsonl",
        "dev.jsonl",
    ]
    factory = settings(out / "llama_factory.yaml")
    known = json.loads((out / "dataset_info.json").read_text())
    assert known[factory["dataset"]]["file_name"] == "train.jsonl"
    assert known[factory["eval_dataset"]]["file_name"] == "dev.jsonl"
    assert factory["num_train_epochs"] == 5 and factory["quantization_bit"] == 4
    script = (out / "unsloth_train.py").read_text()
    ast.parse(script)
    assert "'me/base'" in script and "load_in_4bit=True" in script


def settings(path: Path) -> dict[str, Any]:
    """Our YAML is a JSON value on every line."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: json.loads(value) for name, value in (line.split(": ", 1) for line in lines)}


def test_the_command_exports_and_names_the_nearest_form(tmp_path: Path) -> None:
    path = written(tmp_path, routing(tmp_path, 80))
    shown = RUNNER.invoke(app, ["export", str(path), "--for", "axolotl", "--to", str(tmp_path / "out")])
    assert shown.exit_code == 0 and "the test set stays sealed" in " ".join(shown.output.split())
    wrong = RUNNER.invoke(app, ["export", str(path), "--for", "axolot", "--to", str(tmp_path / "other")])
    assert wrong.exit_code == 2 and "did you mean 'axolotl'" in wrong.output
    assert not (tmp_path / "other").exists()


# -- parity ---------------------------------------------------------------------------------------

EXACT = batch_scorer(scorer("exact", Path()))
DEV = [Example(str(i), f"message {i}", ("billing", "fault")[i % 2]) for i in range(100)]


def replies_of(answers: list[str], tokens: int = 20) -> list[Reply]:
    return [Reply(answer, answer, Usage("m", input_tokens=tokens)) for answer in answers]


def test_parity_holds_for_the_same_answers_and_for_near_ties() -> None:
    right = replies_of([example.target for example in DEV])
    same = parity(DEV, right, right, EXACT)
    assert same.holds and same.differing == () and "100 of 100 answers are the same" in str(same)
    near = [replace(right[0], answer="fault", text="fault"), *right[1:]]
    assert parity(DEV, right, near, EXACT).holds


def test_worse_answers_or_another_template_block_the_promotion_and_are_shown() -> None:
    right = replies_of([example.target for example in DEV])
    worse = replies_of(["billing"] * 100)
    blocked = parity(DEV, right, worse, EXACT)
    assert not blocked.holds and blocked.difference.estimate == -0.5
    assert "1: 'fault' measured, 'billing' served" in str(blocked)
    other = parity(DEV, right, replies_of([example.target for example in DEV], tokens=31), EXACT)
    assert not other.holds and "100 prompts have another number of tokens (0: 20 measured, 31 served)" in str(
        other
    )
    with pytest.raises(EvidenceError, match="7 examples are too few"):
        parity(DEV[:7], right[:7], right[:7], EXACT)
