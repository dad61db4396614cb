"""The contract between arms and models: a structured prompt in, a reply out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> (n, width) unit vectors: what 'similar' means for retrieved demonstrations."""

AnswerKind = Literal["label", "json", "number", "text"]


@dataclass(frozen=True)
class Demonstration:
    """An example shown inside a prompt."""

    input: str
    target: str


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


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
    kind: AnswerKind = "label"
    schema: Mapping[str, Any] | None = None
    """JSON schema of `json` answers."""
    template_name: str = "plain"
    """Which of the wordings renders it; see models/wordings.py."""
    system: bool = False
    """The instruction stands in a system message, apart from the input."""
    reasoning: bool = False
    """Think step by step first; the answer stands on the last line."""
    history: tuple[Message, ...] = ()
    """What was said after the question: a reply that could not be read, and the complaint."""
    max_output_tokens: int | None = None
    """Of the answer; by its kind if None."""
    temperature: float = 0.0
    sample: int = 0
    """Number of the sample, where the same prompt is asked several times."""


@dataclass(frozen=True)
class Usage:
    """What one answer took; the sum over its calls where there were several."""

    model: str
    input_tokens: int = 0
    cached_tokens: int = 0
    """Part of `input_tokens`."""
    output_tokens: int = 0
    reasoning_tokens: int = 0
    """Part of `output_tokens`."""
    seconds: float | None = None
    """From question to answer; None for one of a batch, whose own time nobody knows."""
    calls: int = 1

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.model,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            _sum(self.seconds, other.seconds),
            self.calls + other.calls,
        )


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


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
    repaired: bool = False
    """The first text did not parse, a later one did."""


class ChatModel(Protocol):
    """Anything that answers prompts.

    One prompt that cannot be answered is a reply with `format_ok` false; only a systemic
    fault (no weights, no network, no key) raises, and then it raises a ModelError.
    """

    name: str
    remote: bool
    """Whether it answers elsewhere: then its seconds are those of each call."""

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Replies in the order of the prompts."""
        ...
