"""Quantities in files: amounts (a number or a range), dollars, shares, token prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tunepoint.errors import EvidenceError
from tunepoint.stats.ranges import Range

if TYPE_CHECKING:  # a gateway that only relays loads no numpy
    from tunepoint.stats.arrays import Floats

Dollars = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Count = TypeVar("Count", float, "Floats")
"""A number of tokens, or an array with one number a call."""


class TokenPrice(BaseModel):
    """Dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    """Of input tokens that the provider finds in its cache; as `input` if missing."""
    cache_write: Dollars | None = None
    """Of input tokens that a call writes into the cache; as `input` if missing."""

    @property
    def cached_rate(self) -> float:
        """Dollars per million input tokens that the provider finds in its cache."""
        return self.input if self.cached_input is None else self.cached_input

    @property
    def cache_write_rate(self) -> float:
        """Dollars per million input tokens that a call writes into the cache."""
        return self.input if self.cache_write is None else self.cache_write

    def microdollars(
        self,
        input_tokens: Count,
        cached_tokens: Count,
        output_tokens: Count,
        written_tokens: Count | float = 0.0,
    ) -> Count:
        """Return the price of tokens in millionths of a dollar, for one call or an array of calls.

        Args:
            input_tokens: all tokens of the prompt, the next two kinds included.
            cached_tokens: those that the provider finds in its cache.
            output_tokens: those that the model writes.
            written_tokens: those that the call writes into the cache.

        """
        uncached_tokens = input_tokens - cached_tokens - written_tokens
        reading = uncached_tokens * self.input + cached_tokens * self.cached_rate
        return reading + (written_tokens * self.cache_write_rate + output_tokens * self.output)

    def dollars(
        self,
        input_tokens: Count,
        cached_tokens: Count,
        output_tokens: Count,
        written_tokens: Count | float = 0.0,
    ) -> Count:
        """Return the price of tokens in dollars, for one call or an array of calls."""
        return self.microdollars(input_tokens, cached_tokens, output_tokens, written_tokens) / 1e6


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


def as_file_content(content: Any) -> Any:
    """Return dumped settings as a file would hold them: ranges as lists of three, unset keys left out."""
    if isinstance(content, Mapping):
        if set(content) == {"low", "likely", "high"}:
            return [content["low"], content["likely"], content["high"]]
        return {key: as_file_content(value) for key, value in content.items() if value is not None}
    if isinstance(content, list | tuple):
        return [as_file_content(value) for value in content]
    return content


Amount = Annotated[Range, BeforeValidator(_positive_range)]
"""A number or [low, likely, high], none of them negative."""
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
"""A part of the whole, below 1."""
