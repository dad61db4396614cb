"""Training in several processes, by `accelerate launch` or on Ray Train; each runs the same `train`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tunepoint.arms.causal.hardware import threads_per_process
from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.memory import smaller_batch, too_large
from tunepoint.arms.causal.ray_train import run_on_ray
from tunepoint.arms.causal.trained import UNFINISHED_RUN_FILE
from tunepoint.arms.causal.trainer import Watch
from tunepoint.arms.causal.worker import FAULT_FILES, STEPS_FILE
from tunepoint.errors import ModelError

Launcher = Literal["accelerate", "ray"]
LAUNCHERS: tuple[Launcher, ...] = ("accelerate", "ray")
POLL_SECONDS = 0.5
"""Between two looks at the steps of a run."""


@dataclass(frozen=True)
class ProcessLauncher:
    """Trains a job in several processes; `fine_tune` calls it."""

    launcher: Launcher
    processes: int

    def __call__(self, job: TrainingJob, watch: Watch | None) -> None:
        """Train in all processes; if a batch does not fit into memory, halve it and start all of them again.

        Raises:
            ModelError: the batch cannot be shared, the launcher is missing, or a process failed.

        """
        if self.processes < 1 or job.recipe.batch % self.processes:
            raise ModelError(
                f"a batch of {job.recipe.batch} examples cannot be shared by {self.processes} processes; use "
                "a number of processes that divides it, or another [[tune]] batch"
            )
        while True:
            faults = self._run(job, watch)
            if not faults:
                return
            # One process that runs out of memory breaks the others, whose errors then say nothing.
            if "memory" not in faults:
                raise ModelError(faults.get("ours") or f"{job.folder}: training failed: {faults['other']}")
            batch = smaller_batch(job.batch_size, job.recipe, self.processes)
            if batch is None:
                raise too_large(job)
            job = replace(job, batch=batch)

    def _run(self, job: TrainingJob, watch: Watch | None) -> dict[str, str]:
        """Run all processes to their end; return a message for each kind of error, empty if all is well."""
        path = job.write()
        for stale in (
            *job.folder.glob(FAULT_FILES),
            job.folder / STEPS_FILE,
            job.folder / UNFINISHED_RUN_FILE,
        ):
            stale.unlink(missing_ok=True)
        start: Callable[[Path, int], str | None]
        start = run_accelerate if self.launcher == "accelerate" else run_on_ray
        with _followed(job.folder / STEPS_FILE, watch):
            failure = start(path, self.processes)
        written = [json.loads(file.read_text(encoding="utf-8")) for file in job.folder.glob(FAULT_FILES)]
        faults: dict[str, str] = {fault["kind"]: fault["said"] for fault in written}
        if not faults and not (job.folder / UNFINISHED_RUN_FILE).exists():
            faults["other"] = failure or "its processes ended without weights"
        return faults


def accelerate_command(job: Path | str, processes: int) -> list[str]:
    """Return the command that trains a job on this machine.

    On several machines, each gets it with a --machine_rank of its own.
    """
    program = [sys.executable, "-m", "accelerate.commands.launch"]
    # Without an accelerator, too, --multi_gpu is what starts several processes: --cpu starts one.
    size = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"]
    # Told explicitly, because a user's own accelerate configuration would say something else.
    settings = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    threads = ["--num_cpu_threads_per_process", str(threads_per_process(processes))]
    return [*program, *size, *settings, *threads, "-m", "tunepoint.arms.causal.worker", str(job)]


def run_accelerate(job: Path, processes: int) -> str | None:
    """Run `accelerate launch`; return the last line of its error output if it failed."""
    completed = subprocess.run(
        accelerate_command(job, processes), capture_output=True, text=True, check=False
    )
    if completed.returncode == 0:
        return None
    lines = [line for line in completed.stderr.strip().splitlines() if line.strip()]
    return lines[-1] if lines else f"accelerate launch ended with {completed.returncode}"


@contextmanager
def _followed(steps: Path, watch: Watch | None) -> Iterator[None]:
    """Pass the steps that the leading process writes on to `watch`."""
    if watch is None:
        yield
        return
    ended, reported = threading.Event(), 0

    def report() -> None:
        nonlocal reported
        lines = steps.read_text(encoding="utf-8").splitlines(keepends=True) if steps.exists() else []
        for line in lines[reported:]:
            if line.endswith("\n"):  # else the process is still writing it
                step, total, loss = json.loads(line)
                watch(step, total, loss)
                reported += 1

    def follow() -> None:
        while not ended.wait(POLL_SECONDS):
            report()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        report()  # the steps since the last look
