"""The language models that a task tunes on this machine, as arms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.data.examples import Example
from tunepoint.files.machine import cores
from tunepoint.models.providers import LOCAL, short_names
from tunepoint.task.sections import Tune
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.causal.causal import CausalTuned, TrainingQuote
    from tunepoint.arms.causal.recipe import CausalRecipe

SEEDS_HERE, SEEDS_HOSTED = 3, 1
"""Training runs where the task does not say: what a run costs differs by orders of magnitude."""


def titled(task: Task) -> list[tuple[Tune, str]]:
    """What a task tunes, each with the name that its arms carry."""
    names = short_names([one.base.removeprefix(LOCAL) for one in task.tune])
    return list(zip(task.tune, names, strict=True))


def causal_arms(
    tune: Tune, title: str, task: Task, train: Sequence[Example], dev: Sequence[Example], keep: Path
) -> tuple[TrainingQuote, list[CausalTuned]]:
    """A base tuned on this machine: with no prompt, the instruction alone, and all of the prompt."""
    from tunepoint.arms.causal.causal import CausalBase, CausalTuned

    base = CausalBase(tune.base.removeprefix(LOCAL), keep, task.folder, recipe_of(tune), tuple(dev))
    quote = base.quote(task, train, task.costs.core_hour_usd.likely / 3600 * cores())
    seeds = tune.seeds or SEEDS_HERE
    return quote, [
        CausalTuned(base, "none", title, seeds, quote.seconds / quote.examples, hosting=tune.hosting),
        CausalTuned(base, "short", title, seeds, hosting=tune.hosting),  # they share its runs
        CausalTuned(base, "full", title, seeds, hosting=tune.hosting),
    ]


def recipe_of(tune: Tune) -> CausalRecipe:
    """The settings of a task's entry."""
    from tunepoint.arms.causal.recipe import CausalRecipe

    return CausalRecipe(
        tune.method,
        rank=tune.rank,
        alpha=2 * tune.rank,
        learning_rate=tune.learning_rate,
        epochs=tune.epochs,
        batch=tune.batch,
        log_to=tune.log_to,
    )
