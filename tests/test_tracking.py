"""[track]: a verdict reaches MLflow and Weights & Biases, and one that is away costs a note."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tunepoint import Result, Task, run
from tunepoint.errors import TaskError
from tunepoint.study import tracking
from tunepoint.study.tracking import numbers_of, track
from tunepoint.task.sections import Track


def test_a_verdict_is_an_mlflow_run_with_its_report(
    finished: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    assert finished.folder is not None
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert track(Track(to=("mlflow",)), finished.folder, finished.document) == []
        client = mlflow.MlflowClient()
        (experiment,) = (e for e in client.search_experiments() if e.name == "small")
        (logged,) = client.search_runs([experiment.experiment_id])
        files = {file.path for file in client.list_artifacts(logged.info.run_id)}
    assert logged.data.tags["verdict"] == finished.document["verdict"]
    numbers = numbers_of(finished.document)
    assert logged.data.metrics == pytest.approx(numbers) and len(numbers) > 6
    assert files == {"report.html", "decision.json", "measurements.json"}


class FakeRun:
    def __init__(self, calls: list[Any]) -> None:
        self.calls, self.summary = calls, {}

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.calls.append(("summary", dict(self.summary)))

    def log_artifact(self, artifact: Any) -> None:
        self.calls.append(("artifact", artifact.files))


class FakeArtifact:
    def __init__(self, name: str, type: str) -> None:
        self.name, self.files = name, []

    def add_file(self, path: str) -> None:
        self.files.append(Path(path).name)


def test_weights_and_biases_gets_the_same(finished: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Wandb:
        Artifact = FakeArtifact

        @staticmethod
        def init(**settings: Any) -> FakeRun:
            calls.append(settings)
            return FakeRun(calls)

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    assert finished.folder is not None
    assert track(Track(to=("wandb",), project="p"), finished.folder, finished.document) == []
    assert calls[0]["project"] == "p" and calls[0]["config"]["winner"]
    assert ("artifact", ["report.html", "decision.json", "measurements.json"]) in calls
    assert ("summary", numbers_of(finished.document)) in calls


def test_a_tracker_that_is_away_or_not_installed_costs_a_note(
    finished: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finished.folder is not None
    monkeypatch.setitem(sys.modules, "wandb", None)

    def away(*arguments: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setitem(tracking.TRACKERS, "mlflow", away)
    notes = track(Track(to=("mlflow", "wandb")), finished.folder, finished.document)
    assert notes == [
        "[track] mlflow took nothing: ConnectionError: refused",
        "[track] wandb is not installed, so nothing was sent: pip install wandb",
    ]
    with pytest.raises(TaskError, match="track"):
        Task.parse({"name": "t", "track": {"to": ["notebook"]}})


def test_a_study_sends_its_verdict_and_is_the_same_study(
    small_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Result
) -> None:
    sent: list[Any] = []
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", lambda *arguments: sent.append(arguments))
    task = Task.load(small_task)
    tracked = task.model_copy(update={"track": Track(to=("mlflow",))})
    assert tracked.trials_fingerprint() == task.trials_fingerprint()
    assert finished.folder is not None
    result = run(tracked, out=finished.folder, seed=3)
    ((project, folder, decision),) = sent
    assert (project, folder) == ("small", finished.folder)
    assert json.dumps(decision["winner"]) == json.dumps(result.document["winner"])
