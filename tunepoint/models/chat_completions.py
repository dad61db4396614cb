"""The wire format of `/v1/chat/completions`: a request's body, and the completion in a reply."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunepoint.models.abilities import Abilities, refusal_words
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import CUT_OFF, Completion, Request
from tunepoint.models.label_confidence import MAX_ALTERNATIVES, label_probability

MAX_QUOTED_CHARACTERS = 200
"""Characters of a refusal that the error quotes."""
CHARACTERS_PER_TOKEN = 4
"""Of English text; what is charged where a server counts no tokens."""
MAX_TOKENS = 10**9
"""A count of tokens above this is none."""
FILTERED = "refused by the content filter"
UNCOUNTED = "replies without token counts"
"""Entry of a model's failures: how many replies had their tokens estimated."""


class TransientFault(ValueError):
    """A reply with HTTP 200 that says that something broke, and a later attempt may not."""


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
    if abilities.logprobs and request.labels:
        body |= {"logprobs": True, "top_logprobs": MAX_ALTERNATIVES}
    if abilities.schema and request.schema is not None:
        schema = {"name": "answer", "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    body |= {name: value for name, value in request.parameters if name not in abilities.refused}
    return body


def read_completion(
    name: str, reply: Any, seconds: float | None, request: Request | None = None
) -> Completion:
    """Return the completion in a reply's JSON.

    Args:
        name: of the model, for the usage.
        reply: the JSON, or its text, whatever it is.
        seconds: that the call took; None if it went by batch.
        request: that was sent; its tokens are estimated where the server counts none.

    Raises:
        TransientFault: it says that the model could not be reached.
        ValueError: the reply is not a chat completion.

    """
    content = as_object(reply)
    choice = _first_choice(content)
    given = choice.get("message")
    message: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    reason = choice.get("finish_reason")
    fault = refusal_words(choice.get("error"))
    if reason == "error" or fault:
        raise TransientFault(f"error in a reply: {fault or 'no reason given'}"[:MAX_QUOTED_CHARACTERS])
    text = text_of(message.get("content"))
    usage = read_usage(name, content.get("usage"), seconds, _written(request), generated_text(message))
    refusal = text_of(message.get("refusal"))
    if refusal:
        return Completion("", usage, error=f"refused: {refusal[:MAX_QUOTED_CHARACTERS]}")
    if reason == "content_filter":
        return Completion("", usage, error=FILTERED)
    if "message" not in choice and "text" not in choice:
        raise ValueError("its choice has no message")
    if reason == "length" and not text:
        return Completion("", usage, error=CUT_OFF)
    text = text or text_of(choice.get("text"))
    return Completion(text, usage, confidence=_confidence(choice.get("logprobs"), request))


def as_object(reply: Any) -> Mapping[str, Any]:
    """Return a reply as an object; some servers send JSON as plain text."""
    if isinstance(reply, (str, bytes)):
        try:
            reply = json.loads(reply)
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON") from None
    if not isinstance(reply, Mapping):
        raise ValueError("it is not a JSON object")
    return reply


def _first_choice(content: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = content.get("choices")
    if isinstance(choices, Sequence) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    words = refusal_words(content.get("error"))
    if words:
        raise TransientFault(f"error in a reply: {words}"[:MAX_QUOTED_CHARACTERS])
    raise ValueError("no choices in it")


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, a list of parts, one part, or nothing.

    Parts that think, call tools or show images are left out.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        if content.get("type", "text") not in ("text", "output_text"):
            return ""
        return text_of(content.get("text"))
    if isinstance(content, (list, tuple)):
        return "".join(text_of(part) for part in content)
    return ""


def generated_text(message: Any) -> str:
    """Return all that a model generated in a message or a delta: text, thoughts, calls of tools.

    By its length tokens are estimated where a server counts none; every part of it is billed.
    """
    if not isinstance(message, Mapping):
        return ""
    texts = [text_of(message.get(key)) for key in ("content", "reasoning_content", "reasoning", "refusal")]
    calls = message.get("tool_calls")
    functions = [message.get("function_call")]
    functions += (
        [call.get("function") for call in calls if isinstance(call, Mapping)]
        if isinstance(calls, list)
        else []
    )
    for function in functions:
        if isinstance(function, Mapping):
            texts += [text_of(function.get(key)) for key in ("name", "arguments")]
    return "".join(texts)


def _written(request: Request | None) -> str:
    """Return all that a request says, for the estimate of its tokens."""
    return "" if request is None else "\n".join(message.content for message in request.messages)


def read_usage(name: str, counts: Any, seconds: float | None, asked: str = "", answered: str = "") -> Usage:
    """Return the usage in a reply, or an estimate by the length of the texts where it counts nothing.

    Args:
        name: of the model.
        counts: the reply's `usage`, whatever it is.
        seconds: that the call took.
        asked: text of the request.
        answered: text of the reply, thoughts included.

    """
    counts = counts if isinstance(counts, Mapping) else {}
    prompt, output = token_count(counts.get("prompt_tokens")), token_count(counts.get("completion_tokens"))
    total = token_count(counts.get("total_tokens"))
    details = counts.get("completion_tokens_details")
    reasoning = token_count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else None
    cached = _cached(counts)
    estimated = False
    if prompt is None and total is not None and output is not None and total >= output:
        prompt = total - output
    elif prompt is None:
        prompt, estimated = _estimate(asked), True
    if output is None and total is not None and total >= prompt and (total > prompt or not answered):
        output = total - prompt
    elif output is None:
        output, estimated = _estimate(answered), True
    # Gemini and xAI count thoughts in the total only.
    if total is not None and total - prompt > output:
        output = total - prompt
    elif reasoning is not None and reasoning > output:
        output += reasoning
    return Usage(
        name,
        input_tokens=prompt,
        cached_tokens=min(cached or 0, prompt),
        output_tokens=output,
        reasoning_tokens=min(reasoning or 0, output),
        seconds=seconds,
        estimated=estimated,
    )


def _cached(counts: Mapping[str, Any]) -> int | None:
    details = counts.get("prompt_tokens_details")
    return token_count(details.get("cached_tokens")) if isinstance(details, Mapping) else None


def token_count(value: Any) -> int | None:
    """Return a number of tokens, rounded up; None if it is none: missing, negative, endless."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and value is not True else math.nan
    except (ValueError, OverflowError):
        return None
    return math.ceil(number) if 0 <= number <= MAX_TOKENS else None


def _estimate(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _confidence(logprobs: Any, request: Request | None) -> float | None:
    """Return the probability of the label in a reply among the labels that were allowed."""
    if request is None or not request.labels or not isinstance(logprobs, Mapping):
        return None
    return label_probability(logprobs.get("content"), request.labels)
