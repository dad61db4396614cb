"""What to do when memory runs out in training."""

from __future__ import annotations

import torch

from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.errors import ModelError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    # Torch raises a class of its own on an accelerator only; its allocator for processors raises a
    # RuntimeError that nothing but its message tells from others.
    phrases = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        phrase in str(error).lower() for phrase in phrases
    )


def smaller_batch(batch: int, recipe: CausalRecipe, processes: int = 1) -> int | None:
    """Return the next smaller batch that divides the recipe's and that all processes can share, or None."""
    sizes = range(batch // 2, processes - 1, -1)
    return next((size for size in sizes if recipe.batch % size == 0 and size % processes == 0), None)


def too_large(job: TrainingJob) -> ModelError:
    """The error of a job of which not even one example at a time fits into memory."""
    longest = max(len(row.input_ids) for row in job.rows)
    return ModelError(
        f"{job.where}: memory ran out with one example at a time (the longest has {longest} tokens). "
        "Use a smaller base, method 'lora' or shorter inputs"
    )
