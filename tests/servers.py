"""A small OpenAI-compatible server with the faults that real ones have."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[list[dict[str, str]], dict[str, Any]], str]
KEY = "sk-a-secret-that-nobody-may-see"


@dataclass
class Fake:
    """What the server answers, and what it saw."""

    answer: Answer
    latency: float = 0.0
    models: tuple[str, ...] = ("tiny", "tiny-large")
    faults: dict[int, str] = field(default_factory=dict)
    """Number of the call -> what goes wrong with it."""
    always: str | None = None
    schema: bool = True
    logprobs: bool = True
    key: str | None = None
    refusing: Callable[[dict[str, Any]], str | None] = lambda body: None
    """Body of a call -> why it is refused; None if it is not."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    _active: int = 0
    url: str = ""

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = len(self.calls)
        self.calls.append(body)
        self._active += 1
        self.most_at_once = max(self.most_at_once, self._active)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            return await self._respond(request, body, self.always or self.faults.get(number, ""))
        finally:
            self._active -= 1

    async def _respond(self, request: web.Request, body: dict[str, Any], fault: str) -> web.StreamResponse:
        self.seen[fault] += 1
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return refusal(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
        if body["model"] not in self.models:
            return refusal(404, f"The model {body['model']} does not exist")
        if "response_format" in body and not self.schema:
            return refusal(400, "response_format of type json_schema is not supported by this server")
        if "logprobs" in body and not self.logprobs:
            return refusal(400, "logprobs are not supported")
        words = self.refusing(body)
        if words:
            return refusal(400, words)
        if fault in FAULTS:
            return await FAULTS[fault](request)
        message: dict[str, Any] = {"role": "assistant", "content": self.answer(body["messages"], body)}
        reason = "stop"
        if fault == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that"}
        if fault == "empty":
            message["content"] = ""
        if fault == "length":
            message["content"], reason = "", "length"
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reason}
        if body.get("logprobs"):
            text = message["content"] or ""
            rivals = [{"token": text, "logprob": -0.1}, {"token": text + "?", "logprob": -3.0}]
            choice["logprobs"] = {"content": [{**rivals[0], "bytes": None, "top_logprobs": rivals}]}
        words = sum(len(turn["content"].split()) for turn in body["messages"])
        usage = {
            "prompt_tokens": words,
            "completion_tokens": 2,
            "total_tokens": words + 2,
            "prompt_tokens_details": {"cached_tokens": words // 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        }
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return web.json_response({**reply, "choices": [choice], "usage": usage})

    async def list(self, request: web.Request) -> web.Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return refusal(401, "Incorrect API key provided")
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "us"} for name in self.models]
        return web.json_response({"object": "list", "data": data})


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> web.Response:
    error = {"error": {"message": message, "code": code, "type": "invalid_request_error"}}
    return web.json_response(error, status=status, headers=headers)


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"id": "1", "choi')
    assert request.transport is not None
    request.transport.close()
    return response


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return refusal(500, "too late")


async def respond(response: web.Response) -> web.Response:
    return response


FAULTS: dict[str, Callable[[web.Request], Any]] = {
    "429": lambda _: respond(refusal(429, "slow down", **{"Retry-After": "0.2"})),
    "429 long": lambda _: respond(refusal(429, "slow down", **{"Retry-After": "3600"})),
    "quota": lambda _: respond(refusal(429, "no credit", code="insufficient_quota")),
    "500": lambda _: respond(refusal(500, "oops")),
    "long": lambda _: respond(
        refusal(400, "maximum context length is 10 tokens", code="context_length_exceeded")
    ),
    "bad json": lambda _: respond(web.Response(text='{"id": ', content_type="application/json")),
    "not a completion": lambda _: respond(web.json_response({"hello": 1})),
    "no such thing": lambda _: respond(refusal(400, "no such thing here")),
    "bad key": lambda _: respond(
        web.json_response([{"error": {"message": "API key not valid."}}], status=400)
    ),
    "moderated": lambda _: respond(refusal(403, "Your input was flagged by moderation")),
    "too large": lambda _: respond(refusal(413, "Request too large, please reduce your message")),
    "conflict": lambda _: respond(refusal(409, "try again")),
    "error in 200": lambda _: respond(web.json_response({"error": {"message": "upstream", "code": 502}})),
    "as text": lambda _: respond(
        web.Response(
            text=json.dumps({"choices": [{"message": {"content": "billing"}}]}), content_type="text/plain"
        )
    ),
    "cut": cut,
    "hang": hang,
}


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Run the server in a thread; its address is `fake.url`."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", fake.completions)
    app.router.add_get("/v1/models", fake.list)
    with on_a_port(app) as url:
        fake.url = f"{url}/v1"
        yield fake


@contextmanager
def on_a_port(app: web.Application) -> Iterator[str]:
    """Run an application in a thread, on a free port of this machine; its address."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    runner: list[web.AppRunner] = []

    async def start() -> None:
        runner.append(web.AppRunner(app, access_log=None, shutdown_timeout=0.1))
        await runner[0].setup()
        await web.TCPSite(runner[0], "127.0.0.1", 0).start()
        ready.set()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner[0].cleanup())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{runner[0].addresses[0][1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def echo(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    """The last line of the last message."""
    return messages[-1]["content"].split("\n")[-1]


def as_schema(text: str, body: dict[str, Any]) -> str:
    """The text as the schema of the request wants it."""
    return json.dumps({"answer": text}) if "response_format" in body else text
