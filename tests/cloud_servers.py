"""Servers that speak as Fireworks, Google Cloud and Amazon do: they store rows, run jobs and answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from servers import on_a_port

KEY = "a-secret-that-nobody-may-see"
NOW = datetime(2026, 11, 27, tzinfo=UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Job:
    """A job of any cloud."""

    id: str
    body: dict[str, Any]
    polls: int = 0
    cancelled: bool = False

    def state(self, *, fails: bool) -> str:
        """Return how it is: at work when it is looked at for the first time, then over."""
        self.polls += 1
        if self.cancelled:
            return "cancelled"
        return "running" if self.polls == 1 else "failed" if fails else "succeeded"


@dataclass
class FakeCloud:
    """What a cloud holds, and what it saw."""

    files: dict[str, bytes] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the calls to a model."""
    faults: dict[str, list[int]] = field(default_factory=dict)
    """Operation -> the statuses of its next calls; 0 does what was asked, and loses the answer."""
    fails: bool = False
    words: str = "The rows do not suit the model."
    answer: Callable[[str], str] = lambda text: "billing"
    url: str = ""

    def noted(self, request: web.Request, operation: str) -> None:
        """Count a call, and answer with the fault that waits for it."""
        self.calls[operation] += 1
        self.keys.add(request.headers.get("Authorization", ""))
        waiting = self.faults.get(operation, [])
        if waiting and waiting[0]:
            raise self.refusal(waiting.pop(0))

    def lose(self, operation: str) -> None:
        """Lose an answer whose call had its effect."""
        waiting = self.faults.get(operation, [])
        if waiting:
            assert waiting.pop(0) == 0
            raise self.refusal(500)

    def refusal(self, status: int) -> web.HTTPException:
        """Return the answer for a status."""
        error = web.HTTPBadRequest(text=json.dumps(self.words_for(status)), content_type="application/json")
        error.set_status(status)
        return error

    def words_for(self, status: int) -> dict[str, Any]:
        """Return what the cloud says with a status."""
        raise NotImplementedError

    def started(self, identity: str, body: dict[str, Any]) -> Job:
        """Keep a new job."""
        self.jobs.append(Job(identity, body))
        return self.jobs[-1]

    def found(self, identity: str) -> Job:
        """Return a job."""
        for job in self.jobs:
            if job.id == identity:
                return job
        raise self.refusal(404)


class FakeFireworks(FakeCloud):
    """Datasets, jobs, and a deployment that answers."""

    states: Mapping[str, str] = {
        "running": "JOB_STATE_RUNNING",
        "failed": "JOB_STATE_FAILED",
        "succeeded": "JOB_STATE_COMPLETED",
        "cancelled": "JOB_STATE_CANCELLED",
    }

    def words_for(self, status: int) -> dict[str, Any]:
        return {"error": {"code": status, "message": "no such thing" if status == 404 else "not now"}}

    def app(self) -> web.Application:
        app, base = web.Application(), "/v1/accounts/acme"
        app.router.add_post(f"{base}/datasets", self.create_dataset)
        app.router.add_get(base + "/datasets/{id}", self.dataset)
        app.router.add_post(base + "/datasets/{id:[^:]+}:upload", self.upload)
        app.router.add_get(f"{base}/supervisedFineTuningJobs", self.listed)
        app.router.add_post(f"{base}/supervisedFineTuningJobs", self.create)
        app.router.add_get(base + "/supervisedFineTuningJobs/{id}", self.job)
        app.router.add_post(base + "/supervisedFineTuningJobs/{id:[^:]+}:cancel", self.cancel)
        app.router.add_post("/inference/v1/chat/completions", self.complete)
        return app

    async def create_dataset(self, request: web.Request) -> web.Response:
        self.noted(request, "create dataset")
        body = await request.json()
        assert body["datasetId"] not in self.files
        assert body["dataset"]["format"] == "CHAT" and int(body["dataset"]["exampleCount"]) > 0
        self.files[body["datasetId"]] = b""
        self.lose("create dataset")
        return web.json_response(
            {"name": f"accounts/acme/datasets/{body['datasetId']}", "state": "UPLOADING"}
        )

    async def dataset(self, request: web.Request) -> web.Response:
        self.noted(request, "dataset")
        name = request.match_info["id"]
        if name not in self.files:
            raise self.refusal(404)
        state = "READY" if self.files[name] else "UPLOADING"
        return web.json_response({"name": f"accounts/acme/datasets/{name}", "state": state})

    async def upload(self, request: web.Request) -> web.Response:
        self.noted(request, "upload")
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        self.files[request.match_info["id"]] = file.file.read()
        self.lose("upload")
        return web.json_response({})

    def shown(self, job: Job, state: str) -> dict[str, Any]:
        return {
            "name": f"accounts/acme/supervisedFineTuningJobs/{job.id}",
            "state": self.states[state],
            "dataset": job.body["dataset"],
            "displayName": job.body["displayName"],
            "outputModel": f"accounts/acme/models/{job.id}" if state == "succeeded" else "",
            "status": {
                "code": "OK" if state != "failed" else "INVALID",
                "message": self.words * (state == "failed"),
            },
            "jobProgress": {"percent": 40 if state == "running" else 100},
            "estimatedCost": {"currencyCode": "USD", "units": "1", "nanos": 250_000_000},
        }

    async def listed(self, request: web.Request) -> web.Response:
        self.noted(request, "list")
        first = 1 if request.query.get("pageToken") else 0
        page = [self.shown(job, "running") for job in self.jobs[first:]][: 1 if not first else None]
        return web.json_response(
            {"supervisedFineTuningJobs": page, "nextPageToken": "" if first or len(self.jobs) < 2 else "more"}
        )

    async def create(self, request: web.Request) -> web.Response:
        self.noted(request, "create")
        job = self.started(f"job-{len(self.jobs)}", await request.json())
        self.lose("create")
        return web.json_response(self.shown(job, "running"))

    async def job(self, request: web.Request) -> web.Response:
        self.noted(request, "job")
        job = self.found(request.match_info["id"])
        return web.json_response(self.shown(job, job.state(fails=self.fails)))

    async def cancel(self, request: web.Request) -> web.Response:
        self.noted(request, "cancel")
        self.found(request.match_info["id"]).cancelled = True
        return web.json_response({})

    async def complete(self, request: web.Request) -> web.Response:
        self.noted(request, "model")
        body = await request.json()
        self.asked.append(body)
        message = {"role": "assistant", "content": self.answer(body["messages"][-1]["content"])}
        usage = {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
        return web.json_response(
            {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        )


class FakeGoogle(FakeCloud):
    """A bucket, tuning jobs, and endpoints that answer."""

    place = "projects/p/locations/europe-west4"
    states: Mapping[str, str] = {
        "running": "JOB_STATE_RUNNING",
        "failed": "JOB_STATE_FAILED",
        "succeeded": "JOB_STATE_SUCCEEDED",
        "cancelled": "JOB_STATE_CANCELLED",
    }
    finish = "STOP"
    blocked = False

    def words_for(self, status: int) -> dict[str, Any]:
        kind = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}.get(
            status, "INTERNAL"
        )
        return {"error": {"code": status, "message": f"{kind}: not with this", "status": kind}}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/storage/v1/b/{bucket}/o/{name:.+}", self.blob)
        app.router.add_post("/upload/storage/v1/b/{bucket}/o", self.upload)
        jobs = f"/v1beta1/{self.place}/tuningJobs"
        app.router.add_get(jobs, self.listed)
        app.router.add_post(jobs, self.create)
        app.router.add_get(jobs + "/{id}", self.job)
        app.router.add_post(jobs + "/{id:[^:]+}:cancel", self.cancel)
        app.router.add_post("/v1beta1/{model:.+}:generateContent", self.generate)
        return app

    async def blob(self, request: web.Request) -> web.Response:
        self.noted(request, "blob")
        name = unquote(request.match_info["name"])
        if name not in self.files:
            raise self.refusal(404)
        return web.json_response({"name": name, "bucket": "rows", "size": str(len(self.files[name]))})

    async def upload(self, request: web.Request) -> web.Response:
        self.noted(request, "upload")
        parts: list[bytes] = []
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            parts.append(await part.read())  # type: ignore[union-attr]
        name = json.loads(parts[0])["name"]
        self.files[name] = bytes(parts[1])
        self.lose("upload")
        return web.json_response({"name": name, "bucket": "rows", "size": str(len(parts[1]))})

    def shown(self, job: Job, state: str) -> dict[str, Any]:
        tuned = {"model": f"{self.place}/models/7@1", "endpoint": f"{self.place}/endpoints/{job.id}"}
        return {
            "name": f"{self.place}/tuningJobs/{job.id}",
            "state": self.states[state],
            "baseModel": job.body["baseModel"],
            "tunedModelDisplayName": job.body["tunedModelDisplayName"],
            "supervisedTuningSpec": job.body["supervisedTuningSpec"],
            "createTime": NOW,
            **({"tunedModel": tuned} if state == "succeeded" else {}),
            **({"error": {"code": 3, "message": self.words}} if state == "failed" else {}),
            "tuningDataStats": {"supervisedTuningDataStats": {"totalBillableTokenCount": "1000"}},
        }

    async def listed(self, request: web.Request) -> web.Response:
        self.noted(request, "list")
        first = 1 if request.query.get("pageToken") else 0
        page = [self.shown(job, "running") for job in self.jobs[first:]][: 1 if not first else None]
        next_page = {} if first or len(self.jobs) < 2 else {"nextPageToken": "more"}
        return web.json_response({"tuningJobs": page, **next_page})

    async def create(self, request: web.Request) -> web.Response:
        self.noted(request, "create")
        job = self.started(str(100 + len(self.jobs)), await request.json())
        self.lose("create")
        return web.json_response(self.shown(job, "running"))

    async def job(self, request: web.Request) -> web.Response:
        self.noted(request, "job")
        job = self.found(request.match_info["id"])
        return web.json_response(self.shown(job, job.state(fails=self.fails)))

    async def cancel(self, request: web.Request) -> web.Response:
        self.noted(request, "cancel")
        self.found(request.match_info["id"]).cancelled = True
        return web.json_response({})

    async def generate(self, request: web.Request) -> web.Response:
        self.noted(request, "model")
        body = await request.json()
        self.asked.append({"model": request.match_info["model"], **body})
        counts = {
            "promptTokenCount": 50,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 7,
            "cachedContentTokenCount": 20,
        }
        if self.blocked:
            return web.json_response({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": counts})
        text = self.answer(body["contents"][-1]["parts"][0]["text"])
        parts = [{"text": "Let me see.", "thought": True}, *([{"text": text}] if text else [])]
        content = {"role": "model", "parts": parts}
        return web.json_response(
            {"candidates": [{"content": content, "finishReason": self.finish}], "usageMetadata": counts}
        )


class FakeAmazon(FakeCloud):
    """A bucket, tuning jobs, and models behind Converse."""

    states: Mapping[str, str] = {
        "running": "InProgress",
        "failed": "Failed",
        "succeeded": "Completed",
        "cancelled": "Stopped",
    }
    stop = "end_turn"

    def words_for(self, status: int) -> dict[str, Any]:
        return {"message": "not with this"}

    def refusal(self, status: int) -> web.HTTPException:
        error = super().refusal(status)
        codes = {401: "UnrecognizedClientException", 403: "AccessDeniedException", 429: "ThrottlingException"}
        codes |= {
            404: "ResourceNotFoundException",
            500: "InternalServerException",
            400: "ValidationException",
        }
        error.headers["x-amzn-ErrorType"] = codes[status]
        return error

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_head("/rows/{name:.+}", self.head)
        app.router.add_put("/rows/{name:.+}", self.put)
        app.router.add_get("/model-customization-jobs", self.listed)
        app.router.add_post("/model-customization-jobs", self.create)
        app.router.add_get("/model-customization-jobs/{id:.+}", self.job)
        app.router.add_post("/model-customization-jobs/{id:.+}/stop", self.cancel)
        app.router.add_post("/model/{model:.+}/converse", self.converse)
        return app

    async def head(self, request: web.Request) -> web.Response:
        self.noted(request, "head")
        content = self.files.get(request.match_info["name"])
        if content is None:
            return web.Response(status=404)
        return web.Response(body=content)

    async def put(self, request: web.Request) -> web.Response:
        self.noted(request, "upload")
        body = await request.read()
        if request.headers.get("Content-Encoding") == "aws-chunked":  # with a checksum at its end
            size = int(request.headers["x-amz-decoded-content-length"])
            start = body.index(b"\r\n") + 2
            body = body[start : start + size]
        self.files[request.match_info["name"]] = body
        self.lose("upload")
        return web.Response()

    def shown(self, job: Job, state: str) -> dict[str, Any]:
        body = job.body
        return {
            "jobArn": job.id,
            "jobName": body["jobName"],
            "baseModelArn": "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0",
            "status": self.states[state],
            "creationTime": NOW,
            "trainingDataConfig": body["trainingDataConfig"],
            **(
                {"outputModelArn": f"arn:aws:bedrock:::custom-model/{body['customModelName']}"}
                if state == "succeeded"
                else {}
            ),
            **({"failureMessage": self.words} if state == "failed" else {}),
        }

    async def listed(self, request: web.Request) -> web.Response:
        self.noted(request, "list")
        first = 1 if request.query.get("nextToken") else 0
        page = [self.shown(job, "running") for job in self.jobs[first:]][: 1 if not first else None]
        for line in page:
            del line["trainingDataConfig"]
        next_page = {} if first or len(self.jobs) < 2 else {"nextToken": "more"}
        return web.json_response({"modelCustomizationJobSummaries": page, **next_page})

    async def create(self, request: web.Request) -> web.Response:
        self.noted(request, "create")
        body = await request.json()
        if body["jobName"] in [job.body["jobName"] for job in self.jobs]:
            raise self.refusal(400)
        arn = f"arn:aws:bedrock:us-east-1:123456789012:model-customization-job/{len(self.jobs)}"
        self.started(arn, body)
        self.lose("create")
        return web.json_response({"jobArn": arn}, status=201)

    async def job(self, request: web.Request) -> web.Response:
        self.noted(request, "job")
        job = self.found(unquote(request.match_info["id"]))
        return web.json_response(self.shown(job, job.state(fails=self.fails)))

    async def cancel(self, request: web.Request) -> web.Response:
        self.noted(request, "cancel")
        self.found(unquote(request.match_info["id"])).cancelled = True
        return web.json_response({})

    async def converse(self, request: web.Request) -> web.Response:
        self.noted(request, "model")
        body = await request.json()
        self.asked.append({"model": unquote(request.match_info["model"]), **body})
        text = self.answer(body["messages"][-1]["content"][0]["text"])
        content = [{"text": text}] if text else []
        counts = {"inputTokens": 30, "outputTokens": 4, "totalTokens": 54, "cacheReadInputTokens": 20}
        return web.json_response(
            {
                "output": {"message": {"role": "assistant", "content": content}},
                "stopReason": self.stop,
                "usage": counts,
                "metrics": {"latencyMs": 5},
            }
        )


@contextmanager
def in_the_cloud(cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a server, and point the cloud's own client at it by the variables that it knows."""
    with on_a_port(cloud.app()) as url:  # type: ignore[attr-defined]
        cloud.url = url
        settings = {
            FakeFireworks: {
                "TUNEPOINT_FIREWORKS_URL": url,
                "TUNEPOINT_API_KEY": KEY,
                "FIREWORKS_ACCOUNT_ID": "acme",
            },
            FakeGoogle: {
                "GOOGLE_VERTEX_BASE_URL": url,
                "STORAGE_EMULATOR_HOST": url,
                "GOOGLE_CLOUD_PROJECT": "p",
                "GOOGLE_CLOUD_LOCATION": "europe-west4",
                "VERTEX_ACCESS_TOKEN": KEY,
                "TUNEPOINT_VERTEX_BUCKET": "gs://rows/tuning",
            },
            FakeAmazon: {
                "AWS_ENDPOINT_URL": url,
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "someone",
                "AWS_SECRET_ACCESS_KEY": KEY,
                "TUNEPOINT_BEDROCK_BUCKET": "s3://rows/tuning",
                "TUNEPOINT_BEDROCK_ROLE": "arn:aws:iam::123456789012:role/Tuning",
            },
        }[type(cloud)]
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield
