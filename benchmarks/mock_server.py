"""A mock of a chat model's server, in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""The body of a request -> the completion."""


def completion(text: str, input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """Return a chat completion of one choice."""
    message = {"role": "assistant", "content": text}
    total = input_tokens + output_tokens
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": total},
    }


def start_server(answer: Answer) -> tuple[multiprocessing.process.BaseProcess, int]:
    """Start the server; return its process, which ends with this one, and its port.

    Args:
        answer: can be pickled: a function of a module, or a partial of one.

    """
    inbox, out = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(answer, out), daemon=True)
    server.start()
    return server, inbox.recv()


def _serve(answer: Answer, out: Connection) -> None:
    from aiohttp import web

    async def complete(request: web.Request) -> web.Response:
        return web.json_response(await answer(await request.json()))

    async def listen() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        out.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(listen())
