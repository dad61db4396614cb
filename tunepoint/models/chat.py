"""The contract between arms and chat models: a structured prompt in, a reply out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:  # a gateway that only relays loads no numpy
    import numpy as np
    from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""Texts -> (n, width) unit vectors; similar texts have a high dot product."""

AnswerKind = Literal["label", "json", "number", "text"]
AnswerForm = Literal["either", "plain", "json", "letter"]
"""How a label is written: as the server prefers to confine it, by itself, inside a JSON object, or as the
letter that stands in front of it."""


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
    """A question as structure: each model renders it in its own way."""

    input: str
    instruction: str = ""
    labels: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Label -> what it means; a label without a description explains itself."""
    demonstrations: tuple[Demonstration, ...] = ()
    demonstration_weight: float = 0.5
    """Weight of the demonstrations against the label names, 0..1, in encoders, which mix the two."""
    shown_answers: tuple[str, ...] = ()
    """Right answers to other inputs, which show the form of an answer."""
    kind: AnswerKind = "label"
    schema: Mapping[str, Any] | None = None
    """JSON schema of `json` answers."""
    schema_inferred: bool = False
    """Whether the schema was inferred from examples: the model is asked to follow it, and an answer that
    does not is compared with the right one all the same."""
    form: AnswerForm = "either"
    """How a label is asked for, shown in demonstrations, and confined."""
    template_name: str = "plain"
    """The prompt template that renders it, by its name in models/templates.py."""
    system: bool = False
    """Whether the instruction stands in a system message, apart from the input."""
    reasoning: bool = False
    """Whether the model thinks step by step first; the answer then stands on the last line."""
    written: tuple[Message, ...] = ()
    """Messages that somebody wrote, with the input in them: sent as they are, in place of a template."""
    history: tuple[Message, ...] = ()
    """Messages after the question: an unreadable reply, and the request to repair it."""
    max_output_tokens: int | None = None
    """None allows what answers of this kind usually take."""
    temperature: float = 0.0
    sample: int = 0
    """Number of the sample, where the same prompt is sent several times."""


@dataclass(frozen=True)
class Usage:
    """Tokens and seconds of one answer; the sum over its calls if it took several."""

    model: str
    input_tokens: int = 0
    cached_tokens: int = 0
    """Part of `input_tokens`."""
    output_tokens: int = 0
    reasoning_tokens: int = 0
    """Part of `output_tokens`."""
    seconds: float | None = None
    """From question to answer; None where a batch was timed as a whole."""
    calls: int = 1
    estimated: bool = False
    """Whether the server counted no tokens, so that these are by the length of the texts."""
    core_seconds: float | None = None
    """Processor time of this machine; None where another machine answers, or nobody measured it."""
    written_tokens: int = 0
    """Part of `input_tokens` that the call wrote into the provider's cache, at a price of its own."""
    cacheable_tokens: int | None = None
    """Part of `input_tokens` that the provider could have cached, as production will; None where unknown."""
    batched: bool = False
    """Whether a call of it went by batch, at a lower price and without seconds."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.model,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            None if self.batched or other.batched else _add(self.seconds, other.seconds),
            self.calls + other.calls,
            self.estimated or other.estimated,
            _add(self.core_seconds, other.core_seconds),
            self.written_tokens + other.written_tokens,
            _add(self.cacheable_tokens, other.cacheable_tokens),
            self.batched or other.batched,
        )


_Amount = TypeVar("_Amount", int, float)


def _add(first: _Amount | None, second: _Amount | None) -> _Amount | None:
    """Add two amounts, of which either may be unknown."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


@dataclass(frozen=True)
class Reply:
    """One answer. An unreadable reply has no answer, `format_ok` false, and an error that says why."""

    text: str
    answer: str | None
    usage: Usage
    format_ok: bool = True
    confidence: float | None = None
    """Probability of the answer according to the model, 0..1; not calibrated."""
    error: str | None = None
    repaired: bool = False
    """Whether the first text was unreadable and the second was not."""


class ChatModel(Protocol):
    """Anything that answers prompts.

    A prompt without an answer is a reply with `format_ok` false. Only a fault that every
    prompt would have (no weights, no network, no key) raises, and it raises a ModelError.
    """

    name: str
    remote: bool
    """Whether it runs on another machine: then each call is timed by itself."""

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return a reply to each prompt, in their order."""
        ...
