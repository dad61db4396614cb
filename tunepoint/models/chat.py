"""The contract between arms and models: a structured prompt in, a reply out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True)
class Demonstration:
    """An example shown inside a prompt."""

    input: str
    target: str


@dataclass(frozen=True)
class Prompt:
    """What is asked, as structure: each model renders it in its own way."""

    input: str
    instruction: str = ""
    labels: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Label -> what it means; a label without one stands for itself."""
    demonstrations: tuple[Demonstration, ...] = ()
    demonstration_weight: float = 0.5
    """How much demonstrations count against label names, 0..1, for models that weigh them."""


@dataclass(frozen=True)
class Usage:
    """What one answer took."""

    model: str
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Reply:
    """One answer. A reply that does not parse has `format_ok` false and says why."""

    text: str
    answer: str | None
    usage: Usage
    format_ok: bool = True
    confidence: float | None = None
    """Probability of the answer as the model gives it, 0..1; not calibrated."""
    error: str | None = None


class ChatModel(Protocol):
    """Anything that answers prompts.

    One prompt that cannot be answered is a reply with `format_ok` false; only a systemic
    fault (no weights, no network, no key) raises, and then it raises a ModelError.
    """

    name: str

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Replies in the order of the prompts."""
        ...
