"""A small provider of fine-tuning: files, jobs, events and tuned inference, with real faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from servers import cut, on_a_port, refusal

Body = dict[str, Any]
OVER = ("succeeded", "completed", "failed", "error", "cancelled")
TOGETHER = {"succeeded": "completed", "failed": "error"}


@dataclass
class FakeProvider:
    """What the provider holds, and what it saw."""

    key: str
    answer: Callable[[list[dict[str, str]]], str] = lambda turns: "billing"
    together: bool = False
    """Its paths and words are Together's."""
    course: tuple[str, ...] = ("queued", "running", "succeeded")
    """Status of a job at each look; the last one stays."""
    why: str = "the training file has an invalid line"
    """What a failed job says."""
    page: int = 100
    reading: tuple[str, ...] = ("processed",)
    """Status of a file at each look; the last one stays."""
    files: dict[str, Body] = field(default_factory=dict)
    jobs: dict[str, Body] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """`POST /files` or the like -> what goes wrong with its next calls."""
    seen: Counter[str] = field(default_factory=Counter)
    requests: list[Body] = field(default_factory=list)
    """Calls of tuned models."""
    url: str = ""

    @property
    def done(self) -> str:
        return "completed" if self.together else "succeeded"

    # -- files -----------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.StreamResponse:
        async def store() -> Body:
            form: dict[str, Any] = {}
            async for part in await request.multipart():
                form[str(part.name)] = await part.read() if part.filename else await part.text()  # type: ignore
                if part.filename:  # type: ignore[union-attr]
                    form["named"] = part.filename  # type: ignore[union-attr]
            assert form["purpose"] == "fine-tune"
            assert not self.together or (form["file_name"], form["file_type"]) == (form["named"], "jsonl")
            return self.hold(form["named"], form["file"])

        return await self._served(request, "POST /files", store)

    def hold(self, name: str, content: bytes) -> Body:
        identity = f"file-{len(self.files)}"
        self.contents[identity] = content
        self.files[identity] = {"id": identity, "object": "file", "filename": name, "bytes": len(content)}
        return self.files[identity]

    async def listed(self, request: web.Request) -> web.StreamResponse:
        return await self._list(request, "GET /files", list(self.files.values()))

    async def file(self, request: web.Request) -> web.StreamResponse:
        async def look() -> Body:
            file = self.files[request.match_info["id"]]
            status = self.reading[min(file.setdefault("looks", 0), len(self.reading) - 1)]
            file["looks"] += 1
            error = {"error": {"message": "a line is no JSON"}} if status == "error" else {}
            return {**file, "status": status, **error}

        return await self._served(request, "GET /files/ID", look)

    # -- jobs ------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.StreamResponse:
        async def begin() -> Body:
            return self.begin(await request.json())

        return await self._served(request, "POST /jobs", begin)

    def begin(self, body: Body) -> Body:
        assert body["training_file"] in self.files
        identity = f"job-{len(self.jobs)}"
        job = {**body, "id": identity, "object": "fine_tuning.job", "status": "queued", "looks": 0}
        self.jobs[identity] = job
        return job

    async def all_jobs(self, request: web.Request) -> web.StreamResponse:
        return await self._list(request, "GET /jobs", list(self.jobs.values())[::-1])

    async def job(self, request: web.Request) -> web.StreamResponse:
        async def look() -> Body:
            job = self.jobs[request.match_info["id"]]
            if job["status"] not in OVER:
                word = self.course[min(job["looks"], len(self.course) - 1)]
                job["status"] = TOGETHER.get(word, word) if self.together else word
                job["looks"] += 1
                self._end(job)
            return job

        return await self._served(request, "GET /jobs/ID", look)

    def _end(self, job: Body) -> None:
        model = f"acme/{job['model']}:{job['suffix']}" if self.together else f"ft:{job['model']}:acme::1"
        if job["status"] == self.done:
            job["model_output_name" if self.together else "fine_tuned_model"] = model
            job["token_count" if self.together else "trained_tokens"] = 30_000
        if job["status"] == "failed":
            job["error"] = {"code": "invalid_training_file", "message": self.why}

    async def events(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs[request.match_info["id"]]
        events = [
            {"id": f"e{n}", "created_at": 100 + n // 2, "level": "info", "message": f"Step {n}/4: loss=0.{n}"}
            for n in range(1, job["looks"] + 1)
        ]
        if job["status"] == "error":
            events.append({"id": "e9", "created_at": 999, "level": "error", "message": self.why})
        return await self._list(request, "GET /events", events[::-1])

    async def stop(self, request: web.Request) -> web.StreamResponse:
        async def stopped() -> Body:
            job = self.jobs[request.match_info["id"]]
            job["status"] = "cancelled"
            return job

        return await self._served(request, "POST /cancel", stopped)

    # -- the tuned model -------------------------------------------------------------------

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        models = {job.get("fine_tuned_model") or job.get("model_output_name") for job in self.jobs.values()}
        if body["model"] not in models:
            return refusal(404, f"The model {body['model']} does not exist")
        self.requests.append(body)
        message = {"role": "assistant", "content": self.answer(body["messages"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
        return web.json_response({"id": "1", "model": body["model"], "choices": [choice], "usage": usage})

    # -- what goes wrong -------------------------------------------------------------------

    async def _list(self, request: web.Request, name: str, items: list[Body]) -> web.StreamResponse:
        async def part() -> Body:
            first = (
                [item["id"] for item in items].index(after) + 1
                if (after := request.query.get("after"))
                else 0
            )
            return {"data": items[first : first + self.page], "has_more": first + self.page < len(items)}

        return await self._served(request, name, part)

    async def _served(self, request: web.Request, name: str, act: Callable[[], Any]) -> web.StreamResponse:
        self.seen[name] += 1
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return refusal(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
        fault = self.faults[name].pop(0) if self.faults.get(name) else ""
        if fault == "cut early":
            await request.content.read(64)
            return await cut(request)
        if fault in REFUSALS:
            await request.read()
            return REFUSALS[fault](self.key)
        answer = await act()
        if fault == "cut late":  # it happened, and nobody hears of it
            return await cut(request)
        return web.json_response(answer)


REFUSALS: dict[str, Callable[[str], web.Response]] = {
    "429": lambda key: refusal(429, "slow down", **{"Retry-After": "7"}),
    "429 long": lambda key: refusal(429, "slow down", **{"Retry-After": "3600"}),
    "quota": lambda key: refusal(429, f"you, {key}, are out of credit", code="insufficient_quota"),
    "403": lambda key: refusal(403, "your organization may not start fine-tuning jobs"),
    "402": lambda key: refusal(402, "payment required"),
    "400": lambda key: refusal(400, f"unknown model for {key}"),
    "500": lambda key: refusal(500, "oops"),
    "no json": lambda key: web.Response(text="<html>", content_type="text/html"),
    "no id": lambda key: web.json_response({"hello": 1}),
}


@contextmanager
def providing(fake: FakeProvider) -> Iterator[FakeProvider]:
    """Run the provider in a thread; its address is `fake.url`."""
    jobs = "/v1/fine-tunes" if fake.together else "/v1/fine_tuning/jobs"
    app = web.Application()
    app.router.add_post("/v1/files/upload" if fake.together else "/v1/files", fake.upload)
    app.router.add_get("/v1/files", fake.listed)
    app.router.add_get("/v1/files/{id}", fake.file)
    app.router.add_post(jobs, fake.create)
    app.router.add_get(jobs, fake.all_jobs)
    app.router.add_get(f"{jobs}/{{id}}", fake.job)
    app.router.add_get(f"{jobs}/{{id}}/events", fake.events)
    app.router.add_post(f"{jobs}/{{id}}/cancel", fake.stop)
    app.router.add_post("/v1/chat/completions", fake.completions)
    with on_a_port(app) as url:
        fake.url = f"{url}/v1"
        yield fake
