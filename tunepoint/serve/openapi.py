"""The gateway's API as an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunepoint import __version__

TEXT = {"type": "string"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _responses(schema: dict[str, Any] | None, *errors: int) -> dict[str, Any]:
    """The responses of an operation: 200 with a schema, and its error statuses."""
    responses: dict[str, Any] = {"200": {"description": "success", **(_json(schema) if schema else {})}}
    error = {"$ref": "#/components/schemas/Error"}
    for status in errors:
        responses[str(status)] = {"description": "the error, with its reason", **_json(error)}
    return responses


MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [TEXT, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]},
    },
}
CHAT: dict[str, Any] = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": {**TEXT, "description": "the name of a task"},
        "messages": {"type": "array", "minItems": 1, "items": MESSAGE},
        "stream": {"type": "boolean"},
        "user": {**TEXT, "description": "identifies the end user, who always gets the same arm in a canary"},
    },
}
SCORE = {"type": "number", "minimum": 0, "maximum": 1}
FEEDBACK = {
    "type": "object",
    "required": ["request_id"],
    "additionalProperties": False,
    "properties": {
        "request_id": {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,64}$"},
        "score": SCORE,
        "thumbs": {"type": "string", "enum": ["up", "down"]},
        "correction": {**TEXT, "minLength": 1, "description": "what the answer should have been"},
        "comment": TEXT,
    },
}
CHANGE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "promote": TEXT,
        "roll_back": {"const": True},
        "canary": {
            "type": "object",
            "required": ["arm"],
            "properties": {"arm": TEXT, "steps": {"type": "array", "items": SCORE}},
        },
        "shadow": TEXT,
        "fallback": {"type": "array", "items": TEXT},
        "why": TEXT,
    },
}
OBJECT = {"type": "object"}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message", "type"]}},
}


def openapi_document(tasks: Sequence[str]) -> dict[str, Any]:
    """Return the content of `/openapi.json` for the tasks that are served."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tunepoint gateway", "version": __version__},
        "paths": _paths({**TEXT, "enum": list(tasks)}),
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _paths(task_name: dict[str, Any]) -> dict[str, Any]:
    """The operations of each path, where a task's name has this schema."""
    task = {"name": "task", "in": "path", "required": True, "schema": task_name}
    name = {"name": "name", "in": "path", "required": True, "schema": task_name}
    filter_ = {"name": "task", "in": "query", "required": False, "schema": TEXT}
    chat = {**CHAT, "properties": {**CHAT["properties"], "model": task_name}}
    chat_responses = _responses(OBJECT, 400, 401, 403, 404, 408, 413, 415, 422, 429, 502, 503, 504)
    chat_responses["200"]["content"]["text/event-stream"] = {"schema": TEXT}
    denied = (401, 403)
    return {
        "/v1/chat/completions": {
            "post": {"requestBody": {"required": True, **_json(chat)}, "responses": chat_responses}
        },
        "/v1/models": {"get": {"responses": _responses(OBJECT, *denied)}},
        "/v1/models/{name}": {"get": {"parameters": [name], "responses": _responses(OBJECT, *denied, 404)}},
        "/v1/feedback": {
            "post": {
                "requestBody": {"required": True, **_json(FEEDBACK)},
                "responses": _responses(OBJECT, 400, *denied, 404, 413, 415, 422, 429, 503),
            }
        },
        "/v1/routes/{task}": {
            "get": {"parameters": [task], "responses": _responses(OBJECT, *denied, 404)},
            "post": {
                "parameters": [task],
                "requestBody": {"required": True, **_json(CHANGE)},
                "responses": _responses(OBJECT, 400, *denied, 404, 409, 413, 415, 503),
            },
        },
        "/v1/reload": {"post": {"responses": _responses(OBJECT, 400, *denied, 415, 503)}},
        "/v1/dashboard/{task}": {
            "get": {"parameters": [task], "responses": _responses(OBJECT, *denied, 404, 503)}
        },
        "/v1/audit": {"get": {"parameters": [filter_], "responses": _responses(OBJECT, *denied, 503)}},
        "/healthz": {"get": {"responses": _responses(OBJECT)}},
        "/readyz": {"get": {"responses": _responses(OBJECT, 503)}},
        "/metrics": {"get": {"responses": _responses(None, *denied)}},
    }
