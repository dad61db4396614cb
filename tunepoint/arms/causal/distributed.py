"""One training run in several processes: which one leads, and the order of examples that all share."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from tunepoint.arms.causal.hardware import device
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import IGNORED, Row
from tunepoint.errors import ModelError

LOCK_FILE = "training.lock"


def world_size() -> int:
    """Return how many processes train this run together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_leader() -> bool:
    """Whether this process writes the result of all of them."""
    return int(os.environ.get("RANK", 0)) == 0


def local_rank() -> int:
    """Return this process's number on its machine, which is that of its accelerator."""
    return int(os.environ.get("LOCAL_RANK", 0))


def own_device() -> str:
    """Return the device on which this process computes."""
    return f"cuda:{local_rank()}" if device() == "cuda" else device()


def wait_for_all() -> None:
    """Wait until every process has come to this point."""
    if world_size() > 1:
        distributed.barrier()


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no other process writes into it.

    A launcher that is killed leaves its processes behind, and they go on training.

    Raises:
        ModelError: another process trains there.

    """
    if not is_leader():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            number = lock.read().strip() or "unknown"
            raise ModelError(
                f"{folder}: another process is training there (process ID {number}). Wait until it ends, or "
                "stop it and run again"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def pad_last_batch(rows: Sequence[Row], recipe: CausalRecipe) -> list[Row]:
    """Return the rows, and behind them blank ones that fill the last batch.

    Where several processes share a batch, `transformers` fills it with the first examples, which would
    then count twice. The loss ignores every token of a blank row.
    """
    if world_size() == 1:
        return list(rows)
    shortest = min(rows, key=lambda row: len(row.input_ids))
    blank = replace(shortest, labels=[IGNORED] * len(shortest.labels))
    return [*rows, *[blank] * (-len(rows) % recipe.batch)]


def with_fixed_order(trainer: Any, recipe: CausalRecipe, seed: int, count: int) -> Any:
    """Return a trainer class whose batches of like length follow from seed and epoch alone.

    The order is the same in all processes and for any number of them, and a run that resumes in a later
    epoch finds the order it had; neither is true of the order of `transformers`.

    Args:
        trainer: the class to extend.
        recipe: has the batch size.
        seed: of the run.
        count: examples; the rows that `pad_last_batch` put behind them come last.

    """
    from torch.utils.data import Sampler
    from transformers.trainer_pt_utils import get_length_grouped_indices

    class ByLength(Sampler[int]):
        def __init__(self, lengths: list[int], trainer: Any) -> None:
            self.lengths, self.trainer = lengths, trainer

        def __len__(self) -> int:
            return len(self.lengths)

        def __iter__(self) -> Iterator[int]:
            epoch = self.trainer.state.global_step // math.ceil(count / recipe.batch)
            # A large prime keeps the seeds of two runs apart, whatever their epochs.
            generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
            order: list[int] = get_length_grouped_indices(  # type: ignore[no-untyped-call]
                self.lengths[:count], recipe.batch, generator=generator
            )
            return iter([*order, *range(count, len(self.lengths))])

    class FixedOrderTrainer(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            rows = self.train_dataset if dataset is None else dataset
            return ByLength([len(ids) for ids in rows["input_ids"]], self)

    return FixedOrderTrainer
