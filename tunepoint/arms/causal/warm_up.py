"""How fast this machine trains: a few real steps, measured before a run is quoted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import Row
from tunepoint.arms.causal.trainer import build_trainer, run_trainer

WARM_UP_STEPS = 3
"""The first one is slower than the others and not counted."""


def seconds_per_token(where: str, rows: Sequence[Row], recipe: CausalRecipe) -> float:
    """Measure the seconds that training takes for a token on this machine."""
    from transformers.trainer_callback import TrainerCallback

    step_ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step_ends.append(time.perf_counter())

    sample = tuple(rows[: WARM_UP_STEPS * recipe.batch])
    short = replace(recipe, most_steps=WARM_UP_STEPS, epochs=WARM_UP_STEPS, log_to=())
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(where, sample, (), short, Path(folder), seed=0)
        trainer = build_trainer(job, watch=None)
        trainer.add_callback(Clock())
        run_trainer(trainer, job)
    tokens_per_step = sum(len(row.input_ids) for row in sample) / len(sample) * recipe.batch
    return (step_ends[-1] - step_ends[0]) / (tokens_per_step * (len(step_ends) - 1))
