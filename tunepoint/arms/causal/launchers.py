"""Training in several processes, by `accelerate launch` or on Ray Train; the same function in each."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tunepoint.arms.causal.hardware import device
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import Row
from tunepoint.arms.causal.sft import UNFINISHED, Watch, smaller_batch, too_large
from tunepoint.arms.causal.worker import FAULTS, STEPS, Job
from tunepoint.errors import MissingExtra, ModelError

Launcher = Literal["accelerate", "ray"]
LAUNCHERS: tuple[Launcher, ...] = ("accelerate", "ray")
LOOK = 0.5
"""Seconds between two looks at how far a run is."""


@dataclass(frozen=True)
class ProcessLauncher:
    """A launch of training: `fine_tune` calls it with what is to be trained."""

    launcher: Launcher
    processes: int

    def __call__(
        self,
        where: str,
        rows: Sequence[Row],
        dev: Sequence[Row],
        recipe: CausalRecipe,
        folder: Path,
        seed: int,
        watch: Watch | None,
    ) -> None:
        """Train in all processes; a batch that does not fit into memory is halved and all start again.

        Raises:
            ModelError: the batch cannot be shared, the launcher is missing, or a process failed.

        """
        if self.processes < 1 or recipe.batch % self.processes:
            raise ModelError(
                f"a batch of {recipe.batch} examples cannot be shared by {self.processes} processes; take a "
                "number of processes that divides it, or another [[tune]] batch"
            )
        job = Job(where, list(rows), list(dev), recipe, folder, seed, recipe.batch)
        while True:
            faults = self._run(job, watch)
            if not faults:
                return
            if "memory" not in faults:
                raise ModelError(faults.get("ours") or f"{folder}: training failed: {faults['other']}")
            smaller = smaller_batch(job.batch, recipe, self.processes)
            if smaller is None:
                raise too_large(where, rows)
            job = replace(job, batch=smaller)

    def _run(self, job: Job, watch: Watch | None) -> dict[str, str]:
        """Run all processes to their end; what went wrong, by its kind, empty if nothing did."""
        path = job.write()
        for old in (*job.folder.glob(FAULTS), job.folder / STEPS, job.folder / UNFINISHED):
            old.unlink(missing_ok=True)
        start: Callable[[Path, int], str | None] = _accelerate if self.launcher == "accelerate" else _ray
        with _followed(job.folder / STEPS, watch):
            said = start(path, self.processes)
        found = [json.loads(one.read_text(encoding="utf-8")) for one in job.folder.glob(FAULTS)]
        faults = {one["kind"]: one["said"] for one in found}
        if not faults and not (job.folder / UNFINISHED).exists():
            faults["other"] = said or "its processes ended without weights"
        return faults


def accelerate_command(job: Path | str, processes: int) -> list[str]:
    """The command that trains a job on this machine; on several, each gets it with its own --machine_rank."""
    own = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"]
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    threads = ["--num_cpu_threads_per_process", str(_threads(processes))]
    program = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*program, *own, *plain, *threads, "-m", "tunepoint.arms.causal.worker", str(job)]


def _accelerate(job: Path, processes: int) -> str | None:
    """Start `accelerate launch`; what it said last if it failed.

    Without an accelerator, too, `--multi_gpu` is what starts several processes: `--cpu` starts one.
    """
    done = subprocess.run(accelerate_command(job, processes), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return lines[-1] if lines else f"accelerate launch ended with {done.returncode}"


def _ray(job: Path, processes: int) -> str | None:
    """Run a job's processes on Ray Train: a cluster that is there (RAY_ADDRESS), else one on this machine."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_CHDIR_TO_TRIAL_DIR", "RAY_TRAIN_METRICS_ENABLED"):
        os.environ.setdefault(name, "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what ray says to itself
        try:
            from ray.train import LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
            from ray.train.torch import TorchTrainer
        except ImportError as error:
            raise MissingExtra(f"--launch ray needs {error.name}", "ray") from None
        with _cluster(processes), tempfile.TemporaryDirectory() as kept:
            trainer = TorchTrainer(
                _share,
                train_loop_config={"job": str(job.absolute()), "threads": _threads(processes)},
                scaling_config=ScalingConfig(num_workers=processes, use_gpu=device() == "cuda"),
                run_config=RunConfig(  # its stub is that of another version
                    storage_path=kept,
                    name="run",
                    logging_config=LoggingConfig("ERROR"),  # type: ignore[call-arg]
                ),
            )
            try:
                trainer.fit()
            except TrainingFailedError as error:
                return str(error).strip().splitlines()[0]
    return None


def _share(config: dict[str, Any]) -> None:
    """What every Ray worker does."""
    import torch

    from tunepoint.arms.causal.worker import work

    torch.set_num_threads(config["threads"])
    work(config["job"])


def _threads(processes: int) -> int:
    """Threads of one process where so many share this machine."""
    return max(1, (os.cpu_count() or 1) // processes)


@contextmanager
def _cluster(processes: int) -> Iterator[None]:
    """A Ray cluster for the time of a run; one that is connected already is left as it is."""
    import ray

    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGINT)  # ray replaces it, and never puts it back
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",
            num_cpus=processes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=100 * 2**20,
        )
    try:
        yield
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def _followed(steps: Path, watch: Watch | None) -> Iterator[None]:
    """Tell `watch` the steps that the leading process writes down."""
    if watch is None:
        yield
        return
    ended, told = threading.Event(), 0

    def look() -> None:
        nonlocal told
        lines = steps.read_text(encoding="utf-8").splitlines(keepends=True) if steps.exists() else []
        for line in lines[told:]:
            if line.endswith("\n"):
                step, of, loss = json.loads(line)
                watch(step, of, loss)
                told += 1

    def follow() -> None:
        while not ended.wait(LOOK):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()
