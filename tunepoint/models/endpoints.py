"""The transport of a chat model: requests go out, completions come back, each as it arrives.

An endpoint knows nothing of tasks. `TextModel` renders prompts into requests for it and parses
its answers; recordings and spending caps wrap one endpoint in another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

from tunepoint.models.chat import ChatModel, Message, Prompt, Reply, Usage
from tunepoint.models.label_codes import codes_of
from tunepoint.models.parsing import parse
from tunepoint.models.prompt_caches import PromptCache
from tunepoint.models.templates import LABEL_KEY, render

SHORT_ANSWER_TOKENS = 512
"""Output tokens of a label or a number; hosted models may think before they answer."""
LONG_ANSWER_TOKENS = 2_048
"""Output tokens of an answer with reasoning, of JSON and of free text."""
CUT_OFF = "cut off before an answer: all output tokens were spent"
"""Error of a completion that ended before it held an answer."""


@dataclass(frozen=True)
class Request:
    """One call, as it goes over the wire."""

    messages: tuple[Message, ...]
    max_output_tokens: int = SHORT_ANSWER_TOKENS
    temperature: float = 0.0
    sample: int = 0
    """Distinguishes samples of the same request; it is the seed of the call."""
    schema: Mapping[str, Any] | None = None
    """JSON schema that the completion must follow, if the endpoint can enforce one."""
    choices: tuple[str, ...] = ()
    """The only texts allowed, if the endpoint can enforce them."""
    parameters: tuple[tuple[str, Any], ...] = ()
    """Further keys of the call's body, as the task gives them for the model, with their values."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The texts that an answer is confined to, alone or as the only value of its schema."""
        properties = (self.schema or {}).get("properties")
        only = properties.get(LABEL_KEY) if isinstance(properties, Mapping) and len(properties) == 1 else None
        texts = only.get("enum", ()) if isinstance(only, Mapping) else ()
        # a schema of the user's own may allow anything there
        in_schema = tuple(texts) if all(isinstance(text, str) for text in texts) else ()
        return self.choices or in_schema

    def key(self, model: str) -> str:
        """Return the SHA-256 of the model and the whole request: the same call has the same key."""
        parts = asdict(self)
        if not self.parameters:  # calls that were recorded before there were any keep their keys
            del parts["parameters"]
        content = json.dumps([model, parts], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Completion:
    """The answer to a request."""

    text: str
    usage: Usage
    confidence: float | None = None
    """Probability of the text by the model's own log-probabilities."""
    error: str | None = None
    """Why the text is not an answer: refused, cut off, too long an input, no reply."""
    lasting: bool = True
    """False for transient faults, which a later call may not have."""


Done = Callable[[int, Completion], None]
"""Called with a request's position as its completion arrives, from any thread."""
Allow = Callable[[Request], bool]
"""Called before a request is sent. False makes it wait for those under way; raising stops
every request that was not sent yet."""


class Endpoint(Protocol):
    """Anything that completes requests.

    A request that fails is a completion with `error`. Only a fault that every request would have
    raises, and not before all completions that had arrived were handed to `done`.
    """

    name: str

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests; return when each was handed to `done`."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """An endpoint that may hold earlier answers of its own."""

    def forget(self, keys: Collection[str]) -> None:
        """Give no earlier answer to the requests with these keys."""
        ...


def allow_all(request: Request) -> bool:
    """Allow every request."""
    return True


@dataclass(frozen=True)
class CallSettings:
    """How a model is asked, as a task gives it: part of what is measured."""

    temperature: float | None = None
    """In place of 0; samples that vote have one of their own."""
    max_output_tokens: int | None = None
    """In place of what answers of a kind usually take."""
    seed: int = 0
    """Of the first sample."""
    parameters: tuple[tuple[str, Any], ...] = ()
    """Further keys of the body, such as `top_p` and `reasoning_effort`."""

    def apply(self, request: Request) -> Request:
        """Return a request with these settings."""
        changes: dict[str, Any] = {"parameters": self.parameters, "sample": request.sample + self.seed}
        if self.temperature is not None and request.temperature == 0:
            changes["temperature"] = self.temperature
        if self.max_output_tokens is not None:
            changes["max_output_tokens"] = self.max_output_tokens
        return replace(request, **changes)


AS_USUAL = CallSettings()


class TextModel:
    """A chat model over an endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        remote: bool = True,
        cache: PromptCache | None = None,
        settings: CallSettings = AS_USUAL,
    ) -> None:
        """Prepare to ask.

        Args:
            endpoint: completes the requests.
            remote: whether it runs on another machine.
            cache: how its provider caches prompts; None if nothing is known.
            settings: how the model is asked.

        """
        self.endpoint = endpoint
        self.remote = remote
        self.cache = cache
        self.settings = settings
        self.name = endpoint.name

    def with_parameter(self, name: str, value: Any) -> TextModel:
        """Return the same model, asked with one more key in the body of a call."""
        parameters = {**dict(self.settings.parameters), name: value}
        settings = replace(self.settings, parameters=tuple(sorted(parameters.items())))
        return TextModel(self.endpoint, remote=self.remote, cache=self.cache, settings=settings)

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return a reply to each prompt, in their order."""
        completions: dict[int, Completion] = {}
        requests = [self.settings.apply(request_of(prompt)) for prompt in prompts]
        self.endpoint.complete(requests, completions.__setitem__, allow_all)
        replies = [reply_of(prompt, completions[i]) for i, prompt in enumerate(prompts)]
        return replies if self.cache is None else _with_cacheable(replies, requests, self.cache)


def _with_cacheable(replies: Sequence[Reply], requests: Sequence[Request], cache: PromptCache) -> list[Reply]:
    """Count the tokens that a provider can cache, by their share of the characters.

    Nothing is counted where all requests are the same: it takes two inputs to see what is fixed.
    """
    # sorted, what the first and the last share, all between them share too
    prompts = sorted(tuple(message.content for message in request.messages) for request in requests)
    if not prompts or prompts[0] == prompts[-1]:
        return list(replies)
    shared = _shared_characters(prompts[0], prompts[-1], whole_messages=cache.asked_for)
    counted = []
    for reply, request in zip(replies, requests, strict=True):
        text = "".join(message.content for message in request.messages)
        tokens = cache.cacheable(reply.usage.input_tokens * shared / len(text))
        counted.append(replace(reply, usage=replace(reply.usage, cacheable_tokens=tokens)))
    return counted


def _shared_characters(first: Sequence[str], last: Sequence[str], *, whole_messages: bool) -> int:
    """Return the length of what two prompts begin with; a cache that is asked for holds whole messages."""
    shared = 0
    for text, rival in zip(first, last, strict=False):
        if text != rival:
            pairs = enumerate(zip(text, rival, strict=False))
            within = next((i for i, (a, b) in pairs if a != b), min(len(text), len(rival)))
            return shared if whole_messages else shared + within
        shared += len(text)
    return shared


class Resampled:
    """A chat model whose answers are another decode, not the recorded one."""

    def __init__(self, model: ChatModel, decode: int) -> None:
        self.model = model
        self.decode = decode
        self.remote = model.remote
        self.name = model.name

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return a reply to each prompt, in their order."""
        offset = self.decode * MAX_SAMPLES
        return self.model.answer([replace(prompt, sample=prompt.sample + offset) for prompt in prompts])


MAX_SAMPLES = 1_000
"""Samples of one request per decode, so that the samples of two decodes never meet."""


def request_of(prompt: Prompt) -> Request:
    """Render a prompt as one call."""
    # nobody knows whether a prompt that somebody wrote lets the model think first
    long = prompt.reasoning or prompt.kind in ("text", "json") or bool(prompt.written)
    return Request(
        render(prompt),
        prompt.max_output_tokens or (LONG_ANSWER_TOKENS if long else SHORT_ANSWER_TOKENS),
        prompt.temperature,
        prompt.sample,
        # A schema or a list of choices would leave a model no room to think first, and in production there
        # is none around a prompt that somebody wrote.
        None if prompt.reasoning or prompt.written else _schema(prompt),
        _choices(prompt),
    )


def _choices(prompt: Prompt) -> tuple[str, ...]:
    """Return the only texts allowed; asked for inside JSON, the schema confines a label."""
    if prompt.reasoning or prompt.written or prompt.kind != "label" or prompt.form == "json":
        return ()
    return codes_of(prompt.labels) if prompt.form == "letter" else prompt.labels


def _schema(prompt: Prompt) -> Mapping[str, Any] | None:
    """Return the JSON schema of the answer; labels get one, for few servers enforce a plain enum."""
    if prompt.kind == "json":
        return prompt.schema
    if prompt.kind == "label" and prompt.form in ("either", "json"):
        answer = {"type": "string", "enum": list(prompt.labels)}
        return {
            "type": "object",
            "properties": {LABEL_KEY: answer},
            "required": [LABEL_KEY],
            "additionalProperties": False,
        }
    return None


def reply_of(prompt: Prompt, completion: Completion) -> Reply:
    """Parse the answer in a completion."""
    if completion.error is not None and not completion.text:
        return Reply("", None, completion.usage, format_ok=False, error=completion.error)
    parsed = parse(prompt, completion.text)
    return Reply(
        completion.text,
        parsed.answer,
        completion.usage,
        format_ok=parsed.answer is not None,
        confidence=completion.confidence if parsed.answer is not None else None,
        error=parsed.error if completion.error is None else completion.error,
    )
