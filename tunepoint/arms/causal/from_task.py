"""The language models that a task tunes, as arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.data.examples import Example
from tunepoint.errors import TaskError
from tunepoint.files.machine import cores
from tunepoint.models.providers import LOCAL_PREFIX, short_names
from tunepoint.task.sections import Tune
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.causal.base import RunEndpoints, TrainingQuote
    from tunepoint.arms.causal.causal import CausalTuned
    from tunepoint.arms.causal.recipe import CausalRecipe

LOCAL_SEEDS, HOSTED_SEEDS = 3, 1
"""Training runs on this machine and at a provider, where the task does not say. A run at a provider costs
dollars rather than cents."""


def tunes_with_titles(task: Task) -> list[tuple[Tune, str]]:
    """Return what a task tunes, with short names for the arms; a base that comes again has a number.

    Raises:
        TaskError: two entries tune one base at a provider, where their arms could not be told apart.

    """
    bases = [tune.base.removeprefix(LOCAL_PREFIX) for tune in task.tune]
    distinct = list(dict.fromkeys(bases))
    titles = dict(zip(distinct, short_names(distinct), strict=True))
    seen: Counter[tuple[str | None, str]] = Counter()
    titled = []
    for tune, base in zip(task.tune, bases, strict=True):
        seen[tune.provider, base] += 1
        number = seen[tune.provider, base]
        if number > 1 and tune.provider is not None:
            raise TaskError(f"two [[tune]] entries tune {base!r} at {tune.provider}; remove one of them")
        titled.append((tune, titles[base] if number == 1 else f"{titles[base]} #{number}"))
    return titled


def causal_arms(
    tune: Tune,
    title: str,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    keep: Path,
    elsewhere: RunEndpoints | None = None,
) -> tuple[TrainingQuote, list[CausalTuned]]:
    """Return the quote and the arms of a base tuned on this machine, one for each prompt length.

    Args:
        tune: the entry of the task.
        title: short name of the base.
        task: has the instruction and the prices.
        train: what is trained on.
        dev: what stops a run early.
        keep: folder of the runs.
        elsewhere: answers with the weights of runs; this process does if None.

    """
    from tunepoint.arms.causal.base import CausalBase
    from tunepoint.arms.causal.causal import CausalTuned

    name = tune.base.removeprefix(LOCAL_PREFIX)
    recipe = _with_rate(recipe_of(tune), name, task.folder, keep)
    # before the quote, whose measured steps need the memory that servers hold
    base = CausalBase(name, keep, task.folder, recipe, tuple(dev), elsewhere=elsewhere)
    quote = base.quote(task, train, task.costs.core_hour_usd.likely / 3600 * cores())
    seeds, hosting = tune.seeds or LOCAL_SEEDS, tune.hosting
    # All three share their runs, so the training time is expected of one of them alone.
    return quote, [
        CausalTuned(base, "none", title, seeds, quote.seconds / quote.examples, hosting=hosting),
        CausalTuned(base, "short", title, seeds, hosting=hosting),
        CausalTuned(base, "full", title, seeds, hosting=hosting),
    ]


def _with_rate(recipe: CausalRecipe, base: str, folder: Path, keep: Path) -> CausalRecipe:
    """The recipe with the usual learning rate of the base, if the task gives none.

    A study that an older version began, with one rate for all bases, goes on with that rate.
    """
    from tunepoint.arms.causal.hardware import size_of
    from tunepoint.arms.causal.recipe import learning_rate_for

    if recipe.learning_rate is not None or recipe.method == "full":
        return recipe
    if any(keep.glob(f"*-{recipe.digest()}-*")):
        return recipe
    return replace(recipe, learning_rate=learning_rate_for(recipe.method, size_of(base, folder).width))


def recipe_of(tune: Tune) -> CausalRecipe:
    """Return the recipe of a [[tune]] entry."""
    from tunepoint.arms.causal.recipe import CausalRecipe

    return CausalRecipe(
        tune.method,
        rank=tune.rank,
        alpha=2 * tune.rank,  # keeps the learning rate right for any rank
        learning_rate=tune.learning_rate,
        epochs=tune.epochs,
        batch=tune.batch,
        log_to=tune.log_to,
    )
