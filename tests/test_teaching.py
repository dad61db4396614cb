"""Prompt, then weights, then prompt: a model learns from what the best prompted one answers well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from providers import FakeProvider, providing
from servers import KEY, Fake, serving
from test_chat_study import asked
from test_tuned_study import routing

from tunepoint import Task, run

pytestmark = pytest.mark.usefixtures("chat_alone")


def mostly_right(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    """The right queue, but for the messages whose first number ends in a seven."""
    text = messages[-1]["content"]
    words = text.split()
    place = next((i for i, word in enumerate(words) if word in ("invoice", "pairing")), None)
    if place is None:
        return "billing"
    right = "billing" if words[place] == "invoice" else "device_setup"
    wrong = "device_setup" if right == "billing" else "billing"
    return wrong if words[place + 1].endswith("7") else right


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(mostly_right)) as running:
        yield running


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


def teaching(
    folder: Path, fake: Fake, base: Path, *, count: int = 60, curve: bool = False, **model: Any
) -> Task:
    entry = asked(fake, **model)
    tune = {"base": str(base), "seeds": 1, "epochs": 1, "learning_rate": 5e-3, "distil": True, "curve": curve}
    return routing(folder, count, models=[entry], tune=[tune], search={"calls": 0})


def test_a_model_learns_what_the_best_prompt_answers_well_and_each_row_knows_its_writer(
    fake: Fake, base: Path, tmp_path: Path
) -> None:
    task = teaching(tmp_path, fake, base, count=100, curve=True, train_on_outputs=True)
    out = tmp_path / "study"
    result = run(task, out=out)
    manifest = json.loads((out / "manifest.json").read_text())
    taught = manifest["taught"]
    rows = [json.loads(line) for line in (out / "arms" / "taught.jsonl").read_text().splitlines()]
    targets = {
        line.split(",")[0]: line.split(",") for line in (tmp_path / "messages.csv").read_text().splitlines()
    }
    assert 0 < taught["accepted"] == len(rows) < taught["asked"] == len(manifest["items"]["train"])
    assert {row["id"] for row in rows} <= set(manifest["items"]["train"])  # neither dev nor test
    assert all(row["origin"] == f"{task.models[0].name}, prompt {taught['prompt']}" for row in rows)
    assert all(row["score"] == 1.0 and not row["input"].split()[1].endswith("7") for row in rows)
    queues = {"billing", "device_setup"}
    assert all(row["target"] == targets[row["id"]][2] and row["target"] in queues for row in rows)
    names = [name for name in manifest["arms"] if " taught, " in name]
    assert sorted(name.split(", ")[1] for name in names) == ["full prompt", "instruction alone", "no prompt"]
    for name in names:
        (fit,) = manifest["arms"][name]["fits"].values()
        assert fit["examples"] == taught["asked"] and fit["usd"] == taught["usd"] > 0
    kinds = {manifest["arms"][name]["kind"] for name in names}
    assert kinds == {"tuned", "hybrid"}
    measured = json.loads((out / "measurements.json").read_text())
    assert {row["arm"] for row in measured["ladder"]} >= set(names)
    sizes = [row["examples"] for row in measured["curve"]]
    assert sizes == [22, 55]  # 3 and 8 are too few to tune a language model
    assert "2 sizes were measured" in measured["learning"]["why_not"]
    assert manifest["spent_usd"] >= taught["usd"]
    calls = len(fake.calls)
    again = run(task, out=out)
    assert len(fake.calls) == calls and again.document["winner"] == result.document["winner"]


@pytest.mark.no_cover  # what it runs, others cover
def test_a_teacher_that_is_right_on_everything_still_costs_what_it_cost(base: Path, tmp_path: Path) -> None:
    def right(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        return "billing" if "invoice" in messages[-1]["content"].split("\n")[-1] else "device_setup"

    with serving(Fake(right)) as fake:
        run(teaching(tmp_path, fake, base, train_on_outputs=True), out=tmp_path / "study")
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    assert manifest["taught"]["accepted"] == manifest["taught"]["asked"]  # the very targets of train
    costs = {name: arm["fits"]["0"]["usd"] for name, arm in manifest["arms"].items() if " lora" in name}
    assert {usd for name, usd in costs.items() if " taught, " in name} == {manifest["taught"]["usd"]}
    assert {usd for name, usd in costs.items() if " taught, " not in name} == {0.0}


@pytest.mark.no_cover  # what it runs, others cover
def test_the_best_teacher_that_is_allowed_teaches(base: Path, tmp_path: Path) -> None:
    def answered(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        return mostly_right(messages, body) if body["model"] == "tiny" else "billing"

    with serving(Fake(answered)) as fake:
        models = [
            asked(fake, train_on_outputs=False),
            asked(fake, name=f"{fake.url}#tiny-large", train_on_outputs=True),
        ]
        tune = {"base": str(base), "seeds": 1, "epochs": 1, "distil": True}
        run(routing(tmp_path, 60, models=models, tune=[tune], search={"calls": 0}), out=tmp_path / "study")
    taught = json.loads((tmp_path / "study" / "manifest.json").read_text())["taught"]
    assert taught["teacher"].startswith("tiny-large ") and taught["accepted"] == 17


def test_what_is_good_enough_is_part_of_a_study_that_teaches(fake: Fake, base: Path, tmp_path: Path) -> None:
    task = teaching(tmp_path, fake, base, train_on_outputs=True)
    other = task.model_copy(update={"score": task.score.model_copy(update={"accept": 0.3})})
    assert task.trials_fingerprint() != other.trials_fingerprint()


@pytest.mark.no_cover  # what it runs, others cover
def test_nobody_guesses_whether_outputs_may_be_trained_on(fake: Fake, base: Path, tmp_path: Path) -> None:
    for number, model in enumerate(({}, {"train_on_outputs": False})):
        out = tmp_path / f"study{number}"
        run(teaching(tmp_path, fake, base, **model), out=out)
        not_run = json.loads((out / "measurements.json").read_text())["not_run"]
        (why,) = [row["reason"] for row in not_run if row["name"] == "tuned on the best prompt's answers"]
        assert "train_on_outputs = true" in why and fake.url in why
        assert not (out / "arms" / "taught.jsonl").exists()


@pytest.mark.no_cover  # what it runs, others cover
def test_too_few_good_answers_teach_nothing_and_that_is_said(base: Path, tmp_path: Path) -> None:
    with serving(Fake(lambda messages, body: "no idea")) as fake:
        task = teaching(tmp_path, fake, base, train_on_outputs=True)
        run(task, out=tmp_path / "study")
    not_run = json.loads((tmp_path / "study" / "measurements.json").read_text())["not_run"]
    (why,) = [row["reason"] for row in not_run if row["name"] == "tuned on the best prompt's answers"]
    assert why.startswith("0 of 33 answers of tiny") and "10 are the fewest" in why


@pytest.mark.no_cover  # what it runs, others cover
def test_without_a_chat_model_there_is_no_teacher(base: Path, tmp_path: Path) -> None:
    tune = {"base": str(base), "seeds": 1, "epochs": 1, "distil": True}
    run(routing(tmp_path, 60, tune=[tune]), out=tmp_path / "study")
    not_run = json.loads((tmp_path / "study" / "measurements.json").read_text())["not_run"]
    assert any("no chat model is prompted" in row["reason"] for row in not_run)


@pytest.mark.no_cover  # what it runs, others cover
def test_a_providers_model_is_taught_by_a_job_of_its_own(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with providing(FakeProvider(KEY)) as provider:
        monkeypatch.setenv("TUNEPOINT_API_KEY", KEY)
        monkeypatch.setenv("TUNEPOINT_OPENAI_URL", provider.url)
        monkeypatch.setattr("tunepoint.arms.hosted.jobs.POLL_SECONDS", 0.0)
        entry = asked(fake, train_on_outputs=True)
        tune = {"base": "gpt-4o-mini-2024-07-18", "provider": "openai", "distil": True}
        task = routing(tmp_path, 60, models=[entry], tune=[tune], search={"calls": 0})
        run(task, out=tmp_path / "study")
        assert len(provider.jobs) == 2
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    plain, taught = (
        manifest["arms"][f"openai/gpt-4o-mini-2024-07-18 fine-tuned{suffix}"]["fits"]["0"]
        for suffix in ("", ", taught")
    )
    assert taught["examples"] == manifest["taught"]["asked"] and plain["examples"] == 33
    assert taught["usd"] >= manifest["taught"]["usd"] > 0
