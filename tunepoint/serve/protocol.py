"""OpenAI's chat protocol: requests in; completions, streams and errors out."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tunepoint.errors import TunepointError

NOT_PARAMETERS = (
    "messages",
    "model",
    "stream",
    "stream_options",
    "user",
    "safety_identifier",
    "metadata",
)
"""Keys of a request that are not captured as its parameters."""
DONE = b"data: [DONE]\n\n"
MAX_DEPTH = 100
"""Lists and objects inside each other, in the body of a request."""


class RequestError(TunepointError):
    """A request that is answered with an error.

    Args:
        kind: `type` of the error in OpenAI's form.
        wait: seconds after which the client may try again, for the header retry-after.

    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        wait: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.wait = status, kind, code, param, wait

    def body(self) -> bytes:
        """The error as OpenAI's clients read it."""
        fields = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": fields})

    def retry_after(self) -> str | None:
        """The header retry-after: whole seconds, at least one."""
        return None if self.wait is None else str(max(1, round(self.wait)))


@dataclass(slots=True)
class ChatRequest:
    """A validated chat request."""

    id: str
    task: str
    body: dict[str, Any]
    """As it came; an arm sends its own copy on."""
    input: str
    """The text of the last user message: what a task's example has as its input."""
    stream: bool
    wants_usage: bool
    """Whether the stream shall end with its token counts."""
    user: str | None
    """The application's name for its user; stored only as a hash."""
    slice: str | None = None
    at: float = 0.0
    """Seconds since 1970."""

    @property
    def conversation(self) -> list[Any] | None:
        """All messages; None where the input is all that there is."""
        messages: list[Any] = self.body["messages"]
        return None if len(messages) == 1 and messages[0].get("content") == self.input else messages

    @property
    def parameters(self) -> dict[str, Any]:
        """The other keys of the request: temperature, tools, response_format."""
        return {key: value for key, value in self.body.items() if key not in NOT_PARAMETERS}


# -- requests ----------------------------------------------------------------------------------------


def read_request(body: bytes) -> ChatRequest:
    """Read a chat request.

    Raises:
        RequestError: not UTF-8, not JSON, or a field that is missing or of the wrong type; names it.

    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(400, f"the body is a JSON {_json_type(content)}, expected an object")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_too_deep(content):
        raise RequestError(400, f"the body is nested too deep: over {MAX_DEPTH} lists and objects")
    task = content.get("model")
    if not isinstance(task, str) or not task:
        raise RequestError(400, "model: expected the name of a task", param="model")
    messages = _checked_messages(content.get("messages"))
    stream = content.get("stream")
    if stream not in (None, True, False):
        raise RequestError(400, f"stream: expected true or false, got {_json_type(stream)}", param="stream")
    options = content.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise RequestError(400, "stream_options: expected an object", param="stream_options")
    user = content.get("user") or content.get("safety_identifier")
    if user is not None and not isinstance(user, str):
        raise RequestError(400, f"user: expected a string, got {_json_type(user)}", param="user")
    return ChatRequest(
        id=f"req_{uuid.uuid4().hex}",
        task=task,
        body=content,
        input=_last_user_text(messages),
        stream=bool(stream),
        wants_usage=bool(options and options.get("include_usage")),
        user=user,
        at=time.time(),
    )


def _is_too_deep(content: Any) -> bool:
    """Whether JSON is nested deeper than what comes after can walk; it is read level by level here."""
    level = [content]
    for _ in range(MAX_DEPTH):
        inner = (part.values() if isinstance(part, dict) else part for part in level)
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def _checked_messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages: expected a list of at least one message", param="messages")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RequestError(
                400, f"messages[{position}]: expected an object with role and content", param="messages"
            )
    return messages


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last user message; of the last message if there is none."""
    message = next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1])
    return message_text(message.get("content"))


def message_text(content: Any) -> str:
    """The text of a caller's message; each part is a line of its own."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


# -- completions -------------------------------------------------------------------------------------


def completion(request: ChatRequest, text: str, usage: Mapping[str, int]) -> dict[str, Any]:
    """A completion of our own, for an arm that is no server."""
    return {
        "id": f"chatcmpl-{request.id[4:]}",
        "object": "chat.completion",
        "created": int(request.at),
        "model": request.task,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": dict(usage),
    }


def usage_of(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Usage as OpenAI's clients read it."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def completion_chunks(request: ChatRequest, completion: Mapping[str, Any]) -> list[bytes]:
    """A whole completion as the events of a stream, which end with its usage if the request wants it."""
    head = {
        "id": completion.get("id"),
        "object": "chat.completion.chunk",
        "created": completion.get("created"),
        "model": request.task,
    }

    def event(index: int, delta: Mapping[str, Any], finish_reason: str | None) -> bytes:
        choices = [{"index": index, "delta": delta, "finish_reason": finish_reason}]
        return server_sent_event({**head, "choices": choices})

    events = []
    for index, choice in enumerate(completion["choices"]):
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            events.append(event(index, _as_delta(message), None))
            events.append(event(index, {}, choice.get("finish_reason") or "stop"))
    if request.wants_usage and completion.get("usage"):
        events.append(server_sent_event({**head, "choices": [], "usage": completion["usage"]}))
    return [*events, DONE]


def _as_delta(message: Mapping[str, Any]) -> dict[str, Any]:
    """A whole message as the only delta of a stream."""
    delta = {"role": "assistant", **message}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls) if isinstance(call, dict)]
    return delta


def read_json(raw: bytes) -> Any:
    """Read a server's JSON; NaN and infinities, which some write among log-probabilities, become None.

    Raises:
        ValueError: it is not JSON.

    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if b"NaN" not in raw and b"Infinity" not in raw:
            raise
    try:
        return json.loads(raw, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError("nested too deep") from None


def server_sent_event(content: Mapping[str, Any]) -> bytes:
    """Encode one event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"
