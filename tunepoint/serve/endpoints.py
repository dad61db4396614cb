"""The endpoints beside chat: models, feedback, health, metrics, routes and the audit log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunepoint.capture.records import Feedback
from tunepoint.errors import StoreError, TunepointError
from tunepoint.serve.canary import Canary
from tunepoint.serve.protocol import RequestError
from tunepoint.serve.settings import CanarySettings

if TYPE_CHECKING:
    from tunepoint.serve.auth import Key, Role
    from tunepoint.serve.gateway import Gateway

MOST_TEXT = 100_000
M = TypeVar("M", bound=BaseModel)


class _Said(BaseModel):
    """The body of /v1/feedback."""

    model_config = ConfigDict(extra="forbid")
    request_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")]
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    thumbs: Literal["up", "down"] | None = None
    correction: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)] | None = None
    comment: Annotated[str, Field(max_length=MOST_TEXT)] | None = None

    @model_validator(mode="after")
    def _something(self) -> _Said:
        if self.score is None and self.thumbs is None and not self.correction and not self.comment:
            raise ValueError("give score, thumbs, correction or comment")
        return self


class _Change(BaseModel):
    """The body of POST /v1/routes/TASK: one thing that shall be otherwise."""

    model_config = ConfigDict(extra="forbid")
    promote: str | None = None
    roll_back: Literal[True] | None = None
    canary: CanarySettings | None = None
    shadow: str | None = None
    fallback: tuple[str, ...] | None = None
    why: Annotated[str, Field(max_length=1_000)] = "asked for"

    @model_validator(mode="after")
    def _one(self) -> _Change:
        given = [
            name for name in type(self).model_fields if name != "why" and getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                'give exactly one of promote, roll_back, canary, shadow ("" ends it) and fallback'
            )
        return self


def routes(gateway: Gateway) -> list[Route]:
    """All endpoints but chat."""

    def of(role: Role | None, handler: Callable[[Gateway, Request, Key | None], Awaitable[Any]]) -> Any:
        async def endpoint(request: Request) -> Response:
            key = (
                None
                if role is None
                else gateway.admit(dict(request.scope["headers"]), role, writes=request.method == "POST")
            )
            found = await handler(gateway, request, key)
            return found if isinstance(found, Response) else _json(found)

        return endpoint

    return [
        Route("/v1/models", of("call", _models)),
        Route("/v1/models/{name:path}", of("call", _model)),
        Route("/v1/feedback", of("call", _feedback), methods=["POST"]),
        Route("/v1/routes/{task}", of("read", _routes)),
        Route("/v1/routes/{task}", of("operate", _change), methods=["POST"]),
        Route("/v1/reload", of("operate", _reload), methods=["POST"]),
        Route("/v1/audit", of("read", _audit)),
        Route("/healthz", of(None, _health)),
        Route("/metrics", of("read", _metrics)),
        Route("/openapi.json", of(None, _openapi)),
        Route("/v1/dashboard/{task}", of("read", _dashboard)),
        *(Route(path, of(None, partial(_page, name, kind))) for path, name, kind in PAGES),
    ]


PAGES = (
    ("/", "dashboard.html", "text/html"),
    ("/dashboard.js", "dashboard.js", "text/javascript"),
    ("/dashboard.css", "dashboard.css", "text/css"),
)
"""Address, asset and type of what a browser loads; the page asks for everything else."""
SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


async def _page(name: str, kind: str, gateway: Gateway, request: Request, key: Key | None) -> Response:
    text = resources.files("tunepoint.serve").joinpath("assets", name).read_text(encoding="utf-8")
    return Response(text, 200, SAFE, media_type=kind)


async def _dashboard(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    import asyncio

    from tunepoint.serve.dashboard import dashboard_data

    name = request.path_params["task"]
    served = gateway.service.task(name)
    return await asyncio.to_thread(dashboard_data, gateway.store, name, served)


async def _models(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    return {"object": "list", "data": [_described(name) for name in gateway.service.tasks]}


async def _model(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    name = request.path_params["name"]
    gateway.service.task(name)
    return _described(name)


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tunepoint"}


async def _feedback(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    said = await _read(request, _Said)
    thumbs = None if said.thumbs is None else said.thumbs == "up"
    name = key.name if key else None
    await gateway.service.feedback(
        Feedback(
            said.request_id, time.time(), said.score, thumbs, said.correction, said.comment, name or None
        )
    )
    return {"object": "feedback", "request_id": said.request_id, "kept": True}


async def _routes(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    served = gateway.service.task(request.path_params["task"])
    judged = served.watch.judged
    return {
        "task": request.path_params["task"],
        "arms": {
            name: {"model": arm.model, "asked": not served.router.breakers[name].opened}
            for name, arm in served.arms.items()
        },
        "policy": served.router.policy.document(),
        "canary": None
        if judged is None
        else {
            "why": judged.why,
            "means": {
                name: {"champion": _interval(ours), "canary": _interval(theirs)}
                for name, (ours, theirs) in judged.intervals.items()
            },
        },
    }


def _interval(one: Any) -> dict[str, float]:
    return {"estimate": one.estimate, "low": one.low, "high": one.high}


async def _change(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    import asyncio

    served = gateway.service.task(request.path_params["task"])
    change, who = await _read(request, _Change), (key.name if key else "") or "anybody here"
    router = served.router

    def apply() -> None:
        if change.promote is not None:
            router.promote(change.promote, who, change.why)
        elif change.roll_back:
            router.roll_back(who, change.why)
        elif change.canary is not None:
            canary: Canary = change.canary.canary()
            router.start_canary(canary, who)
        elif change.shadow is not None:
            policy = replace(router.policy, shadow=change.shadow or None)
            router.change(policy, who, f"shadow: {change.shadow or 'none'}: {change.why}")
        else:
            fallback = change.fallback or ()
            router.change(
                replace(router.policy, fallback=fallback), who, f"fallback: {', '.join(fallback) or 'none'}"
            )

    await asyncio.to_thread(apply)
    return await _routes(gateway, request, key)


async def _reload(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    await gateway.reload()
    return {"tasks": {name: list(served.arms) for name, served in gateway.service.tasks.items()}}


async def _audit(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    import asyncio

    lines = await asyncio.to_thread(gateway.store.log, request.query_params.get("task"))
    return {"object": "list", "data": lines[-1_000:]}


async def _health(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    capturing = not gateway.writer.counts.failing
    return {"status": "ok", "tasks": list(gateway.service.tasks), "capture": "ok" if capturing else "away"}


async def _metrics(gateway: Gateway, request: Request, key: Key | None) -> Response:
    return Response(gateway.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    from tunepoint.serve.openapi import description

    return description(list(gateway.service.tasks))


async def _read(request: Request, model: type[M]) -> M:
    """The body as a model.

    Raises:
        Refused: it is too large, not JSON, or a field is wrong; names it.

    """
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > 2 * MOST_TEXT * 4:
            raise RequestError(413, f"the body has over {2 * MOST_TEXT * 4:,} bytes")
    try:
        return model.model_validate(orjson.loads(b"".join(parts)))
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        said = fault["msg"].removeprefix("Value error, ")
        raise RequestError(400, f"{key}: {said}" if key else said, param=key or None) from None


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, dict(headers or {}), media_type="application/json")


def exception_handlers() -> Any:
    """Every error in OpenAI's form; what a user can mend says how."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        wait = {} if error.wait is None else {"retry-after": str(max(1, round(error.wait)))}
        return Response(error.body(), error.status, wait, media_type="application/json")

    async def ours(request: Request, error: Exception) -> Response:
        away = isinstance(error, StoreError)
        one = RequestError(
            503 if away else 400, str(error), kind="server_error" if away else "invalid_request_error"
        )
        return await refused(request, one)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        found = await refused(request, RequestError(error.status_code, str(error.detail)))
        found.headers.update(error.headers or {})
        return found

    return {RequestError: refused, TunepointError: ours, HTTPException: http}
