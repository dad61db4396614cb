"""The endpoints besides chat: models, feedback, routes, reload, audit log, metrics and dashboard."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunepoint.errors import StoreError, TunepointError
from tunepoint.serve.bodies import FeedbackBody, RoutesChange, read_body
from tunepoint.serve.protocol import RequestError
from tunepoint.serve.routing import RouteConflict
from tunepoint.serve.workers import reload_others

if TYPE_CHECKING:
    from tunepoint.serve.auth import Key, Role
    from tunepoint.serve.gateway import Gateway

MAX_AUDIT_ENTRIES = 1_000
FEEDBACK_ROLES: tuple[Role, ...] = ("call", "operate")
"""Roles that may give feedback at all; on which requests, `feedback.check_right` says."""
ANONYMOUS = "anybody here"
"""Who changed the routes, where no key is needed."""
PAGES = (
    ("/", "dashboard.html", "text/html"),
    ("/dashboard.js", "dashboard.js", "text/javascript"),
    ("/dashboard.css", "dashboard.css", "text/css"),
)
"""Path, asset and media type of what a browser loads; the page requests everything else with a key."""
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
Handler = Callable[["Gateway", Request, "Key | None"], Awaitable[Any]]


class Admit(Protocol):
    """Authenticates a caller; `Application.admit`."""

    def __call__(self, headers: dict[bytes, bytes], *roles: Role, writes: bool = False) -> Key:
        """Return the key, or raise a RequestError."""
        ...


def routes(gateway: Gateway, admit: Admit) -> list[Route]:
    """All endpoints but chat."""

    def endpoint(
        roles: Role | Sequence[Role] | None, handler: Handler
    ) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            key = None
            if roles is not None:
                any_of = (roles,) if isinstance(roles, str) else roles
                key = admit(dict(request.scope["headers"]), *any_of, writes=request.method == "POST")
            content = await handler(gateway, request, key)
            return content if isinstance(content, Response) else _json(content)

        return respond

    return [
        Route("/v1/models", endpoint("call", _list_models)),
        Route("/v1/models/{name:path}", endpoint("call", _get_model)),
        Route("/v1/feedback", endpoint(FEEDBACK_ROLES, _give_feedback), methods=["POST"]),
        Route("/v1/routes/{task}", endpoint("read", _get_routes)),
        Route("/v1/routes/{task}", endpoint("operate", _change_routes), methods=["POST"]),
        Route("/v1/reload", endpoint("operate", _reload), methods=["POST"]),
        Route("/v1/audit", endpoint("read", _get_audit_log)),
        Route("/healthz", endpoint(None, _health)),
        Route("/readyz", endpoint(None, _ready)),
        Route("/metrics", endpoint("read", _metrics)),
        Route("/openapi.json", endpoint(None, _openapi)),
        Route("/v1/dashboard/{task}", endpoint("read", _dashboard)),
        *(Route(path, endpoint(None, partial(_page, asset, kind))) for path, asset, kind in PAGES),
    ]


# -- handlers ----------------------------------------------------------------------------------------


async def _page(asset: str, media_type: str, gateway: Gateway, request: Request, key: Key | None) -> Response:
    text = resources.files("tunepoint.serve").joinpath("assets", asset).read_text(encoding="utf-8")
    return Response(text, 200, PAGE_HEADERS, media_type=media_type)


async def _dashboard(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    from tunepoint.serve.dashboard import dashboard_data

    name = request.path_params["task"]
    task = gateway.dispatcher.task(name)
    return await asyncio.to_thread(dashboard_data, gateway.store, name, task)


async def _list_models(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    return {"object": "list", "data": [_model(name) for name in gateway.dispatcher.tasks]}


async def _get_model(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    name = request.path_params["name"]
    gateway.dispatcher.task(name)  # an unknown one raises
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tunepoint"}


async def _give_feedback(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    assert key is not None
    await gateway.access.charge_feedback(key)
    body = await read_body(request, FeedbackBody)
    await gateway.dispatcher.feedback(body.feedback(key), key)
    return {"object": "feedback", "request_id": body.request_id, "kept": True}


async def _get_routes(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    name = request.path_params["task"]
    task = gateway.dispatcher.task(name)
    decision = task.monitor.decision
    canary = None
    if decision is not None:
        means = {
            measure: {"champion": asdict(champion), "canary": asdict(challenger)}
            for measure, (champion, challenger) in decision.intervals.items()
        }
        canary = {"why": decision.why, "means": means, "unclear": list(decision.unclear)}
    arms = {
        arm: {"model": served.model, "asked": not task.router.breakers[arm].opened}
        for arm, served in task.arms.items()
    }
    return {"task": name, "arms": arms, "policy": task.router.policy.document(), "canary": canary}


async def _change_routes(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    task = gateway.dispatcher.task(request.path_params["task"])
    change = await read_body(request, RoutesChange)
    who = (key.name if key else "") or ANONYMOUS
    await asyncio.to_thread(change.apply, task.router, who)
    return await _get_routes(gateway, request, key)


async def _reload(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    await gateway.reload()
    if reload_others():  # this worker gets the signal too
        gateway.reloads_done += 1
    return {"tasks": {name: list(task.arms) for name, task in gateway.dispatcher.tasks.items()}}


async def _get_audit_log(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    entries = await asyncio.to_thread(gateway.store.audit_log, request.query_params.get("task"))
    return {"object": "list", "data": entries[-MAX_AUDIT_ENTRIES:]}


async def _health(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    writer = gateway.writer
    waiting = {"waiting": writer.waiting, "on_disk": writer.spooled}
    return {
        "status": "ok",
        "tasks": list(gateway.dispatcher.tasks),
        "capture": _store_state(gateway),
        **waiting,
    }


def _store_state(gateway: Gateway) -> str:
    """`away` while the store takes no captures, or did not reply when it was last looked at."""
    return "away" if gateway.writer.counts.failing or gateway.store_away else "ok"


async def _ready(gateway: Gateway, request: Request, key: Key | None) -> Response:
    """Whether to send requests here; without its store it answers by what it knows of routes and keys."""
    stopping = math.isfinite(gateway.stop_at)
    state = {"ready": not stopping, "store": _store_state(gateway)}
    return Response(orjson.dumps(state), 503 if stopping else 200, media_type="application/json")


async def _metrics(gateway: Gateway, request: Request, key: Key | None) -> Response:
    return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(gateway: Gateway, request: Request, key: Key | None) -> dict[str, Any]:
    from tunepoint.serve.openapi import openapi_document

    return openapi_document(list(gateway.dispatcher.tasks))


# -- responses -------------------------------------------------------------------------------


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), media_type="application/json")


def exception_handlers() -> dict[Any, Any]:
    """Every error as OpenAI's clients read it."""

    async def request_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        wait = error.retry_after()
        headers = {} if wait is None else {"retry-after": wait}
        return Response(error.body(), error.status, headers, media_type="application/json")

    async def tunepoint_error(request: Request, error: Exception) -> Response:
        if isinstance(error, StoreError):
            return await request_error(request, RequestError(503, str(error), kind="server_error"))
        status = 409 if isinstance(error, RouteConflict) else 400
        return await request_error(request, RequestError(status, str(error)))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = await request_error(request, RequestError(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    return {RequestError: request_error, TunepointError: tunepoint_error, HTTPException: http_error}
