"""A small server of Anthropic's `/v1/messages` with its caches and quirks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from servers import on_a_port

KEY = "sk-ant-a-secret"
MINIMUM_TOKENS = 64
"""Shortest start that it caches; real models have 1,024 or more."""


@dataclass
class FakeAnthropic:
    """What the server answers, and what it saw. A word counts as a token."""

    answer: Callable[[str], str]
    """Text of the last message -> the answer."""
    models: tuple[str, ...] = ("claude-test-1",)
    schema: bool = True
    temperature: bool = True
    lifetime: float = 300.0
    """Seconds for which a start is cached after its last use."""
    faults: dict[int, str] = field(default_factory=dict)
    """Number of the call -> what goes wrong with it."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _cached: dict[str, float] = field(default_factory=dict)

    async def messages(self, request: web.Request) -> web.Response:
        body = await request.json()
        number = len(self.calls)
        self.calls.append(body)
        refused = self._refusal(request, body) or FAULTS.get(self.faults.get(number, ""))
        if refused is not None:
            return error(*refused)
        return web.json_response(self.reply(body, self.faults.get(number, "end_turn")))

    def reply(self, body: dict[str, Any], reason: str = "end_turn") -> dict[str, Any]:
        """The message that answers a call."""
        text = self.answer(body["messages"][-1]["content"][0]["text"])
        if "output_config" in body:
            properties = body["output_config"]["format"]["schema"]["properties"]
            text = json.dumps({next(iter(properties)): text})
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if "thinking" in body:
            content.insert(0, {"type": "thinking", "thinking": "hm", "signature": "x"})
        reply = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
        usage = {**self._usage(body), "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2}}
        if reason in ("refusal", "max_tokens"):
            content = []
        return {**reply, "content": content, "stop_reason": reason, "usage": usage}

    def _refusal(self, request: web.Request, body: dict[str, Any]) -> tuple[int, str, str] | None:
        keys = request.headers.get("x-api-key"), request.headers.get("Authorization")
        if KEY not in keys and f"Bearer {KEY}" not in keys:  # older clients send the one, newer the other
            return 401, "authentication_error", "invalid x-api-key"
        if not request.headers.get("anthropic-version"):
            return 400, "invalid_request_error", "anthropic-version: header is required"
        if body["model"] not in self.models:
            return 404, "not_found_error", f"model: {body['model']}"
        unknown = set(body) - {"model", "max_tokens", "messages", "system", "temperature", "output_config"}
        if unknown:
            return 400, "invalid_request_error", f"{min(unknown)}: Extra inputs are not permitted"
        if "output_config" in body and not self.schema:
            return 400, "invalid_request_error", "output_config.format: Extra inputs are not permitted"
        if "temperature" in body and not self.temperature:
            return 400, "invalid_request_error", "`temperature` is deprecated for this model."
        if any(message["role"] == "system" for message in body["messages"]):
            return 400, "invalid_request_error", 'messages: Unexpected role "system".'
        return None

    def _usage(self, body: dict[str, Any]) -> dict[str, int]:
        """Tokens by how they were billed; a start is found only after the marker that wrote it."""
        blocks = [*body.get("system", ()), *(m["content"][0] for m in body["messages"])]
        marks = [i for i, block in enumerate(blocks) if "cache_control" in block]
        total = sum(len(block["text"].split()) for block in blocks)
        usage = {"input_tokens": total, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
        if marks:
            start = blocks[: marks[-1] + 1]
            size = sum(len(block["text"].split()) for block in start)
            key, now = json.dumps([block["text"] for block in start]), time.monotonic()
            if size >= MINIMUM_TOKENS:
                is_cached = now - self._cached.get(key, -1e9) < self.lifetime
                self._cached[key] = now
                usage["cache_read_input_tokens" if is_cached else "cache_creation_input_tokens"] = size
                usage["input_tokens"] = total - size
        return usage

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"type": "model", "id": name} for name in self.models]})


FAULTS = {
    "429": (429, "rate_limit_error", "slow down"),
    "529": (529, "overloaded_error", "Overloaded"),
    "500": (500, "api_error", "Internal server error"),
    "no credit": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API.",
    ),
    "too long": (400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
}


def error(status: int, kind: str, message: str) -> web.Response:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return web.json_response(body, status=status, headers={"retry-after": "0.05"} if status == 429 else {})


@contextmanager
def serving_anthropic(fake: FakeAnthropic) -> Iterator[FakeAnthropic]:
    """Run the server in a thread; its address is `fake.url`."""
    app = web.Application()
    app.router.add_post("/v1/messages", fake.messages)
    app.router.add_get("/v1/models", fake.list)
    with on_a_port(app) as fake.url:
        yield fake
