"""No command trains on, exports or sends an item that a study has sealed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from conftest import write_small
from typer.testing import CliRunner

from tunepoint import Task, prepare
from tunepoint.arms.causal.export_forms import FORMS
from tunepoint.capture.opening import open_store
from tunepoint.cli.app import app
from tunepoint.data.examples import Example
from tunepoint.errors import StudyError
from tunepoint.loop.deployment import LocalDeployment
from tunepoint.study.directory import open_study
from tunepoint.study.seal import REGISTER, register_study, seed_of_seal

SEED = 7
TASK_COMMANDS = {"check", "run", "tune", "export", "harvest", "quote", "load", "loop", "plan"}
"""Commands that read a task's examples; each is tried below."""
OTHER_COMMANDS = {
    *("label", "backup"),
    *("demo", "init", "decide", "report", "parity", "jobs", "whatif", "prices", "savings"),
    *("serve", "studio", "gate", "mcp", "push", "import", "migrate", "keys", "models", "status", "doctor"),
}
"""Commands that read a study by its own seed, or no examples at all."""


class Stopped(StudyError):
    """Raised where a command would go on with the examples it was given."""


def open_study_at(task: Task, folder: Path, seed: int) -> Path:
    """A study that has split the examples and measured nothing yet."""
    with open_study(folder, task, prepare(task, seed), seed):
        register_study(task, folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task whose study, far from it, has sealed its test set by seed 7."""
    path = write_small(tmp_path).parent
    with (path / "task.toml").open("a", encoding="utf-8") as file:
        file.write('[[tune]]\nbase = "somewhere"\n')
    open_study_at(Task.load(path), tmp_path / "far" / "study", SEED)
    return path


@pytest.fixture
def sealed(folder: Path) -> set[str]:
    return {example.input for example in prepare(Task.load(folder), SEED).split.test}


def call(*words: object, code: int = 0) -> str:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exit_code == code, outcome.output
    return outcome.output


def inputs(examples: Iterable[Example]) -> set[str]:
    return {example.input for example in examples}


def test_every_command_is_known_to_this_test() -> None:
    names = {
        info.name or info.callback.__name__.rstrip("_") for info in app.registered_commands if info.callback
    }
    names |= {str(group.name) for group in app.registered_groups}
    assert names == TASK_COMMANDS | OTHER_COMMANDS


def test_seeds_differ_in_what_they_seal(folder: Path, sealed: set[str]) -> None:
    split = prepare(Task.load(folder), 0).split
    assert inputs((*split.train, *split.dev)) & sealed


@pytest.mark.parametrize("form", FORMS)
def test_export_writes_no_sealed_item(folder: Path, sealed: set[str], form: str) -> None:
    call("export", folder, "--for", form, "--to", folder / "out")
    text = "".join(path.read_text() for path in (folder / "out").iterdir())
    assert not [item for item in sealed if json.dumps(item, ensure_ascii=False)[1:-1] in text]
    assert [e for e in prepare(Task.load(folder), SEED).split.train if e.input in text]


def test_tune_trains_on_no_sealed_item(
    folder: Path, sealed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(
        base: Any, name: str, task: Task, train: list[Example], dev: list[Example], keep: Path
    ) -> NoReturn:
        assert train and dev and not inputs((*train, *dev)) & sealed
        raise Stopped("seen")

    monkeypatch.setattr("tunepoint.arms.causal.tune.causal_arms", stop)
    assert "seen" in call("tune", folder, "--out", folder / "tuned", code=2)


def test_quote_warms_up_on_no_sealed_item(
    folder: Path, sealed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(task: Task, seed: int) -> NoReturn:
        split = prepare(task, seed).split
        assert not inputs((*split.train, *split.dev)) & sealed
        raise Stopped("seen")

    monkeypatch.setattr("tunepoint.study.estimate.estimate", stop)
    assert "seen" in call("quote", folder, code=2)


def test_load_sends_no_sealed_input(folder: Path, sealed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(at: str, opening: object, sent: list[str], **settings: object) -> NoReturn:
        assert sent and not set(sent) & sealed
        raise Stopped("seen")

    monkeypatch.setattr("tunepoint.costs.throughput.measure_throughput", stop)
    assert "seen" in call("load", "http://127.0.0.1:1/v1#x", "--task", folder, code=2)


def test_harvest_knows_the_seal(folder: Path, sealed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(str(folder / "capture.sqlite")).close()

    def stop(store: object, task: Task, known: list[Example], kept: list[Example], *rest: object) -> NoReturn:
        assert inputs(kept) == sealed and not inputs(known) & sealed
        raise Stopped("seen")

    monkeypatch.setattr("tunepoint.capture.harvest.harvest", stop)
    store = folder / "capture.sqlite"
    assert "seen" in call("harvest", folder, "--to", folder / "x.jsonl", "--store", store, code=2)


def test_the_loop_keeps_the_seal_of_its_first_study(
    folder: Path, sealed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = folder / "loop"
    open_study_at(Task.load(folder), loop / "study-1", SEED)

    def stop(deployment: LocalDeployment, *rest: object, as_json: bool) -> NoReturn:
        split = deployment.split()
        assert inputs(split.test) == sealed and not inputs((*split.train, *split.dev)) & sealed
        raise Stopped("seen")

    monkeypatch.setattr("tunepoint.cli.loop._rounds", stop)
    words = ("loop", folder, "--out", loop, "--store", folder / "capture.sqlite")
    assert "seen" in call(*words, code=2)
    assert "sealed its test set by seed 7" in call(*words, "--seed", 1, code=2)


@pytest.mark.parametrize("command", [("check",), ("check", "--json"), ("plan",)])
def test_what_looks_at_all_examples_prints_no_input(
    folder: Path, sealed: set[str], command: tuple[str, ...]
) -> None:
    text = call(command[0], folder, *command[1:])
    assert not [item for item in sealed if item in text]


def test_another_seed_than_the_studys_is_refused(folder: Path) -> None:
    output = call("export", folder, "--for", "openai", "--to", folder / "out", "--seed", 0, code=2)
    assert "--seed 0" in output and "by seed 7" in output.replace("\n", " ") and not (folder / "out").exists()


def test_studies_of_several_seeds_have_to_be_named(folder: Path, sealed: set[str]) -> None:
    other = open_study_at(Task.load(folder), folder / "other", 1)
    output = call("export", folder, "--for", "openai", "--to", folder / "out", code=2)
    assert "(seed 1)" in output and "(seed 7)" in output and "--study" in output
    assert seed_of_seal(Task.load(folder), study=other) == 1


def test_quote_and_load_split_as_the_named_study_did(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study_at(Task.load(folder), folder / "other", 1)
    seeds: list[int] = []
    monkeypatch.setattr("tunepoint.study.estimate.estimate", lambda task, seed: seeds.append(seed) or [])
    call("quote", folder, "--study", study)
    assert seeds == [1]
    expected = inputs(prepare(Task.load(folder), 1).split.test)

    def stop(at: str, opening: object, sent: list[str], **settings: object) -> NoReturn:
        assert sent and not set(sent) & expected
        raise Stopped("seen")

    monkeypatch.setattr("tunepoint.costs.throughput.measure_throughput", stop)
    words = ("load", "http://127.0.0.1:1/v1#x", "--task", folder)
    assert "seen" in call(*words, "--study", study, code=2)
    assert "name one with --study" in call(*words, code=2)


def test_a_study_of_other_examples_seals_nothing_here(folder: Path, tmp_path: Path) -> None:
    task = Task.load(folder)
    (tmp_path / "more").mkdir()
    another = Task.load(write_small(tmp_path / "more", per_queue=20))
    study = open_study_at(another, tmp_path / "study-of-others", 3)
    register_study(task, study)
    assert seed_of_seal(task) == SEED
    with pytest.raises(StudyError, match="measured other examples than those of small now"):
        seed_of_seal(task, study=study)


def test_a_register_that_is_damaged_or_stale_is_passed_over(folder: Path, tmp_path: Path) -> None:
    task = Task.load(folder)
    (tmp_path / "far" / "study" / "manifest.json").unlink()
    assert seed_of_seal(task) == 0 and seed_of_seal(task, seed=4) == 4
    (folder / REGISTER).write_text("{")
    assert seed_of_seal(task) == 0
    assert seed_of_seal(Task.parse({"name": "no-data"}), seed=5) == 5
