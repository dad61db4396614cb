"""One run of supervised fine-tuning, by `trl` and `peft`.

A killed run resumes, a batch that does not fit into memory is halved, and a run that looks wrong says so.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tunepoint.arms.causal.distributed import is_leader, lock_folder, wait_for_all, world_size
from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.loading import load_base, put_adapter
from tunepoint.arms.causal.memory import is_out_of_memory, smaller_batch, too_large
from tunepoint.arms.causal.trained import Trained, checkpoints_of, finish, is_trained, write_run
from tunepoint.arms.causal.trainer import Watch, build_trainer, run_trainer

PickCheckpoint = Callable[[Any, Any, Sequence[Path]], Path]
"""(model, tokenizer, checkpoints in the order of training) -> the one to keep"""
Launch = Callable[[TrainingJob, Watch | None], None]
"""Trains a job in other processes, each of which calls `train`."""


def fine_tune(
    job: TrainingJob,
    *,
    watch: Watch | None = None,
    pick: PickCheckpoint | None = None,
    launch: Launch | None = None,
) -> Trained:
    """Train a job, or resume one that was killed; the facts of a run appear when all its weights are there.

    Args:
        job: what to train on what, and where.
        watch: called at every logged step.
        pick: chooses among the last adapters; the one with the lowest validation loss if None.
        launch: trains in processes of its own; this process if None.

    Raises:
        ModelError: not even one example at a time fits into memory.

    """
    finished = Trained.read(job.folder)
    if finished is not None:
        return finished
    model = tokenizer = None
    # Processes that a person started, or that outlived their launcher, may have trained it already.
    if not is_trained(job.folder):
        if launch is None:
            trainer = train(job, watch=watch)
            model, tokenizer = trainer.model, trainer.processing_class
        else:
            launch(job, watch)
    checkpoints = checkpoints_of(job.folder)
    if pick is None or job.recipe.method == "full" or len(checkpoints) < 2:
        return finish(job.folder, None)
    if model is None:
        base, tokenizer = load_base(job.where, job.recipe)
        model = put_adapter(base, job.folder)
    return finish(job.folder, pick(model, tokenizer, checkpoints))


def train(job: TrainingJob, *, watch: Watch | None = None) -> Any:
    """Train in this process and those that its launcher started with it; return the `trl` trainer.

    Writes the weights; the run is finished when `fine_tune` has chosen among the checkpoints. Where memory
    runs out, the batch is halved, but in one process only: several would wait for each other.
    """
    started = time.perf_counter()
    with lock_folder(job.folder):
        trainer, job = _train_in_memory(job, watch)
        wait_for_all()
        if is_leader():
            write_run(trainer, job, time.perf_counter() - started)
    return trainer


def _train_in_memory(job: TrainingJob, watch: Watch | None) -> tuple[Any, TrainingJob]:
    """Train with the largest batch that fits; return the trainer, and the job with this batch."""
    while True:
        try:
            trainer = build_trainer(job, watch)
            run_trainer(trainer, job)
            return trainer, job
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or world_size() > 1:
                raise
            batch = smaller_batch(job.batch_size, job.recipe)
            if batch is None:
                raise too_large(job) from None
            job = replace(job, batch=batch)
        # Outside the handler, whose error holds the frames that hold the model.
        trainer = None
        gc.collect()
        torch.cuda.empty_cache()
