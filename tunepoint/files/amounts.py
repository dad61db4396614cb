"""Quantities as files give them: a number or a range, dollars, shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tunepoint.errors import EvidenceError
from tunepoint.stats.ranges import Range

_Dollars = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class TokenPrice(BaseModel):
    """Dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: _Dollars
    output: _Dollars
    cached_input: _Dollars | None = None


def _range(value: Any) -> Range:
    try:
        return Range.parse(value)
    except EvidenceError as error:
        raise ValueError(str(error)) from None


def _positive_range(value: Any) -> Range:
    parsed = _range(value)
    if parsed.low < 0:
        raise ValueError(f"must not be negative, got {parsed.low:g}")
    return parsed


def as_given(content: Any) -> Any:
    """A dump of settings as a file gives them: ranges as three numbers, nothing for what is not set."""
    if isinstance(content, Mapping):
        if set(content) == {"low", "likely", "high"}:
            return [content["low"], content["likely"], content["high"]]
        return {key: as_given(value) for key, value in content.items() if value is not None}
    if isinstance(content, list | tuple):
        return [as_given(value) for value in content]
    return content


Amount = Annotated[Range, BeforeValidator(_positive_range)]
"""A number or [low, likely, high], none of them negative."""


Dollars = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
