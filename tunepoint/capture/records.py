"""What the capture store holds: a request with its reply, and what people said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

Role = Literal["champion", "fallback", "cascade", "shadow", "canary", "slice", "imported"]
"""Why an arm was asked: it serves; what serves failed; what serves was unsure; a copy that nobody waits
for; a share of the users; the route of a slice; it was asked elsewhere."""
NANO = Decimal("1e-9")


@dataclass(frozen=True)
class CapturedRequest:
    """One request with the reply of one arm."""

    id: str
    at: float
    """Seconds since 1970, UTC, when the request came."""
    task: str
    arm: str
    role: Role
    model: str
    input: str
    """What was asked, as the task sees it: one example's input."""
    output: str
    """The text that came back; empty where none did."""
    answer: str | None = None
    """The parsed answer; None where it could not be read, or nobody looked."""
    format_ok: bool | None = None
    status: int = 200
    """HTTP status of the reply."""
    error: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    """The whole conversation, where it is more than the input."""
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Tools, response_format, temperature: what else the request asked for."""
    streamed: bool = False
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    """From question to last token."""
    first_token_seconds: float | None = None
    core_seconds: float | None = None
    """Processor time on this machine, all cores, where the arm runs here."""
    cost_nanousd: int | None = None
    """Billionths of a dollar: sums are exact. None where no price is known."""
    confidence: float | None = None
    slice: str | None = None
    user: str | None = None
    """A hash that tells users apart, and no more."""
    key: str | None = None
    """Name of the API key."""
    copy_of: str | None = None
    """Of a shadow: the request that was answered by another arm."""
    origin: str = "gateway"
    licence: str | None = None

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars, exactly."""
        return None if self.cost_nanousd is None else self.cost_nanousd * NANO


@dataclass(frozen=True)
class Feedback:
    """What somebody said of an answer."""

    request: str
    """Id of the request."""
    at: float
    score: float | None = None
    """0..1."""
    thumbs: bool | None = None
    correction: str | None = None
    """What the answer should have been: a demonstration."""
    comment: str | None = None
    key: str | None = None
    """Name of the API key with which it was given."""


def nanodollars(dollars: float | Decimal) -> int:
    """Dollars as billionths, rounded half to even.

    Raises:
        ValueError: no finite number.

    """
    exact = dollars if isinstance(dollars, Decimal) else Decimal(repr(float(dollars)))
    if not exact.is_finite():
        raise ValueError(f"{dollars} is no amount of money")
    return round(exact * 1_000_000_000)
