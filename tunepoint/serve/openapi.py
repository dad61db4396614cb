"""The HTTP surface, described as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunepoint import __version__

TEXT = {"type": "string"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _answers(schema: dict[str, Any] | None, *refusals: int, words: str = "as asked") -> dict[str, Any]:
    found: dict[str, Any] = {"200": {"description": words, **(_json(schema) if schema else {})}}
    error = {"$ref": "#/components/schemas/Error"}
    for status in refusals:
        found[str(status)] = {"description": "refused, and why", **_json(error)}
    return found


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
        "user": {**TEXT, "description": "tells users apart: the same one gets the same arm in a canary"},
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
THING = {"type": "object"}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message", "type"]}},
}


def description(tasks: Sequence[str]) -> dict[str, Any]:
    """The document that `/openapi.json` gives, for the tasks that are served."""
    named = {**TEXT, "enum": list(tasks)}
    task = {"name": "task", "in": "path", "required": True, "schema": named}
    name = {"name": "name", "in": "path", "required": True, "schema": named}
    only = {"name": "task", "in": "query", "required": False, "schema": TEXT}
    chat = {**CHAT, "properties": {**CHAT["properties"], "model": named}}
    asked = {"required": True, **_json(chat)}
    answered = _answers(THING, 400, 401, 403, 404, 408, 413, 415, 422, 429, 502, 503, 504)
    answered["200"]["content"]["text/event-stream"] = {"schema": TEXT}
    known = (401, 403)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tunepoint gateway", "version": __version__},
        "paths": {
            "/v1/chat/completions": {"post": {"requestBody": asked, "responses": answered}},
            "/v1/models": {"get": {"responses": _answers(THING, *known)}},
            "/v1/models/{name}": {"get": {"parameters": [name], "responses": _answers(THING, *known, 404)}},
            "/v1/feedback": {
                "post": {
                    "requestBody": {"required": True, **_json(FEEDBACK)},
                    "responses": _answers(THING, 400, *known, 413, 415, 503),
                }
            },
            "/v1/routes/{task}": {
                "get": {"parameters": [task], "responses": _answers(THING, *known, 404)},
                "post": {
                    "parameters": [task],
                    "requestBody": {"required": True, **_json(CHANGE)},
                    "responses": _answers(THING, 400, *known, 404, 413, 415, 503),
                },
            },
            "/v1/reload": {"post": {"responses": _answers(THING, 400, *known, 415, 503)}},
            "/v1/dashboard/{task}": {
                "get": {"parameters": [task], "responses": _answers(THING, *known, 404, 503)}
            },
            "/v1/audit": {"get": {"parameters": [only], "responses": _answers(THING, *known, 503)}},
            "/healthz": {"get": {"responses": _answers(THING)}},
            "/metrics": {"get": {"responses": _answers(None, *known)}},
        },
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }
