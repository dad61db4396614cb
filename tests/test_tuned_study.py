"""Studies that tune a language model: on this machine from a tiny checkpoint, and at a fake provider."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from providers import FakeProvider, providing
from test_chat_study import goods
from typer.testing import CliRunner

from tunepoint import Task, read_trials, run
from tunepoint.arms.causal.from_task import tunes_with_titles
from tunepoint.arms.hosted.quote import HostedQuote
from tunepoint.cli.app import app
from tunepoint.errors import BudgetReached, DataError, TaskError
from tunepoint.study.gguf_export import export_language_model

pytestmark = pytest.mark.usefixtures("chat_alone")

KEY = "sk-a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


def routing(folder: Path, count: int = 100, **overrides: Any) -> Task:
    """Messages of two queues that one word tells apart."""
    rng = random.Random(0)
    lines = ["id,text,queue"]
    for i in range(count):
        word, queue = (("invoice", "billing"), ("pairing", "device_setup"))[i % 2]
        lines.append(f"{i},{word} {rng.randrange(10**6)} {rng.randrange(10**6)},{queue}")
    (folder / "messages.csv").write_text("\n".join(lines) + "\n")
    content = {
        "name": "routing",
        "instruction": "Route the message.",
        "data": {"path": "messages.csv", "input": "text", "target": "queue", "id": "id"},
        "traffic": {"queries_per_month": 50_000},
        **overrides,
    }
    return Task.parse(content, folder=folder)


def test_a_tuned_language_model_is_measured_with_three_prompts_and_decided_on(
    base: Path, tmp_path: Path
) -> None:
    tune = {"base": str(base), "seeds": 2, "epochs": 4, "learning_rate": 5e-3}
    steps: list[str] = []
    task = routing(tmp_path, tune=[tune])
    out = tmp_path / "study"
    result = run(task, out=out, progress=lambda progress: steps.append(progress.what))
    manifest = json.loads((out / "manifest.json").read_text())
    mine = {name: facts for name, facts in manifest["arms"].items() if name.startswith("tiny lora")}
    assert {facts["kind"] for facts in mine.values()} == {"tuned", "hybrid"} and len(mine) == 3
    assert all(len(facts["fits"]) == 2 for facts in mine.values())
    assert any("tokens in all epochs: about" in what for what in steps)  # the quote, from a warm-up
    assert "LoRA on a language model" not in str(result.document)
    ladder = json.loads((out / "measurements.json").read_text())["ladder"]
    assert {row["arm"] for row in ladder} >= set(mine)
    kept = out / "arms" / "language models"
    assert (
        len([path for path in kept.iterdir() if path.is_dir()]) == 2
    )  # one for each seed, whatever the prompt
    assert len(list(kept.glob("warm-up-*.json"))) == 1  # measured once for all of them
    with pytest.raises(TaskError, match="is none; tune"):  # of all bases, only GGUF files become GGUF files
        export_language_model(task, out, tmp_path / "exported")
    before = (out / "trials.jsonl").read_bytes()
    again = run(task, out=out)
    assert (out / "trials.jsonl").read_bytes() == before
    assert again.document["winner"] == result.document["winner"]


@pytest.mark.no_cover  # what it runs, others cover
def test_a_task_that_writes_text_needs_no_chat_model_if_it_tunes_one(base: Path, tmp_path: Path) -> None:
    goods(tmp_path, 60)
    content = {
        "name": "goods",
        "instruction": "Extract brand and size.",
        "data": {"path": "goods.jsonl", "input": "text", "target": "label"},
        "answer": {"kind": "json"},
        "score": {"metric": "json_fields"},
        "tune": [{"base": str(base), "seeds": 1, "epochs": 1}],
    }
    result = run(Task.parse(content, folder=tmp_path), out=tmp_path / "study")
    kinds = {finalist["kind"] for finalist in result.document["finalists"]}
    assert kinds == {"tuned", "hybrid"}
    light = next(signal for signal in result.document["signals"] if signal["id"] == "H2")
    assert light["value"] is not None and "with a light prompt" in light["detail"]
    assert any("one training seed" in caveat for caveat in result.decision.caveats)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Any:
    with providing(FakeProvider(KEY)) as running:
        monkeypatch.setenv("TUNEPOINT_API_KEY", KEY)
        monkeypatch.setenv("TUNEPOINT_OPENAI_URL", running.url)
        monkeypatch.setattr("tunepoint.arms.hosted.jobs.POLL_SECONDS", 0.0)
        yield running


HOSTED = {"base": "gpt-4o-mini-2024-07-18", "provider": "openai"}


def test_a_hosted_model_is_quoted_tuned_once_recorded_and_paid_for(
    provider: FakeProvider, tmp_path: Path
) -> None:
    quotes: list[Any] = []
    task, out = routing(tmp_path, tune=[HOSTED]), tmp_path / "study"
    result = run(task, out=out, confirm=quotes.append)
    assert [type(quote) for quote in quotes] == [HostedQuote]
    manifest = json.loads((out / "manifest.json").read_text())
    (fit,) = manifest["arms"]["openai/gpt-4o-mini-2024-07-18 fine-tuned"]["fits"].values()
    assert fit["usd"] >= 0 and len(provider.jobs) == 1
    assert manifest["spent_usd"] >= fit["usd"]
    assert "hosted fine-tuning" not in {left["name"] for left in _not_run(out)}
    answers = [t for t in read_trials(out / "dev.jsonl") if t.arm.startswith("openai/")]
    assert answers and all(trial.input_tokens for trial in answers)
    for path in out.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    listed = CliRunner().invoke(app, ["jobs", str(out)])
    assert listed.exit_code == 0 and "openai job-0: succeeded" in listed.output
    kept = CliRunner().invoke(app, ["jobs", str(out), "--cancel", "job-0"])  # it is over: nothing to stop
    assert "openai job-0: succeeded" in kept.output and provider.seen["POST /cancel"] == 0
    unknown = CliRunner().invoke(app, ["jobs", str(out), "--cancel", "job-1"])
    assert unknown.exit_code == 2 and "did you mean 'job-0'" in unknown.output
    again = run(task, out=out, replay=True)
    assert len(provider.jobs) == 1 and again.document["winner"] == result.document["winner"]


def _not_run(out: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((out / "measurements.json").read_text())["not_run"]
    return rows


@pytest.mark.no_cover  # what it runs, others cover
def test_a_cap_stops_before_anything_is_uploaded(provider: FakeProvider, tmp_path: Path) -> None:
    task = routing(tmp_path, 400, tune=[HOSTED])
    with pytest.raises(BudgetReached, match=r"fine-tuning may cost \$.* Nothing was uploaded"):
        run(task, out=tmp_path / "study", max_usd=0.01)
    assert not provider.jobs and not provider.files


def test_two_recipes_for_one_base_have_names_of_their_own(base: Path, tmp_path: Path) -> None:
    tune = [{"base": str(base), "rank": 4}, {"base": str(base), "rank": 8}, {"base": "other/base"}, HOSTED]
    titles = [title for _, title in tunes_with_titles(routing(tmp_path, tune=tune))]
    assert titles == ["tiny", "tiny #2", "base", HOSTED["base"]]
    with pytest.raises(TaskError, match=r"two \[\[tune\]\] entries tune 'gpt-4o-mini-2024-07-18' at openai"):
        tunes_with_titles(routing(tmp_path, tune=[HOSTED, {**HOSTED, "epochs": 5}]))


def test_where_a_key_is_changes_no_study(base: Path, tmp_path: Path) -> None:
    tune = {"base": str(base), "served_as": "https://models.example/v1#tuned"}
    one, other = (routing(tmp_path, tune=[{**tune, **more}]) for more in ({}, {"key_env": "MINE"}))
    assert one.trials_fingerprint() == other.trials_fingerprint()


def test_what_cannot_be_tuned_is_said_before_anything_runs(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaskError, match="'opnai' is not a known provider; did you mean 'openai'"):
        run(routing(tmp_path, tune=[{**HOSTED, "provider": "opnai"}]), out=tmp_path / "a")
    monkeypatch.setattr("tunepoint.arms.causal.rows.MIN_TRAINING_EXAMPLES", 50)
    with pytest.raises(DataError, match=r"training examples are too few to fine-tune .* 50 at least"):
        run(routing(tmp_path, 60, tune=[{"base": str(base)}]), out=tmp_path / "b")
    with pytest.raises(TaskError, match="method"):
        routing(tmp_path, tune=[{"base": "x", "method": "dora"}])
