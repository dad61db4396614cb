"""The batch APIs of OpenAI and of Anthropic, over the servers that answer single calls."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from anthropic_server import FakeAnthropic
from servers import Fake, cut, on_a_port, refusal

Body = dict[str, Any]


@dataclass
class Batched:
    """What a provider holds of batches, and what goes wrong with them."""

    looks: int = 2
    """Looks until a batch has ended."""
    expire: dict[int, int] = field(default_factory=dict)
    """Number of the batch -> how many of its first requests are answered before it expires."""
    refuse: dict[int, str] = field(default_factory=dict)
    """Number of the batch -> why the whole of it is refused."""
    lose: set[int] = field(default_factory=set)
    """Numbers of the batches whose creation is answered by a cut connection."""
    failing: set[str] = field(default_factory=set)
    """Keys of requests that fail with HTTP 400."""
    gone: set[str] = field(default_factory=set)
    """Ids of batches that are kept no longer."""
    locked: bool = False
    """Whether the key is refused for a while."""
    raw: bool = False
    """Whether answers come with their characters as they are, and not escaped."""
    most_requests: int = 10**9
    """In the queue of the account."""
    batches: list[Body] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    looked: int = 0

    def add(self, rows: list[Body], **more: Any) -> Body:
        number = len(self.batches)
        batch = {"id": f"batch_{number}", "rows": rows, "left": self.looks, **more}
        self.batches.append(batch)
        return batch

    def look(self, name: str) -> tuple[Body, bool]:
        """A batch, and whether it has ended by now."""
        self.looked += 1
        batch = self.batches[int(name.removeprefix("batch_"))]
        batch["left"] -= 1
        return batch, batch["left"] < 0

    def answered(self, batch: Body) -> list[Body]:
        number = int(batch["id"].removeprefix("batch_"))
        return list(batch["rows"][: self.expire.get(number, len(batch["rows"]))])


@dataclass
class OpenAIBatchServer:
    """`/v1/files` and `/v1/batches`."""

    fake: Fake
    held: Batched

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        name = f"file_{len(self.held.files)}"
        self.held.files[name] = form["file"].file.read().decode()  # type: ignore[union-attr]
        return web.json_response({"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "x"})

    async def create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        rows = [json.loads(line) for line in self.held.files[body["input_file_id"]].splitlines()]
        assert len({row["custom_id"] for row in rows}) == len(rows)
        number = len(self.held.batches)
        batch = self.held.add(rows, metadata=body["metadata"], file=body["input_file_id"])
        if number in self.held.lose:
            return await cut(request)
        return web.json_response(self._shown(batch, "validating"))

    def _shown(self, batch: Body, status: str, **more: Any) -> Body:
        shown = {"id": batch["id"], "object": "batch", "endpoint": "/v1/chat/completions", "created_at": 1}
        shown |= {"input_file_id": batch["file"], "completion_window": "24h", "metadata": batch["metadata"]}
        counts = {"total": len(batch["rows"]), "completed": 0, "failed": 0}
        return {**shown, "status": status, "request_counts": counts, **more}

    async def list(self, request: web.Request) -> web.Response:
        data = [self._shown(batch, "in_progress") for batch in reversed(self.held.batches)]
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def look(self, request: web.Request) -> web.Response:
        if self.held.locked:
            return refusal(401, "Incorrect API key provided")
        if request.match_info["name"] in self.held.gone:
            return refusal(404, "No batch found")
        batch, ended = self.held.look(request.match_info["name"])
        number = int(batch["id"].removeprefix("batch_"))
        words = self.held.refuse.get(number)
        if len(batch["rows"]) > self.held.most_requests:
            words = "Enqueued token limit reached for tiny. Limit: 100 enqueued tokens"
        if words is not None:
            errors = {"object": "list", "data": [{"code": "invalid", "message": words}]}
            return web.json_response(self._shown(batch, "failed", errors=errors))
        if not ended:
            return web.json_response(self._shown(batch, "in_progress"))
        status = "expired" if number in self.held.expire else "completed"
        results = {"output_file_id": f"out_{batch['id']}", "error_file_id": f"err_{batch['id']}"}
        return web.json_response(self._shown(batch, status, **results))

    async def content(self, request: web.Request) -> web.Response:
        kind, _, name = request.match_info["name"].partition("_")
        batch = self.held.batches[int(name.removeprefix("batch_"))]
        answered = self.held.answered(batch)
        lines = []
        for row in answered:
            failed = row["custom_id"] in self.held.failing
            if failed == (kind == "err"):
                status, body = 400, {"error": {"message": "no"}}
                if not failed:
                    reply = await self.fake._respond(request, row["body"], "")
                    assert isinstance(reply, web.Response) and isinstance(reply.body, bytes)
                    status, body = 200, json.loads(reply.body)
                response = {"status_code": status, "body": body}
                lines.append({"id": "1", "custom_id": row["custom_id"], "response": response, "error": None})
        if kind == "err":
            expired = {"response": None, "error": {"code": "batch_expired", "message": "too late"}}
            lines += [{"custom_id": row["custom_id"], **expired} for row in batch["rows"][len(answered) :]]
        written = (json.dumps(line, ensure_ascii=not self.held.raw) for line in reversed(lines))
        return web.Response(text="".join(f"{line}\n" for line in written))


@dataclass
class AnthropicBatchServer:
    """`/v1/messages/batches`."""

    fake: FakeAnthropic
    held: Batched

    async def create(self, request: web.Request) -> web.StreamResponse:
        rows = (await request.json())["requests"]
        for row in rows:
            assert 1 <= len(row["custom_id"]) <= 64
            refused = self.fake._refusal(request, row["params"])
            assert refused is None, refused
        number = len(self.held.batches)
        if number in self.held.refuse:
            return refusal(400, self.held.refuse[number])
        batch = self.held.add(rows, at=datetime.fromtimestamp(time.time(), UTC).isoformat())
        if number in self.held.lose:
            return await cut(request)
        return web.json_response(self._shown(batch, False))

    def _shown(self, batch: Body, ended: bool) -> Body:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if ended else "processing"] = len(batch["rows"])
        shown = {"id": batch["id"], "type": "message_batch"}
        shown |= dict.fromkeys(("created_at", "expires_at"), batch["at"])
        results = f"{self.fake.url}/v1/messages/batches/{batch['id']}/results" if ended else None
        status = "ended" if ended else "in_progress"
        return {**shown, "processing_status": status, "request_counts": counts, "results_url": results}

    async def list(self, request: web.Request) -> web.Response:
        data = [self._shown(batch, False) for batch in reversed(self.held.batches)]
        return web.json_response({"data": data, "has_more": False, "first_id": None, "last_id": None})

    async def look(self, request: web.Request) -> web.Response:
        batch, ended = self.held.look(request.match_info["name"])
        return web.json_response(self._shown(batch, ended))

    async def results(self, request: web.Request) -> web.Response:
        batch = self.held.batches[int(request.match_info["name"].removeprefix("batch_"))]
        answered, lines = self.held.answered(batch), []
        for row in answered:
            if row["custom_id"] in self.held.failing:
                error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
                lines.append({"custom_id": row["custom_id"], "result": {"type": "errored", "error": error}})
                continue
            message = self.fake.reply(row["params"])
            lines.append({"custom_id": row["custom_id"], "result": {"type": "succeeded", "message": message}})
        expired = batch["rows"][len(answered) :]
        lines += [{"custom_id": row["custom_id"], "result": {"type": "expired"}} for row in expired]
        return web.Response(text="".join(json.dumps(line) + "\n" for line in reversed(lines)))


@contextmanager
def serving_openai_batches(fake: Fake, held: Batched) -> Iterator[Fake]:
    """Run a server of single calls and batches in a thread; its address is `fake.url`."""
    server, app = OpenAIBatchServer(fake, held), web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", fake.completions)
    app.router.add_get("/v1/models", fake.list)
    app.router.add_post("/v1/files", server.upload)
    app.router.add_get("/v1/files/{name}/content", server.content)
    app.router.add_post("/v1/batches", server.create)
    app.router.add_get("/v1/batches", server.list)
    app.router.add_get("/v1/batches/{name}", server.look)
    with on_a_port(app) as url:
        fake.url = f"{url}/v1"
        yield fake


@contextmanager
def serving_anthropic_batches(fake: FakeAnthropic, held: Batched) -> Iterator[FakeAnthropic]:
    """Run a server of single calls and batches in a thread; its address is `fake.url`."""
    server, app = AnthropicBatchServer(fake, held), web.Application(client_max_size=2**26)
    app.router.add_post("/v1/messages", fake.messages)
    app.router.add_get("/v1/models", fake.list)
    app.router.add_post("/v1/messages/batches", server.create)
    app.router.add_get("/v1/messages/batches", server.list)
    app.router.add_get("/v1/messages/batches/{name}", server.look)
    app.router.add_get("/v1/messages/batches/{name}/results", server.results)
    with on_a_port(app) as fake.url:
        yield fake
