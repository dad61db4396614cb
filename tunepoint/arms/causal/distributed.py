"""One training run in several processes: who leads, and an order of examples that all of them share."""

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

LOCK = "training.lock"


def world() -> int:
    """Processes that train this one run together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", 1))


def leads() -> bool:
    """Whether this process writes what all of them have found."""
    return int(os.environ.get("RANK", 0)) == 0


def local_rank() -> int:
    """Number of this process among those on its machine: that of its accelerator."""
    return int(os.environ.get("LOCAL_RANK", 0))


def own_device() -> str:
    """Where this process computes."""
    return f"cuda:{local_rank()}" if device() == "cuda" else device()


def wait_for_all() -> None:
    """Go on when every process is here."""
    if world() > 1:
        distributed.barrier()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no process that a killed launcher left behind writes into it as well.

    Raises:
        ModelError: another process trains there.

    """
    if not leads():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "unknown"
            raise ModelError(
                f"{folder}: another process is training there (number {who}); wait for it, or stop it and "
                "run again"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def filled(rows: Sequence[Row], recipe: CausalRecipe) -> list[Row]:
    """Rows, and behind them some that teach nothing and fill the last batch.

    Where several processes share a batch, the first examples would fill it once more.
    """
    if world() == 1:
        return list(rows)
    least = min(rows, key=lambda row: len(row.input_ids))
    blank = replace(least, labels=[IGNORED] * len(least.labels))
    return [*rows, *[blank] * (-len(rows) % recipe.batch)]


def in_order(trainer: Any, recipe: CausalRecipe, seed: int, count: int) -> Any:
    """A trainer class whose batches of like length follow from seed and epoch.

    The order is the same in all processes and for any number of them, and a run that goes on in a
    later epoch takes up the one it had; the order of `transformers` does neither.

    Args:
        count: examples; what `filled` put behind them comes last.

    """
    from torch.utils.data import Sampler
    from transformers.trainer_pt_utils import get_length_grouped_indices as grouped

    class ByLength(Sampler[int]):
        def __init__(self, lengths: list[int], trainer: Any) -> None:
            self.lengths, self.trainer = lengths, trainer

        def __len__(self) -> int:
            return len(self.lengths)

        def __iter__(self) -> Iterator[int]:
            epoch = self.trainer.state.global_step // math.ceil(count / recipe.batch)
            drawn = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
            order: list[int] = grouped(self.lengths[:count], recipe.batch, generator=drawn)  # type: ignore[no-untyped-call]
            return iter([*order, *range(count, len(self.lengths))])

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            rows = self.train_dataset if dataset is None else dataset
            return ByLength([len(ids) for ids in rows["input_ids"]], self)

    return InOrder
