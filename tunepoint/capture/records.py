"""What the capture store holds: a request with its answer, and feedback on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

Role = Literal["champion", "fallback", "cascade", "shadow", "canary", "slice", "imported"]
"""Why an arm was called: it is the champion; another arm failed; another arm was unsure; it answers a copy;
it is tried on a share of the users; it has the slice's route. `imported` answers come from another tool."""
NANO = Decimal("1e-9")
THIS_MACHINE = "this machine"
"""The model of arms that run in the gateway, in captured requests."""

MAX_SLICE_LENGTH = 200
"""Characters of a slice's name that are kept; clients choose it."""


@dataclass(frozen=True, slots=True)
class CanaryValue:
    """One outcome of one side of a canary."""

    task: str
    since: float
    """When the canary began, in seconds since 1970: tells canaries apart."""
    side: str
    """`champion` or `canary`."""
    measure: str
    unit: str
    """Who counts once on each measure: a user, or a request without one."""
    value: float


@dataclass(frozen=True)
class CapturedRequest:
    """One request with the answer of one arm."""

    id: str
    at: float
    """When the request came, in seconds since 1970 (UTC)."""
    task: str
    arm: str
    role: Role
    model: str
    input: str
    """The text of the request that the task is about: one example's input."""
    output: str
    """The text of the answer; empty if the arm failed."""
    answer: str | None = None
    """The parsed answer; None if it could not be parsed, or nobody tried."""
    format_ok: bool | None = None
    """Whether the answer could be parsed; None if nobody tried."""
    status: int = 200
    """HTTP status of the answer."""
    error: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    """The whole conversation, where it is more than the input."""
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Everything else of the request: tools, response_format, temperature."""
    streamed: bool = False
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    """From the request to the last token."""
    first_token_seconds: float | None = None
    core_seconds: float | None = None
    """Processor time on this machine, summed over cores, if the arm runs here."""
    cost_nanousd: int | None = None
    """Billionths of a dollar, as whole numbers so that sums are exact. None where no price is known."""
    confidence: float | None = None
    slice: str | None = None
    user: str | None = None
    """A hash that tells users apart."""
    key: str | None = None
    """Name of the API key."""
    copy_of: str | None = None
    """Of a shadow's answer: the id of the request, which another arm has answered."""
    origin: str = "gateway"
    licence: str | None = None
    outcomes: tuple[CanaryValue, ...] = ()
    """What a canary that runs counts of it; kept in a table of its own."""

    @property
    def attempt(self) -> str:
        """The id of the arm's attempt: a failed one is kept under it, an answer under the request's id."""
        ending = attempt_id("", self.arm)
        return self.id if self.id.endswith(ending) else f"{self.id}{ending}"

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars, exactly."""
        return None if self.cost_nanousd is None else self.cost_nanousd * NANO


@dataclass(frozen=True)
class Feedback:
    """What somebody said about an answer."""

    request: str
    """Id of the request."""
    at: float
    """Seconds since 1970."""
    score: float | None = None
    """0 to 1."""
    thumbs: bool | None = None
    correction: str | None = None
    """The right answer."""
    comment: str | None = None
    key: str | None = None
    """Name of the API key with which it was given."""
    outcomes: tuple[CanaryValue, ...] = ()
    """What a canary that runs counts of it; kept in a table of its own."""


def attempt_id(request: str, arm: str) -> str:
    """Return the id of an arm's attempt to answer a request; each arm gets one attempt."""
    return f"{request}-{hashlib.sha256(arm.encode()).hexdigest()[:8]}"


def nanodollars(dollars: float | Decimal) -> int:
    """Convert dollars to billionths, rounded half to even.

    Raises:
        ValueError: not a finite number.

    """
    # By its shortest decimal form: 0.1 means a tenth, not the binary fraction next to it.
    exact = dollars if isinstance(dollars, Decimal) else Decimal(repr(float(dollars)))
    if not exact.is_finite():
        raise ValueError(f"{dollars} is not an amount of money")
    return round(exact * 1_000_000_000)


def without_content(request: CapturedRequest) -> CapturedRequest:
    """Return a copy without question and answer; without the error too, which may quote either."""
    return replace(request, input="", output="", answer=None, error=None, messages=None, parameters={})


def characters(request: CapturedRequest) -> int:
    """How long the texts of a request are, together: what it takes in memory, and in time to redact."""
    texts = (request.input, request.output, request.error, request.messages, request.parameters)
    return sum(map(_characters, texts))


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values())) + len(value)
    if isinstance(value, list | tuple):
        return sum(map(_characters, value)) + len(value)
    return 1
