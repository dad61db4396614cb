"""A gateway in a thread, and servers behind it that stream, break off, hang or refuse."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from aiohttp import web

from tunepoint.serve.application import Application
from tunepoint.serve.connections import Limits
from tunepoint.serve.gateway import Gateway
from tunepoint.serve.process import server_config
from tunepoint.serve.settings import ServeSettings

WORDS = ("bill", "ing", ", per", "haps")


@dataclass
class Behind:
    """What a server behind the gateway does, by the name of the model that is asked."""

    faults: dict[str, str] = field(default_factory=dict)
    """Model -> what goes wrong with it."""
    replies: dict[str, Any] = field(default_factory=dict)
    """Model -> what it answers in place of a completion."""
    streams: dict[str, list[bytes]] = field(default_factory=dict)
    """Model -> the pieces of its stream, which then ends."""
    starts: dict[str, bytes] = field(default_factory=dict)
    """Model -> what its stream begins with before the connection is lost."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    latency: float = 0.0
    url: str = ""
    cancelled: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls.append(body)
        self.keys.add(request.headers.get("Authorization", ""))
        fault = self.faults.get(body["model"], "")
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            return await self.respond(request, body, fault)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def respond(self, request: web.Request, body: dict[str, Any], fault: str) -> web.StreamResponse:
        if body["model"] in self.replies and (fault == "whole" or not body.get("stream")):
            return web.json_response(self.replies[body["model"]])
        if fault in ("refuses options", "refuses silently") and "stream_options" in body:
            place = ["body", "stream_options", "include_usage"]
            detail = [{"type": "extra_forbidden", "loc": place, "msg": "Extra inputs are not permitted"}]
            silent = web.Response(status=400, text="<html>Bad Request</html>")
            return web.json_response({"detail": detail}, status=422) if "options" in fault else silent
        if fault == "echoes":
            words = f"tools: unknown; the request was {dict(request.headers)}"
            return web.json_response({"error": {"message": words, "code": words}}, status=400)
        if fault == "slow":
            await asyncio.sleep(30)
        if fault == "429":
            return web.json_response(
                {"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "7"}
            )
        if fault == "400":
            error = {"message": "tools[0] is wrong", "code": "bad_tool", "param": "tools"}
            return web.json_response({"error": error}, status=400)
        if fault == "401":
            return web.json_response({"error": {"message": f"bad key {self.keys}"}}, status=401)
        if fault == "500":
            return web.json_response({"error": {"message": "broken"}}, status=500)
        if fault == "redirect":
            raise web.HTTPFound("http://169.254.169.254/latest")
        if fault == "text":
            return web.Response(text="<html>it works</html>")
        if fault == "empty":
            return web.json_response({"choices": []})
        text = f"{body['model']} says {''.join(WORDS)}"
        usage = {
            "prompt_tokens": 40,
            "completion_tokens": 6,
            "total_tokens": 46,
            "prompt_tokens_details": {"cached_tokens": 10},
        }
        if body.get("stream") and fault != "whole":
            return await self.streamed(request, body, fault, usage)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if body.get("tools"):
            call = {"id": "c1", "type": "function", "function": {"name": "route", "arguments": '{"to": "x"}'}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{body['model']}-2026",
        }
        return web.json_response({**head, "choices": [choice], "usage": usage})

    async def streamed(
        self, request: web.Request, body: dict[str, Any], fault: str, usage: dict[str, Any]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if body["model"] in self.streams:
            for piece in self.streams[body["model"]]:
                await response.write(piece)
            if fault == "lingers":
                await asyncio.sleep(30)
            return response
        if body["model"] in self.starts:
            await response.write(self.starts[body["model"]])
            assert request.transport is not None
            request.transport.close()
            return response
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": f"{body['model']}-2026",
        }

        async def send(content: dict[str, Any]) -> None:
            event = f"data: {json.dumps({**head, **content}, separators=(',', ':'))}\n\n".encode()
            for start in range(0, len(event), 37):  # events arrive in pieces
                await response.write(event[start : start + 37])

        for number, word in enumerate((f"{body['model']} says ", *WORDS)):
            if fault == "cut" and number == 2:
                assert request.transport is not None
                request.transport.abort()
                return response
            if fault == "stall" and number == 2:
                await asyncio.sleep(30)
            if fault == "drip":
                await asyncio.sleep(0.2)
            delta = {"role": "assistant", "content": word} if number == 0 else {"content": word}
            await send({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        if fault != "endless":
            await send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await send({"choices": [], "usage": usage})
        if fault != "endless":
            await response.write(b"data: [DONE]\n\n")
        return response


@contextmanager
def behind(**more: Any) -> Iterator[Behind]:
    """A server behind the gateway, in a thread."""
    server = Behind(**more)
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", server.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        server.url = f"http://127.0.0.1:{port}/v1"
        started.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@dataclass
class Running:
    """A gateway that serves."""

    gateway: Gateway
    application: Application
    url: str
    loop: asyncio.AbstractEventLoop

    def call(self, what: Any) -> Any:
        """Run a coroutine in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(20)


@contextmanager
def running(load: Callable[[], ServeSettings], limits: Limits | None = None) -> Iterator[Running]:
    """A gateway in a thread; closed as SIGTERM closes it."""
    gateway = Gateway(load)
    application = Application(gateway)
    server = uvicorn.Server(server_config(application, limits or Limits(), grace=2))
    ready, loops, fault = threading.Event(), [], []  # type: ignore[var-annotated]

    async def main() -> None:
        async with gateway.running():
            loops.append(asyncio.get_running_loop())
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            ready.set()
            await serving

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            fault.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(120)
    if fault:
        thread.join()
        raise fault[0]
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(gateway, application, f"http://127.0.0.1:{port}", loops[0])
    finally:
        server.should_exit = True
        thread.join()
        if fault:
            raise fault[0]


def settings(folder: Path, url: str, arms: Mapping[str, str] | None = None, **more: Any) -> ServeSettings:
    """One task, `triage`, whose arms are models of one server: name -> model."""
    server = more.pop("server", {})
    price = {"input": 1.0, "cached_input": 0.5, "output": 2.0}
    entries = [
        {"name": name, "model": f"{url}#{model}", "price": price, "timeout_seconds": 5.0}
        for name, model in (arms or {"main": "main", "spare": "spare"}).items()
    ]
    content = {"server": {"store": str(folder / "capture.sqlite"), **server}}
    task = {"name": "triage", "arms": entries, **more}
    return ServeSettings.parse({**content, "tasks": [task]}, where="test", folder=folder)


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
    return result
