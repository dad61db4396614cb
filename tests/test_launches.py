"""One training run in several processes, here two on one machine's cores."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from test_causal import QUICK, examples, rows, same, task
from test_tuned_study import routing
from typer.testing import CliRunner

from tunepoint.arms.causal import launchers as launches
from tunepoint.arms.causal.base import CausalBase
from tunepoint.arms.causal.distributed import LOCK_FILE
from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.launchers import ProcessLauncher, accelerate_command
from tunepoint.arms.causal.memory import smaller_batch
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.sft import fine_tune, train
from tunepoint.arms.causal.trained import Trained
from tunepoint.arms.causal.worker import work
from tunepoint.cli.app import app
from tunepoint.errors import ModelError
from tunepoint.files.ray_cluster import ray_cluster

pytestmark = pytest.mark.no_cover  # what they run, other tests cover
CALM = CausalRecipe(learning_rate=1e-3, epochs=2, checkpoint_steps=5)
"""At a high rate two runs of any kind drift apart by rounding."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that one process makes, its last batch not full."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    fine_tune(TrainingJob(str(base), rows(base, 60), (), CALM, folder, seed=1))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray cluster for the tests that train on one."""
    with ray_cluster(2):
        yield


@pytest.fixture(params=launches.LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> Any:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


def test_two_processes_make_the_weights_that_one_makes(
    base: Path, alone: Path, tmp_path: Path, launcher: Any
) -> None:
    steps: list[tuple[int, int]] = []
    trained = fine_tune(
        TrainingJob(str(base), rows(base, 60), (), CALM, tmp_path / "run", seed=1),
        watch=lambda step, of, loss: steps.append((step, of)),
        launch=ProcessLauncher(launcher, 2),
    )
    assert same(alone, tmp_path / "run") < 1e-4  # of weights up to .2: another order of sums
    assert trained == Trained.read(tmp_path / "run") and trained.batch == 8 and trained.warnings == ()
    assert steps[-1] == (16, 16) and len(steps) > 3
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_goes_wrong_in_a_process_is_said_as_if_it_were_here(
    base: Path, tmp_path: Path, launcher: Any
) -> None:
    with pytest.raises(ModelError, match=r"nowhere: cannot be loaded \("):
        fine_tune(
            TrainingJob(str(base.parent / "nowhere"), rows(base), (), CALM, tmp_path, seed=1),
            launch=ProcessLauncher(launcher, 1 if launcher == "ray" else 2),  # one of Ray's shows as much
        )
    assert Trained.read(tmp_path) is None


def test_memory_that_runs_out_in_one_process_starts_all_anew_with_half_the_batch(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def start(path: Path, processes: int) -> str | None:
        job = TrainingJob.read(path)
        batches.append(job.batch_size)
        if job.batch_size > 4:
            (job.folder / "fault-1.json").write_text(
                json.dumps({"kind": "memory", "said": "OutOfMemoryError"})
            )
            (job.folder / "fault-0.json").write_text(json.dumps({"kind": "other", "said": "reset by peer"}))
            return "ChildFailedError"
        train(job)
        return None

    monkeypatch.setattr(launches, "run_accelerate", start)
    trained = fine_tune(
        TrainingJob(str(base), rows(base), (), CALM, tmp_path / "run", seed=1),
        launch=ProcessLauncher("accelerate", 2),
    )
    assert batches == [8, 4] and trained.batch == 4
    assert "memory ran out with 8 examples at once; 4 were computed at a time" in trained.warnings
    big = CausalRecipe(batch=8)
    with pytest.raises(ModelError, match="memory ran out with one example at a time"):
        fine_tune(
            TrainingJob(str(base), rows(base), (), big, tmp_path / "eight", seed=1),
            launch=ProcessLauncher("accelerate", 8),
        )


def test_smaller_batches_make_up_those_of_the_recipe() -> None:
    six, twelve = CausalRecipe(batch=6), CausalRecipe(batch=12)
    assert [smaller_batch(size, six) for size in (6, 3, 2, 1)] == [3, 1, 1, None]
    assert [smaller_batch(size, twelve, 2) for size in (12, 6, 4, 2)] == [6, 2, 2, None]


def test_what_processes_have_trained_without_their_launcher_is_taken(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = TrainingJob(str(base), rows(base), (), CALM, tmp_path / "run", 1, 8)
    work(str(job.write()))  # as by a command that was given by hand
    monkeypatch.setattr(
        launches, "run_accelerate", lambda path, processes: pytest.fail("it was trained already")
    )
    trained = fine_tune(
        TrainingJob(str(base), rows(base), (), CALM, tmp_path / "run", seed=1),
        launch=ProcessLauncher("accelerate", 2),
    )
    assert trained.batch == 8 and Trained.read(tmp_path / "run") == trained


def test_a_job_comes_back_from_its_file(base: Path, tmp_path: Path) -> None:
    job = TrainingJob(str(base), rows(base, 12), (), QUICK, tmp_path / "run", 7, 4)
    assert TrainingJob.read(job.write()) == job
    content = json.loads((tmp_path / "run" / "job.json").read_text())
    assert content.keys() == {"where", "rows", "dev", "recipe", "folder", "seed", "batch"}
    assert content["recipe"]["diet"] == list(QUICK.prompt_shares)


def test_processes_that_end_without_a_word_are_no_success(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "run_on_ray", lambda path, processes: None)
    with pytest.raises(ModelError, match="training failed: its processes ended without weights"):
        fine_tune(
            TrainingJob(str(base), rows(base), (), CALM, tmp_path / "run", seed=1),
            launch=ProcessLauncher("ray", 2),
        )


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a batch of 8 examples cannot be shared by 3 processes"):
        fine_tune(
            TrainingJob(str(base), rows(base), (), CALM, tmp_path / "run", seed=1),
            launch=ProcessLauncher("ray", 3),
        )
    assert not (tmp_path / "run").exists()


def test_two_runs_do_not_write_into_one_folder(base: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="another process is training there"):
            fine_tune(TrainingJob(str(base), rows(base), (), CALM, tmp_path / "run", seed=1))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trains what is launched in this process; the numbers of processes that were asked for."""
    launched: list[int] = []

    def start(path: Path, processes: int) -> None:
        launched.append(processes)
        work(str(path))

    monkeypatch.setattr(launches, "run_accelerate", start)
    return launched


def test_a_race_of_checkpoints_follows_a_launched_run(base: Path, tmp_path: Path, here: list[int]) -> None:
    dev = tuple(examples(40))
    recipe = CausalRecipe(learning_rate=5e-3, epochs=3, checkpoint_steps=5, patience=5)
    shared = CausalBase(str(base), tmp_path, recipe=recipe, dev=dev, launch=ProcessLauncher("accelerate", 2))
    run, built = shared.run(task(), examples(), 3)
    assert Trained.read(tmp_path / run) is not None and built.examples == 64
    assert shared.endpoint(run) is not None and here == [2]


def test_the_command_line_tunes_in_processes_and_names_what_it_does_not_know(
    base: Path, tmp_path: Path, here: list[int]
) -> None:
    routing(tmp_path, 100)
    (tmp_path / "task.toml").write_text(
        'name = "routing"\ninstruction = "Route the message."\n'
        '[data]\npath = "messages.csv"\ninput = "text"\ntarget = "queue"\nid = "id"\n'
    )
    words = [
        "tune",
        str(tmp_path),
        "--base",
        str(base),
        "--out",
        str(tmp_path / "out"),
        "--epochs",
        "1",
        "--yes",
    ]
    unknown = CliRunner().invoke(app, [*words, "--launch", "acelerate"])
    assert unknown.exit_code == 2 and "accelerate" in unknown.output
    done = CliRunner().invoke(app, [*words, "--launch", "accelerate", "--processes", "2"])
    assert done.exit_code == 0 and here == [2], done.output
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists()


def test_ray_that_is_not_installed_is_named(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(ModelError, match=r"pip install 'tunepoint\[ray\]'"):
        fine_tune(
            TrainingJob(str(base), rows(base), (), CALM, tmp_path / "run", seed=1),
            launch=ProcessLauncher("ray", 2),
        )


def test_the_documented_command_is_the_one_that_runs() -> None:
    command = accelerate_command("RUN/job.json", 2)
    assert command[1:4] == ["-m", "accelerate.commands.launch", "--multi_gpu"]
    assert command[-3:] == ["-m", "tunepoint.arms.causal.worker", "RUN/job.json"]
