"""The wire format of Anthropic's `/v1/messages`: a request's body, and the completion in a reply."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunepoint.models.abilities import Abilities
from tunepoint.models.chat import Message, Usage
from tunepoint.models.chat_completions import FILTERED, TransientFault, as_object, token_count
from tunepoint.models.endpoints import CUT_OFF, Completion, Request

MAX_REMEMBERED_STARTS = 4_096
"""Starts of prompts that are remembered, to ask for the cache where one comes again."""
REMEMBERED_SECONDS = 300.0
"""How long the provider keeps a start after its last use."""
REASONING_EFFORT = "reasoning_effort"
"""OpenAI's name, which stands in `output_config` here, as `effort`."""
TOO_LONG = "the prompt is longer than the model's context"


class SeenStarts:
    """Remembers how prompts began: the cache is asked for where a start comes again while it would be kept.

    Writing into the cache costs more than not using it, so a start that every input changes, such as one
    with retrieved examples, or that comes once an hour, must not be written.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[int, float] = OrderedDict()

    def cached_messages(self, messages: Sequence[Message]) -> int:
        """Return how many of the first messages to cache: the longest start seen lately, 0 for none."""
        known = 0
        for size in range(1, len(messages)):
            if self._remember(hash(tuple(messages[:size]))):
                known = size
        return known

    def _remember(self, start: int) -> bool:
        now = self._clock()
        seen = now - self._seen.get(start, -math.inf) < REMEMBERED_SECONDS
        self._seen[start] = now
        self._seen.move_to_end(start)
        if len(self._seen) > MAX_REMEMBERED_STARTS:
            self._seen.popitem(last=False)
        return seen


def message_body(model: str, request: Request, abilities: Abilities, cached: int) -> dict[str, Any]:
    """Return the JSON of a call.

    Args:
        model: as the provider calls it.
        request: what to complete.
        abilities: of the model; what it refused is left out.
        cached: number of the first messages up to which the prompt is cached; 0 for none.

    """
    blocks: list[tuple[str, dict[str, Any]]] = [
        (message.role, {"type": "text", "text": message.content}) for message in request.messages
    ]
    if cached:
        blocks[cached - 1][1]["cache_control"] = {"type": "ephemeral"}
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_output_tokens,
        "messages": [{"role": role, "content": [block]} for role, block in blocks if role != "system"],
    }
    system = [block for role, block in blocks if role == "system"]
    if system:
        body["system"] = system
    if abilities.temperature:
        body["temperature"] = request.temperature
    if abilities.schema and request.schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": dict(request.schema)}}
    own = {name: value for name, value in request.parameters if name not in abilities.refused}
    effort = own.pop(REASONING_EFFORT, None)
    if effort is not None:
        body["output_config"] = {**body.get("output_config", {}), "effort": effort}
    thinking = own.get("thinking")
    if thinking is not None:
        body.pop("temperature", None)  # the provider takes none beside thoughts
        budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
        body["max_tokens"] += budget if isinstance(budget, int) else 0  # they count towards the limit
    return {**body, **own}


def read_message(name: str, reply: Any, seconds: float | None) -> Completion:
    """Return the completion in a reply's JSON.

    Args:
        name: of the model, for the usage.
        reply: the JSON, or its text.
        seconds: that the call took; None if it went by batch.

    Raises:
        TransientFault: the reply is an error in an HTTP 200.
        ValueError: the reply is no message.

    """
    reply = as_object(reply)
    if reply.get("type") == "error":
        raise TransientFault(f"error in a reply: {reply.get('error')}"[:200])
    content = reply.get("content")
    if not isinstance(content, list):
        raise ValueError("it has no content")
    usage = read_message_usage(name, reply.get("usage"), seconds)
    text = "".join(
        str(block.get("text") or "")
        for block in content
        if isinstance(block, Mapping) and block.get("type") == "text"
    )
    reason = reply.get("stop_reason")
    if reason == "refusal":
        return Completion("", usage, error=FILTERED)
    if reason == "model_context_window_exceeded" and not text:
        return Completion("", usage, error=TOO_LONG)
    if reason == "max_tokens" and not text:
        return Completion("", usage, error=CUT_OFF)
    return Completion(text, usage)


def read_message_usage(name: str, counts: Any, seconds: float | None) -> Usage:
    """Return the usage in a reply: its `input_tokens` are those that were neither read nor written.

    Raises:
        ValueError: the reply does not count its tokens.

    """
    counts = counts if isinstance(counts, Mapping) else {}
    fresh, output = token_count(counts.get("input_tokens")), token_count(counts.get("output_tokens"))
    if fresh is None or output is None:
        raise ValueError("it does not count its tokens")
    read = token_count(counts.get("cache_read_input_tokens")) or 0
    written = token_count(counts.get("cache_creation_input_tokens")) or 0
    details = counts.get("output_tokens_details")
    thinking = token_count(details.get("thinking_tokens")) if isinstance(details, Mapping) else None
    return Usage(
        name,
        input_tokens=fresh + read + written,
        cached_tokens=read,
        written_tokens=written,
        output_tokens=output,
        reasoning_tokens=min(thinking or 0, output),
        seconds=seconds,
    )
