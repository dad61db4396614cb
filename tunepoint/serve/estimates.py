"""Estimates of what a call will cost, before it is made: a budget reserves them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tunepoint.capture.records import nanodollars
from tunepoint.models.chat import Usage
from tunepoint.serve.backends import CascadeArm, ProxyArm, RemoteArm, ServedArm
from tunepoint.serve.protocol import ChatRequest

BYTES_PER_TOKEN = 3
"""Of a request. English text has about four, so this is more often too dear than too cheap."""
TOKENS_PER_ATTACHMENT = 1_500
"""Of an image, a sound or a file in a message, whose bytes say nothing of its tokens."""
DEFAULT_OUTPUT_TOKENS = 4_096
"""Of an answer whose length the request does not limit."""
STUDY_PROMPT_TOKENS = 4_096
"""That an arm of a study adds to the input: instruction, label descriptions, examples."""
PROMPT_KEYS = ("tools", "functions", "response_format")
"""Keys of a request, besides its messages, that the model reads."""
LIMIT_KEYS = ("max_completion_tokens", "max_tokens")
MAX_TOKENS = 10**9
"""More than any request has: larger numbers would overflow the price."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call may cost."""

    nanodollars: int
    guessed: bool
    """Whether the request does not limit its answer."""

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.nanodollars + other.nanodollars, self.guessed or other.guessed)


FREE = Estimate(0, guessed=False)
"""An arm of this machine, or one without a known price."""


def estimate_cost(arm: ServedArm, request: ChatRequest) -> Estimate:
    """Estimate what an arm's answer will cost; free where no price is known."""
    if isinstance(arm, ProxyArm):
        output_tokens, guessed = _output_tokens(request.body)
        cost = arm.pricer.nanodollars(_input_tokens(request.body), 0, output_tokens)
        return FREE if cost is None else Estimate(cost, guessed)
    if isinstance(arm, CascadeArm):
        return estimate_cost(arm.cheap, request) + estimate_cost(arm.strong, request)
    if isinstance(arm, RemoteArm):
        return _study_cost(arm, request)
    return FREE


def _study_cost(arm: RemoteArm, request: ChatRequest) -> Estimate:
    """The most that one call costs among the arm's models: it may call several in turn."""
    input_tokens = STUDY_PROMPT_TOKENS + _tokens(request.input)
    costs = [
        price.dollars(Usage(model, input_tokens, 0, DEFAULT_OUTPUT_TOKENS))
        for model, price in arm.prices.items()
        if model == arm.model or arm.model not in arm.prices
    ]
    return Estimate(nanodollars(max(costs)), guessed=True) if costs else FREE


def _output_tokens(body: Mapping[str, Any]) -> tuple[int, bool]:
    """Tokens of the answers to a request, and whether they are a guess."""
    limits = [limit for key in LIMIT_KEYS if (limit := _count(body.get(key)))]
    tokens = max(limits, default=DEFAULT_OUTPUT_TOKENS)
    return min(tokens * _alternatives(body.get("n")), MAX_TOKENS), not limits


def _count(value: Any) -> int:
    """A positive whole number; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _alternatives(value: Any) -> int:
    """How many answers a request asks for; some servers take the number as a text or a fraction, too."""
    try:
        return max(1, math.ceil(min(float(value), MAX_TOKENS)))
    except (TypeError, ValueError, OverflowError):
        return 1


def _input_tokens(body: Mapping[str, Any]) -> int:
    others = sum(_tokens(body[key]) for key in PROMPT_KEYS if key in body)
    return others + sum(_message_tokens(message) for message in body["messages"])


def _message_tokens(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    others = {key: value for key, value in message.items() if key != "content"}
    parts = content if isinstance(content, list) else [content]
    return _tokens(others) + sum(map(_part_tokens, parts))


def _part_tokens(part: Any) -> int:
    """Tokens of a part of a message: its text, or what an attachment usually has."""
    text = part.get("text") if isinstance(part, dict) else part
    return _tokens(text) if isinstance(text, str) or not isinstance(part, dict) else TOKENS_PER_ATTACHMENT


def _tokens(content: Any) -> int:
    size = len(content.encode("utf-8", "replace")) if isinstance(content, str) else len(orjson.dumps(content))
    return 1 + size // BYTES_PER_TOKEN
