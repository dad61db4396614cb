"""Measured answers at other token prices, or with another share of prompts found in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.caching import CachedPrefix
from tunepoint.errors import TaskError, nearest
from tunepoint.files.amounts import TokenPrice
from tunepoint.stats.arrays import Floats
from tunepoint.stats.moments import mean_of
from tunepoint.stats.ranges import Range
from tunepoint.study.manifest import Manifest
from tunepoint.trials.table import ArmScores, Table

TOKEN_RATES = ("input", "cached_input", "cache_write", "output")
"""Prices that a scenario may replace."""
Rates = Mapping[str, float]
"""Rate -> dollars per million tokens."""


@dataclass(frozen=True)
class NewPrices:
    """What a scenario changes about the price of an answer."""

    prices: Mapping[str, Rates]
    """Model -> the rates that change."""
    cache_hit: float | None
    """Share of the calls whose static prompt is found in the cache, 0..1; as measured if None."""

    def touches(self, models: Mapping[str, Rates | None]) -> bool:
        """Return whether answers of these models get another price."""
        return self.cache_hit is not None or bool(models.keys() & self.prices.keys())


def reprice(
    costs: Sequence[ArmCost], table: Table, manifest: Manifest, changes: NewPrices
) -> tuple[list[ArmCost], list[str]]:
    """Return the costs with answers at other prices, and what could not be repriced.

    Raises:
        TaskError: a model that no finalist pays for, or a rate that does not exist.

    """
    models_of = {scores.arm: manifest.arms[scores.arm].models for scores in table.arms}
    _check(
        changes, sorted({name for models in models_of.values() for name, rates in models.items() if rates})
    )
    repriced: list[ArmCost] = []
    notes: list[str] = []
    for cost, scores in zip(costs, table.arms, strict=True):
        models = models_of[scores.arm]
        why_not = _why_not(cost, scores, models)
        if not changes.touches(models) or why_not is not None:
            repriced.append(cost)
            if changes.touches(models) and why_not:
                notes.append(f"{cost.title}: {why_not}")
            continue
        ((model, measured_rates),) = models.items()
        price = TokenPrice(**_changed_rates(measured_rates or {}, changes.prices.get(model, {})))
        usd = mean_of(_dollars(scores, price, _hit_without_prefix(cost, scores, changes.cache_hit)))
        repriced.append(
            replace(
                cost,
                usd_per_query=Range.parse(usd.value),
                query_error_usd=usd.error,
                query_skew=usd.skew,
                prefixes=tuple(_repriced(prefix, price, changes.cache_hit) for prefix in cost.prefixes),
            )
        )
    return repriced, notes


def _check(changes: NewPrices, paid_models: Sequence[str]) -> None:
    for model, rates in changes.prices.items():
        if model not in paid_models:
            raise TaskError(f"no finalist pays for {model!r}; {nearest(model, paid_models)}")
        for rate in rates:
            if rate not in TOKEN_RATES:
                raise TaskError(f"price {model}.{rate}: {nearest(rate, TOKEN_RATES)}")


def _why_not(cost: ArmCost, scores: ArmScores, models: Mapping[str, Rates | None]) -> str | None:
    """Why an arm's answers cannot be repriced; "" for one whose answers cost no tokens, None if they can."""
    if cost.dedicated is not None:
        return "runs on reserved machines, whose cost does not depend on token prices"
    if not len(scores.cost_usd):
        return ""
    if len(models) != 1 or cost.kind == "cascade":
        return "several models answer for it, so its price stays as measured"
    if np.isnan(scores.tokens[:, [0, 2]]).any():
        return "its trials lack token counts, so its price stays as measured"
    return None


def _changed_rates(measured: Rates, changes: Rates) -> dict[str, float]:
    """The rates of a scenario; where writing into a cache costs as much as input, it goes on doing so."""
    rates = {**measured, **changes}
    if "cache_write" not in changes and measured.get("cache_write") == measured.get("input"):
        rates.pop("cache_write", None)
    return rates


def _hit_without_prefix(cost: ArmCost, scores: ArmScores, hit: float | None) -> float | None:
    """The share of hits that the price of an answer counts itself, where no prefix does.

    Nothing is found of prompts of which the provider caches nothing. Studies that counted no cacheable
    tokens take the share for the tokens of the shortest prompt.
    """
    if cost.prefixes:
        return 0.0
    counted = len(scores.cache_tokens) > 0 and not np.isnan(scores.cache_tokens[:, 1]).all()
    return 0.0 if counted and hit is not None else hit


def _repriced(prefix: CachedPrefix, price: TokenPrice, hit: float | None) -> CachedPrefix:
    rates = {"input": price.input, "read": price.cached_rate, "write": price.cache_write_rate}
    return prefix.model_copy(update={**rates, "hit": prefix.hit if hit is None else hit})


def _dollars(scores: ArmScores, price: TokenPrice, cache_hit: float | None) -> Floats:
    """Dollars of each answer at a price."""
    prompt, cached, output = scores.tokens[:, 0], np.nan_to_num(scores.tokens[:, 1]), scores.tokens[:, 2]
    if cache_hit is not None:
        # what all prompts have in common is no longer than the shortest of them
        cached = np.full(len(prompt), cache_hit * prompt.min())
    return price.dollars(prompt, cached, output)
