"""The wire format of `/v1/chat/completions`: a request's body, and the completion in a reply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import CUT_OFF, Completion, Request

MAX_QUOTED_CHARACTERS = 200
"""Characters of a refusal that the error quotes."""


@dataclass(frozen=True)
class Abilities:
    """Which parameters a server accepts; it is found out by sending them."""

    schema: bool = True
    logprobs: bool = True
    temperature: bool = True
    seed: bool = True
    token_parameter: str = "max_completion_tokens"

    def without(self, message: str) -> Abilities | None:
        """Return the abilities left after a complaint, or None if it is about something else.

        Servers share no error codes for this, so the complaint is searched for the parameter's name.
        """
        words = message.casefold()
        if self.schema and any(word in words for word in ("response_format", "schema", "guided")):
            return replace(self, schema=False)
        if self.logprobs and "logprob" in words:
            return replace(self, logprobs=False)
        # OpenAI's newer models reject max_tokens and name max_completion_tokens; older servers
        # know max_tokens only.
        if self.token_parameter == "max_completion_tokens" and "max_completion_tokens" in words:
            return replace(self, token_parameter="max_tokens")
        if self.token_parameter == "max_tokens" and "max_tokens" in words and "max_completion" in words:
            return replace(self, token_parameter="max_completion_tokens")
        if self.temperature and "temperature" in words:
            return replace(self, temperature=False)
        if self.seed and "seed" in words:
            return replace(self, seed=False)
        return None


def request_body(model: str, request: Request, abilities: Abilities) -> dict[str, Any]:
    """Return the JSON of a call, without the parameters that the server rejects."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        abilities.token_parameter: request.max_output_tokens,
    }
    if abilities.temperature:
        body["temperature"] = request.temperature
    if abilities.seed:
        body["seed"] = request.sample
    if abilities.logprobs and request.choices:
        body["logprobs"] = True
    if abilities.schema and request.schema is not None:
        schema = {"name": "answer", "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_completion(name: str, reply: Any, seconds: float) -> Completion:
    """Return the completion in a reply's JSON.

    Args:
        name: of the model, for the usage.
        reply: the JSON, whatever it is.
        seconds: that the call took.

    Raises:
        ValueError: the reply is not a chat completion.

    """
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        usage = _usage(name, reply.get("usage") or {}, seconds)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("no choices in it") from None
    text, reason = message.get("content") or "", choice.get("finish_reason")
    if message.get("refusal"):
        return Completion("", usage, error=f"refused: {message['refusal'][:MAX_QUOTED_CHARACTERS]}")
    if reason == "content_filter":
        return Completion("", usage, error="refused by the content filter")
    if reason == "length" and not text:
        return Completion("", usage, error=CUT_OFF)
    return Completion(text, usage, confidence=_confidence(choice.get("logprobs") or {}))


def _usage(name: str, counts: Mapping[str, Any], seconds: float) -> Usage:
    prompt = counts.get("prompt_tokens_details") or {}
    output = counts.get("completion_tokens_details") or {}
    return Usage(
        name,
        input_tokens=counts.get("prompt_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens") or 0,
        output_tokens=counts.get("completion_tokens") or 0,
        reasoning_tokens=output.get("reasoning_tokens") or 0,
        seconds=seconds,
    )


def _confidence(logprobs: Mapping[str, Any]) -> float | None:
    """Return the probability of the text: the exponential of its summed log-probabilities."""
    tokens = logprobs.get("content")
    if not tokens:
        return None
    # Rounding on the server can make the sum positive.
    return min(1.0, math.exp(sum(float(token["logprob"]) for token in tokens)))
