"""What an arm's answers cost uncached, and the start of its prompts that can be cached."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tunepoint.costs.caching import CachedPrefix
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.prompt_caches import PromptCache, prompt_cache
from tunepoint.stats.arrays import Floats
from tunepoint.study.records import MeasuredArm
from tunepoint.task.task import Task
from tunepoint.trials.table import ArmScores


def cached_prefix(scores: ArmScores, measured: Mapping[str, MeasuredArm], task: Task) -> CachedPrefix | None:
    """Return the cacheable start of an arm's prompts; None where its provider would cache nothing of it.

    None also where several models answer for the arm, and in studies made before cacheable tokens were
    counted: then its answers keep the price that they had in the study.
    """
    priced = _priced_model(scores, measured)
    tokens = scores.cache_tokens[:, 1]
    if priced is None or not len(tokens) or np.isnan(tokens).all():
        return None
    model, price = priced
    cache, mean = cache_of(model, task), float(np.nanmean(tokens))
    if cache is None or mean <= 0:
        return None
    return CachedPrefix(
        tokens=mean,
        input=price.input,
        read=price.cached_rate,
        write=price.cache_write_rate,
        minutes=cache.minutes,
        renewed=cache.renewed,
        asked_for=cache.asked_for,
        reached=cache.reached,
    )


def uncached_dollars(scores: ArmScores, measured: Mapping[str, MeasuredArm]) -> Floats:
    """Return the dollars of each answer as if nothing had been cached: a study asks in one burst.

    Only for an arm with a `cached_prefix`.
    """
    priced = _priced_model(scores, measured)
    assert priced is not None, "an arm with a cached prefix has one priced model"
    _, price = priced
    read, written = np.nan_to_num(scores.tokens[:, 1]), scores.cache_tokens[:, 0]
    saved = read * (price.input - price.cached_rate) - written * (price.cache_write_rate - price.input)
    return np.asarray(scores.cost_usd + saved / 1e6)


def cache_of(model: str, task: Task) -> PromptCache | None:
    """Return how the server of a model caches prompts: as the task says, else as its provider does."""
    declared = next((entry.cache for entry in task.models if entry.name == model), None)
    return declared or prompt_cache(model)


def _priced_model(scores: ArmScores, measured: Mapping[str, MeasuredArm]) -> tuple[str, TokenPrice] | None:
    """The one model that answers for an arm, and its price; None where there are several, or no price."""
    models = measured[scores.arm].models if scores.arm in measured else {}
    if len(models) != 1 or len(scores.cost_usd) != len(scores.tokens):
        return None
    ((model, rates),) = models.items()
    return None if not rates else (model, TokenPrice(**rates))
