"""Costs of arms that another tool measured: declared in arms.toml, else guessed from names and trials."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.arms_toml import SHARED_FIELDS, DeclaredArm, DeclaredPrice
from tunepoint.errors import TrialsError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.moments import mean_of
from tunepoint.stats.ranges import Range
from tunepoint.trials.table import ArmScores
from tunepoint.trials.trial import ArmKind

KIND_HINTS: tuple[tuple[ArmKind, tuple[str, ...]], ...] = (
    ("incumbent", ("incumbent", "current", "production", "in use")),
    ("cascade", ("cascade", "router")),
    ("hybrid", ("hybrid",)),
    ("tuned", ("tuned", "tune", "finetun", "fine-tun", "lora", "sft", "probe")),
)
"""Words in a name that give the kind away; the first kind that matches counts."""


def declared_cost(arm: DeclaredArm, scores: ArmScores) -> ArmCost:
    """Return the cost of an arm from its declaration and its trials.

    Raises:
        TrialsError: the arm has a price per token or second, but its trials have no tokens or seconds.

    """
    dollars, notes = _dollars_per_query(arm, scores)
    declared = {name: getattr(arm, name) for name in SHARED_FIELDS}
    declared["core_seconds_per_query"] = arm.core_seconds_per_query or 0.0
    if arm.usd_per_query is None:
        declared |= _mean_price(dollars)
    prefix = None if arm.price is None else arm.price.prefix()
    if prefix is not None:
        declared["prefixes"] = (prefix,)
    return ArmCost(arm=arm.name, dedicated=arm.hosting, notes=notes, **declared)


def guessed_cost(scores: ArmScores) -> ArmCost:
    """Guess the kind from the words of the name, and the cost from the trials, where nothing is declared."""
    name = scores.arm.lower()
    kind: ArmKind = next(
        (kind for kind, words in KIND_HINTS if any(word in name for word in words)), "prompt"
    )
    notes = [f"{scores.arm}: its kind ({kind}) was guessed from its name"]
    if not len(scores.cost_usd):
        notes.append(_free_note(scores.arm))
    return ArmCost(arm=scores.arm, kind=kind, notes=tuple(notes), **_mean_price(scores.cost_usd))


def _mean_price(dollars: Floats) -> dict[str, Any]:
    """Fields of `ArmCost` that say what an answer costs on average, and how well that is known."""
    mean = mean_of(dollars)
    return {
        "usd_per_query": Range.parse(mean.value),
        "query_error_usd": mean.error,
        "query_skew": mean.skew,
    }


def _free_note(title: str) -> str:
    return f"{title}: no price is known, so its answers count as free"


def _dollars_per_query(arm: DeclaredArm, scores: ArmScores) -> tuple[Floats, tuple[str, ...]]:
    """Dollars of each trial by the declared price, else by what the trials say; and caveats."""
    if arm.price is not None:
        return _token_dollars(arm.name, arm.price, scores.tokens), ()
    if arm.usd_per_second is not None:
        if not len(scores.seconds):
            raise TrialsError(f"arm {arm.name!r} has a price per second, but its trials have no seconds")
        return scores.seconds * float(arm.usd_per_second), ()
    declared = (arm.hosting, arm.usd_per_query, arm.core_seconds_per_query)
    if len(scores.cost_usd) or any(price is not None for price in declared):
        return scores.cost_usd, ()
    return np.zeros(1), (_free_note(arm.label or arm.name),)


def _token_dollars(name: str, price: DeclaredPrice, tokens: Floats) -> Floats:
    """Return the dollars of each answer by its tokens.

    Args:
        tokens: (trials, 3) input, cached and output tokens; NaN where a trial has none. Cached tokens
            are part of the input tokens.

    """
    inputs, cached, output = tokens[:, 0], np.nan_to_num(tokens[:, 1]), tokens[:, 2]
    without_tokens = int(np.isnan(inputs + output).sum())
    if without_tokens:
        raise TrialsError(
            f"arm {name!r} has a price per token, but {without_tokens} of its {len(tokens)} trials lack "
            "input_tokens or output_tokens: give both on every line, or usd_per_query"
        )
    if (cached > inputs).any():
        row = int(np.argmax(cached - inputs))
        raise TrialsError(
            f"arm {name!r}: a trial has {cached[row]:.0f} cached of {inputs[row]:.0f} input tokens; "
            "cached_tokens are part of input_tokens"
        )
    written = np.zeros(len(inputs))
    if price.static_tokens is not None:
        if (inputs < price.static_tokens).any():
            raise TrialsError(
                f"arm {name!r}: static_tokens are {price.static_tokens}, and a trial has {inputs.min():.0f} "
                "input tokens in all; they are part of every prompt"
            )
        # What is declared replaces what the trials say: production traffic warms the cache differently.
        cached = np.zeros(len(inputs))
    if price.cache_hit is not None and price.static_tokens is not None:
        cached = np.full(len(inputs), price.cache_hit * price.static_tokens)
        written = price.static_tokens - cached
    spent = price.microdollars(inputs, cached, output, written)
    return np.asarray(spent * (1 - price.batch_discount) / 1e6)
