"""arms.toml: the options that another tool measured, with their costs; a study writes one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from tomlkit.items import InlineTable, Table

from tunepoint.costs.arm_cost import NOTHING, ArmCost
from tunepoint.costs.caching import CachedPrefix
from tunepoint.errors import TrialsError, nearest
from tunepoint.files.amounts import Amount, TokenPrice, as_file_content
from tunepoint.files.currencies import RATES_KEY, in_dollars
from tunepoint.files.toml import parse_toml
from tunepoint.task.hosting import Dedicated
from tunepoint.trials.trial import ArmKind

_Quantity = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_Skew = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
_ExactDollars = Annotated[Decimal, Field(ge=0, le=10**12, allow_inf_nan=False)]


class DeclaredPrice(TokenPrice):
    """Dollars per million tokens, with what the provider grants around its cache and its batches."""

    batch_discount: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share that the provider takes off for answers that may come later."""
    static_tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens at the start of the prompt that are the same for every input: what a cache can hold."""
    cache_hit: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the calls that find them in the cache; the others write them."""
    cache_minutes: Amount | None = None
    """How long the cache keeps them after each use: the share of hits then follows from traffic."""

    @model_validator(mode="after")
    def _cache_is_whole(self) -> DeclaredPrice:
        if self.cache_hit is not None and self.cache_minutes is not None:
            raise ValueError("give cache_hit or cache_minutes, from which it follows with the traffic")
        declared = self.cache_hit is not None or self.cache_minutes is not None
        if declared != (self.static_tokens is not None):
            given = "cache_minutes" if self.cache_minutes is not None else "cache_hit"
            raise ValueError(f"{given} and static_tokens are given together: what is cached, and how much")
        return self

    def prefix(self) -> CachedPrefix | None:
        """Return the start of the prompt whose cost depends on traffic; None where nothing is said of it."""
        if self.cache_minutes is None or not self.static_tokens:
            return None
        return CachedPrefix(
            tokens=self.static_tokens,
            input=self.input * (1 - self.batch_discount),
            read=self.cached_rate * (1 - self.batch_discount),
            write=self.cache_write_rate * (1 - self.batch_discount),
            minutes=self.cache_minutes,
        )


class DeclaredArm(BaseModel):
    """One `[[arm]]` of arms.toml; `ArmCost` has the meaning of the fields that it shares with it."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    name: str
    label: str | None = None
    """What people read instead of the name."""
    kind: ArmKind
    labels: Annotated[int, Field(ge=0)] = 0
    training_core_seconds: _Quantity = 0.0
    training_usd: _Quantity = 0.0
    upfront_usd: Amount = NOTHING
    hours: Amount = NOTHING
    monthly_usd: Amount = NOTHING
    price: DeclaredPrice | None = None
    """Instead of `usd_per_query`: the tokens of the trials are charged at these rates."""
    usd_per_query: Amount | None = None
    batch_discount: Annotated[float, Field(ge=0, lt=1)] = 0.0
    usd_per_second: _ExactDollars | None = None
    """Instead of `usd_per_query`: the seconds of the trials are charged at this rate."""
    query_error_usd: _Quantity = 0.0
    query_skew: _Skew = 0.0
    core_seconds_per_query: _Quantity | None = None
    core_seconds_error: _Quantity = 0.0
    core_seconds_skew: _Skew = 0.0
    retrain_hours: Amount = NOTHING
    rented: bool = False
    replaced: bool = False
    deterministic: bool = False
    retires_months: Annotated[float, Field(gt=0, le=1_200)] | None = None
    hosting: Dedicated | None = None
    """`ArmCost.dedicated`: machines that are paid by the hour."""
    prefixes: tuple[CachedPrefix, ...] = ()

    @model_validator(mode="after")
    def _one_price(self) -> DeclaredArm:
        prices = (self.price, self.usd_per_query, self.usd_per_second)
        if sum(price is not None for price in prices) > 1:
            raise ValueError("give one of price, usd_per_query and usd_per_second")
        return self


SHARED_FIELDS = tuple(field.name for field in fields(ArmCost) if field.name in DeclaredArm.model_fields)
"""What arms.toml and `ArmCost` call by the same name."""


# -- reading ---------------------------------------------------------------------------------


def read_arms(path: Path) -> dict[str, DeclaredArm]:
    """Return the arms that arms.toml declares, by name.

    Raises:
        TrialsError: there is no such file, it is not TOML, or it has an unknown key or one arm twice.

    """
    if not path.exists():
        raise TrialsError(f"{path}: no such file; docs/files.md shows what arms.toml holds")
    arms: dict[str, DeclaredArm] = {}
    for number, entry in enumerate(_arm_tables(path), start=1):
        if not isinstance(entry, dict):
            raise TrialsError(f"{path}: arm {number} must be an [[arm]] table, got {entry!r}")
        arm = _parse_arm(path, number, entry)
        if arm.name in arms:
            raise TrialsError(f"{path}: arm {arm.name!r} is described twice")
        arms[arm.name] = arm
    return arms


def _arm_tables(path: Path) -> list[Any]:
    """The [[arm]] entries, with amounts of other currencies turned into dollars."""
    try:
        content: dict[str, Any] = in_dollars(parse_toml(path, TrialsError))
    except ValueError as error:
        raise TrialsError(f"{path}: {error}") from None
    unknown = set(content) - {"arm", RATES_KEY}
    if unknown or not isinstance(content.get("arm"), list):
        raise TrialsError(f"{path}: expected only [[arm]] tables, got {sorted(content) or 'nothing'}")
    return list(content["arm"])


def _parse_arm(path: Path, number: int, entry: dict[str, Any]) -> DeclaredArm:
    where = f"{path}: arm {entry.get('name', number)!r}"
    try:
        return DeclaredArm.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        raise TrialsError(f"{where}: unknown key {key!r}; {nearest(key, DeclaredArm.model_fields)}")
    message = problem["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    raise TrialsError(": ".join(filter(None, (where, key, message))))


# -- writing ---------------------------------------------------------------------------------


def arms_toml(costs: Sequence[ArmCost]) -> str:
    """Return the measured costs of a study in the form in which `tunepoint decide` reads them."""
    arms = tomlkit.aot()
    for cost in costs:
        # Not validated: a study that is measured is written whatever its numbers are.
        shared = {name: getattr(cost, name) for name in SHARED_FIELDS}
        if cost.retires_months is not None:
            shared["retires_months"] = round(cost.retires_months, 3)
        arm = DeclaredArm.model_construct(name=cost.arm, hosting=cost.dedicated, **shared)
        arms.append(_toml_table(as_file_content(arm.model_dump())))
    file = tomlkit.document()
    file.add(
        tomlkit.comment("What each arm takes to build and to run, before the rates of task.toml are applied.")
    )
    file.add("arm", arms)
    return tomlkit.dumps(file)


def _toml_table(values: dict[str, Any]) -> Table:
    """A table on lines of its own; tables within it stand on one line each."""
    table = tomlkit.table()
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = tomlkit.array().multiline(True)
            lines.extend(_inline(entry) for entry in value)
            value = lines
        table.add(key, _inline(value) if isinstance(value, dict) else value)
    return table


def _inline(values: dict[str, Any]) -> InlineTable:
    inline = tomlkit.inline_table()
    inline.update(values)
    return inline
