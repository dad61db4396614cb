"""What stands behind a chat model: requests out, completions in, each as it arrives.

An endpoint knows nothing of tasks. `TextModel` puts prompts into words for it and reads the
answers; recordings and spending caps wrap one endpoint in another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from tunepoint.models.chat import ChatModel, Prompt, Reply, Message, Usage
from tunepoint.models.parsing import parse
from tunepoint.models.templates import render

SHORT_ANSWER_TOKENS, LONG_ANSWER_TOKENS = 512, 2_048
"""Output tokens that a plain answer, and one with reasoning or free text, may take."""


@dataclass(frozen=True)
class Request:
    """One call, as it goes over the wire."""

    messages: tuple[Message, ...]
    max_output_tokens: int = SHORT_ANSWER_TOKENS
    temperature: float = 0.0
    sample: int = 0
    """Tells samples of the same request apart; it is the seed of the call."""
    schema: Mapping[str, Any] | None = None
    """JSON schema that the completion must follow, where the endpoint can hold to it."""
    choices: tuple[str, ...] = ()
    """The only texts allowed, where the endpoint can hold to them."""

    def key(self, model: str) -> str:
        """SHA-256 of the model and the whole request: the same call has the same key."""
        content = json.dumps([model, asdict(self)], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Completion:
    """What came back."""

    text: str
    usage: Usage
    confidence: float | None = None
    """Probability of the text by the model's own log-probabilities."""
    error: str | None = None
    """Why the text is not an answer: refused, cut off, too long an input, no reply."""
    lasting: bool = True
    """False for faults of the moment, which a later call may not have."""


Done = Callable[[int, Completion], None]
"""Called with a request's position as its completion arrives, from any thread."""
Allow = Callable[[Request], bool]
"""Called before a request is sent: False asks to wait for those on their way, and raising stops
all that were not sent yet."""


class Endpoint(Protocol):
    """Anything that completes requests.

    One request that fails is a completion with `error`; only a systemic fault raises, after
    every completion that had arrived was handed to `done`.
    """

    name: str

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests; returns when each was handed to `done`."""
        ...


def allow_all(request: Request) -> bool:
    """Allow every request."""
    return True


class TextModel:
    """A chat model over an endpoint."""

    def __init__(self, endpoint: Endpoint, *, remote: bool = True) -> None:
        self.endpoint = endpoint
        self.remote = remote
        self.name = endpoint.name

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Replies in the order of the prompts."""
        arrived: dict[int, Completion] = {}
        requests = [request_of(prompt) for prompt in prompts]
        self.endpoint.complete(requests, arrived.__setitem__, allow_all)
        return [reply_of(prompt, arrived[i]) for i, prompt in enumerate(prompts)]


class Resampled:
    """A chat model asked the same once more: its answers are another decode, not the recorded one."""

    def __init__(self, model: ChatModel, decode: int) -> None:
        self.model = model
        self.decode = decode
        self.remote = model.remote
        self.name = model.name

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Replies in the order of the prompts."""
        offset = self.decode * MAX_SAMPLES
        return self.model.answer([replace(prompt, sample=prompt.sample + offset) for prompt in prompts])


MAX_SAMPLES = 1_000
"""Samples of one request that a decode may take."""


def request_of(prompt: Prompt) -> Request:
    """The call that asks a prompt."""
    long = prompt.reasoning or prompt.kind in ("text", "json")
    return Request(
        render(prompt),
        prompt.max_output_tokens or (LONG_ANSWER_TOKENS if long else SHORT_ANSWER_TOKENS),
        prompt.temperature,
        prompt.sample,
        None if prompt.reasoning else _schema(prompt),
        () if prompt.reasoning or prompt.kind != "label" else prompt.labels,
    )


def _schema(prompt: Prompt) -> Mapping[str, Any] | None:
    if prompt.kind == "json":
        return prompt.schema
    if prompt.kind == "label":
        answer = {"type": "string", "enum": list(prompt.labels)}
        return {
            "type": "object",
            "properties": {"answer": answer},
            "required": ["answer"],
            "additionalProperties": False,
        }
    return None


def reply_of(prompt: Prompt, completion: Completion) -> Reply:
    """The answer that a completion holds."""
    if completion.error is not None and not completion.text:
        return Reply("", None, completion.usage, format_ok=False, error=completion.error)
    parsed = parse(prompt, completion.text)
    return Reply(
        completion.text,
        parsed.answer,
        completion.usage,
        format_ok=parsed.answer is not None,
        confidence=completion.confidence if parsed.answer is not None else None,
        error=parsed.why if completion.error is None else completion.error,
    )
