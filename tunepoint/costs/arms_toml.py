"""What things cost: dated prices, and the cost description of an arm."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tunepoint.costs.arm_cost import NOTHING, ArmCost
from tunepoint.errors import TrialsError, nearest
from tunepoint.files.amounts import Amount, Dollars, TokenPrice
from tunepoint.files.currencies import RATES, in_dollars
from tunepoint.files.text import text_of
from tunepoint.stats.arrays import Floats
from tunepoint.stats.moments import mean_of
from tunepoint.stats.ranges import Range
from tunepoint.task.hosting import Dedicated
from tunepoint.trials.table import ArmScores
from tunepoint.trials.trial import ArmKind

_Quantity = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_Skew = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
_Dollars = Annotated[Decimal, Field(ge=0, le=10**12, allow_inf_nan=False)]


class _Price(TokenPrice):
    """Dollars per million tokens, with what the provider charges and grants around its cache."""

    cache_write: Dollars | None = None
    """Of tokens that are put into the cache; as `input` if missing."""
    batch_discount: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share that is taken off where answers may come later."""
    static_tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens at the start of the prompt that are the same for every input: what can be cached."""
    cache_hit: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the calls that find them there; the others write them. As the trials say if missing."""

    @property
    def cache_write_rate(self) -> float:
        """Dollars per million input tokens that a call writes into the cache."""
        return self.input if self.cache_write is None else self.cache_write

    @model_validator(mode="after")
    def _together(self) -> _Price:
        if (self.cache_hit is None) != (self.static_tokens is None):
            raise ValueError("cache_hit and static_tokens are given together: a share, and of which tokens")
        return self


class _DeclaredArm(BaseModel):
    """One `[[arm]]` of arms.toml."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    name: str
    kind: ArmKind
    upfront_usd: Amount = NOTHING
    monthly_usd: Amount = NOTHING
    price: _Price | None = None
    usd_per_query: Amount | None = None
    usd_per_second: _Dollars | None = None
    labels: Annotated[int, Field(ge=0)] = 0
    training_core_seconds: _Quantity = 0.0
    training_usd: _Quantity = 0.0
    hours: Amount = NOTHING
    core_seconds_per_query: _Quantity | None = None
    core_seconds_error: _Quantity = 0.0
    core_seconds_skew: _Skew = 0.0
    query_error_usd: _Quantity = 0.0
    query_skew: _Skew = 0.0
    retrain_hours: Amount = NOTHING
    rented: bool = False
    retires_months: Annotated[float, Field(gt=0, le=1_200)] | None = None
    deterministic: bool = False
    hosting: Dedicated | None = None


def read_arms(path: Path) -> dict[str, _DeclaredArm]:
    """The declared arms of arms.toml by name.

    Raises:
        TrialsError: no such file, not TOML, an unknown key, an arm described twice.

    """
    if not path.exists():
        raise TrialsError(f"{path}: no such file; docs/files.md shows what arms.toml holds")
    try:
        content: dict[str, Any] = tomllib.loads(text_of(path, TrialsError))
    except tomllib.TOMLDecodeError as error:
        raise TrialsError(f"{path}: not valid TOML: {error}") from None
    try:
        content = in_dollars(content)
    except ValueError as error:
        raise TrialsError(f"{path}: {error}") from None
    unknown = set(content) - {"arm", RATES}
    if unknown or not isinstance(content.get("arm"), list):
        raise TrialsError(f"{path}: expected only [[arm]] tables, got {sorted(content) or 'nothing'}")
    arms: dict[str, _DeclaredArm] = {}
    for number, entry in enumerate(content["arm"], start=1):
        if not isinstance(entry, dict):
            raise TrialsError(f"{path}: arm {number} is {entry!r}; an [[arm]] table is expected")
        arm = _declared(path, number, entry)
        if arm.name in arms:
            raise TrialsError(f"{path}: arm {arm.name!r} is described twice")
        arms[arm.name] = arm
    return arms


def _declared(path: Path, number: int, entry: dict[str, Any]) -> _DeclaredArm:
    where = f"{path}: arm {entry.get('name', number)!r}"
    try:
        arm = _DeclaredArm.model_validate(entry)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            raise TrialsError(
                f"{where}: unknown key {key!r}; {nearest(key, _DeclaredArm.model_fields)}"
            ) from None
        message = fault["msg"].removeprefix("Value error, ")
        raise TrialsError(f"{where}: {key}: {message[:1].lower()}{message[1:]}") from None
    ways = [arm.price, arm.usd_per_query, arm.usd_per_second]
    if sum(way is not None for way in ways) > 1:
        raise TrialsError(f"{where}: give one of price, usd_per_query and usd_per_second")
    return arm


def declared_cost(arm: _DeclaredArm, scores: ArmScores) -> ArmCost:
    """The cost of an arm that another tool measured, from its declaration and its trials.

    Raises:
        TrialsError: a price per token or second, but trials without tokens or seconds.

    """
    dollars, notes = _dollars_per_query(arm, scores)
    measured = mean_of(dollars)
    declared = arm.usd_per_query is not None
    return ArmCost(
        arm.name,
        arm.kind,
        labels=arm.labels,
        training_core_seconds=arm.training_core_seconds,
        training_usd=arm.training_usd,
        upfront_usd=arm.upfront_usd,
        hours=arm.hours,
        monthly_usd=arm.monthly_usd,
        usd_per_query=arm.usd_per_query or Range.parse(measured.value),
        query_error_usd=arm.query_error_usd if declared else measured.error,
        query_skew=arm.query_skew if declared else measured.skew,
        core_seconds_per_query=arm.core_seconds_per_query or 0.0,
        core_seconds_error=arm.core_seconds_error,
        core_seconds_skew=arm.core_seconds_skew,
        retrain_hours=arm.retrain_hours,
        rented=arm.rented,
        retires_months=arm.retires_months,
        deterministic=arm.deterministic,
        dedicated=arm.hosting,
        notes=notes,
    )


def arms_toml(costs: Sequence[ArmCost]) -> str:
    """Costs that a study measured, in the form in which `decide` reads them."""
    lines = ["# What each arm takes to build and to run, before the rates of task.toml are applied."]
    for cost in costs:
        fields = {
            "name": json.dumps(cost.arm, ensure_ascii=False),
            "kind": json.dumps(cost.kind),
            "labels": cost.labels,
            "training_core_seconds": cost.training_core_seconds,
            "training_usd": cost.training_usd,
            "upfront_usd": _toml_range(cost.upfront_usd),
            "hours": _toml_range(cost.hours),
            "monthly_usd": _toml_range(cost.monthly_usd),
            "usd_per_query": _toml_range(cost.usd_per_query),
            "query_error_usd": cost.query_error_usd,
            "query_skew": cost.query_skew,
            "core_seconds_per_query": cost.core_seconds_per_query,
            "core_seconds_error": cost.core_seconds_error,
            "core_seconds_skew": cost.core_seconds_skew,
            "retrain_hours": _toml_range(cost.retrain_hours),
            "rented": json.dumps(cost.rented),
            "deterministic": json.dumps(cost.deterministic),
        }
        if cost.retires_months is not None:
            fields["retires_months"] = round(cost.retires_months, 3)
        if cost.dedicated is not None:
            fields["hosting"] = _toml_hosting(cost.dedicated)
        lines += ["", "[[arm]]", *(f"{key} = {value}" for key, value in fields.items())]
    return "\n".join(lines) + "\n"


def _toml_hosting(hosting: Dedicated) -> str:
    facts = hosting.model_dump() | {"usd_per_hour": _toml_range(hosting.usd_per_hour)}
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in facts.items()) + " }"


def _toml_range(quantity: Range) -> list[float]:
    return [quantity.low, quantity.likely, quantity.high]


def _dollars_per_query(arm: _DeclaredArm, scores: ArmScores) -> tuple[Floats, tuple[str, ...]]:
    """Dollars of each trial by the declared price, else by what the trials say."""
    if arm.price is not None:
        return _token_dollars(arm.name, arm.price, scores.tokens), ()
    if arm.usd_per_second is not None:
        if not len(scores.seconds):
            raise TrialsError(f"arm {arm.name!r} has a price per second, but its trials no seconds")
        return scores.seconds * float(arm.usd_per_second), ()
    priced = arm.hosting is not None
    priced |= arm.usd_per_query is not None or arm.core_seconds_per_query is not None
    if not priced and not len(scores.cost_usd):
        return np.zeros(1), (f"{arm.name}: no price is known, its answers count as free",)
    return scores.cost_usd, ()


def _token_dollars(name: str, price: _Price, tokens: Floats) -> Floats:
    """Dollars of each answer from its tokens; cached input is part of the input.

    Args:
        tokens: (trials, 3) input, cached and output tokens; NaN where a trial has none.

    """
    given, cached, output = tokens[:, 0], np.nan_to_num(tokens[:, 1]), tokens[:, 2]
    lacking = int(np.isnan(given + output).sum())
    if lacking:
        raise TrialsError(
            f"arm {name!r} has a price per token, but {lacking} of its {len(tokens)} trials lack "
            "input_tokens or output_tokens: give both on every line, or usd_per_query"
        )
    if (cached > given).any():
        row = int(np.argmax(cached - given))
        raise TrialsError(
            f"arm {name!r}: a trial has {cached[row]:.0f} cached of {given[row]:.0f} input tokens; "
            "cached_tokens are part of input_tokens"
        )
    written = np.zeros(len(given))
    if price.cache_hit is not None and price.static_tokens is not None:
        if (given < price.static_tokens).any():
            raise TrialsError(
                f"arm {name!r}: static_tokens are {price.static_tokens}, and a trial has {given.min():.0f} "
                "input tokens in all; they are part of every prompt"
            )
        cached = np.full(len(given), price.cache_hit * price.static_tokens)
        written = price.static_tokens - cached
    spent = price.microdollars(given, cached, output, written)
    return np.asarray(spent * (1 - price.batch_discount) / 1e6)


_HINTS: tuple[tuple[ArmKind, tuple[str, ...]], ...] = (
    ("incumbent", ("incumbent", "current", "production", "in use")),
    ("cascade", ("cascade", "router")),
    ("hybrid", ("hybrid",)),
    ("tuned", ("tuned", "tune", "finetun", "fine-tun", "lora", "sft", "probe")),
)


def guessed_cost(scores: ArmScores) -> ArmCost:
    """Kind by the words of the name and cost by the trials, where nothing was declared."""
    name = scores.arm.lower()
    kind: ArmKind = next((kind for kind, words in _HINTS if any(word in name for word in words)), "prompt")
    note = f"{scores.arm}: its kind was guessed from its name ({kind})"
    measured = mean_of(scores.cost_usd)
    free = () if len(scores.cost_usd) else (f"{scores.arm}: no price is known, its answers count as free",)
    return ArmCost(
        scores.arm,
        kind,
        usd_per_query=Range.parse(measured.value),
        query_error_usd=measured.error,
        query_skew=measured.skew,
        notes=(note, *free),
    )
