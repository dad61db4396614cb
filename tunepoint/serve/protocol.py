"""What goes over the wire: chat requests in, completions, streams and errors out, in OpenAI's form."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tunepoint.errors import TunepointError

PASSED = ("messages", "model", "stream", "stream_options", "user", "safety_identifier", "metadata")
"""Keys of a request that are not kept as its parameters."""
DONE = b"data: [DONE]\n\n"


class RequestError(TunepointError):
    """A request that is answered with an error."""

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


@dataclass(slots=True)
class ChatRequest:
    """A chat request, checked."""

    id: str
    task: str
    body: dict[str, Any]
    """As it came; an arm sends its own copy on."""
    input: str
    """The text of the last user message: what a task's example has as its input."""
    stream: bool
    wants_usage: bool
    user: str | None
    """The application's name for its user; never stored as it is."""
    slice: str | None = None
    at: float = 0.0
    """Seconds since 1970."""

    @property
    def conversation(self) -> list[Any] | None:
        """All messages, where there is more than the input; None where there is not."""
        messages: list[Any] = self.body["messages"]
        return None if len(messages) == 1 and messages[0].get("content") == self.input else messages

    @property
    def parameters(self) -> dict[str, Any]:
        """What else the request asks for."""
        return {key: value for key, value in self.body.items() if key not in PASSED}


def read_request(body: bytes) -> ChatRequest:
    """Read a chat request.

    Raises:
        Refused: not UTF-8, not JSON, or a field that is missing or of the wrong form; names it.

    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(400, f"the body is a JSON {_kind(content)}, an object is expected")
    task = content.get("model")
    if not isinstance(task, str) or not task:
        raise RequestError(400, "model: the name of a task is expected", param="model")
    messages = content.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages: a list of at least one message is expected", param="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RequestError(
                400, f"messages[{place}]: an object with role and content is expected", param="messages"
            )
    stream = content.get("stream")
    if stream not in (None, True, False):
        raise RequestError(400, f"stream: true or false is expected, got {_kind(stream)}", param="stream")
    options = content.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise RequestError(400, "stream_options: an object is expected", param="stream_options")
    user = content.get("user") or content.get("safety_identifier")
    if user is not None and not isinstance(user, str):
        raise RequestError(400, f"user: a text is expected, got {_kind(user)}", param="user")
    wants = bool(options and options.get("include_usage"))
    return ChatRequest(
        f"req_{uuid.uuid4().hex}", task, content, _input(messages), bool(stream), wants, user, at=time.time()
    )


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")


def _input(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last user message; of the last message if there is none."""
    asked = next((one for one in reversed(messages) if one["role"] == "user"), messages[-1])
    return text_of(asked.get("content"))


def text_of(content: Any) -> str:
    """The text of a message's content, which may be in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


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


def usage_of(given: int, output: int) -> dict[str, int]:
    """Usage as OpenAI's clients read it."""
    return {"prompt_tokens": given, "completion_tokens": output, "total_tokens": given + output}


def chunks(request: ChatRequest, whole: Mapping[str, Any]) -> list[bytes]:
    """A whole completion as a stream: its role, its text or tool calls, its end, its usage if asked for."""
    head = {
        "id": whole.get("id"),
        "object": "chat.completion.chunk",
        "created": whole.get("created"),
        "model": request.task,
    }
    choice = (whole.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    delta: dict[str, Any] = {"role": "assistant", "content": message.get("content")}
    if message.get("tool_calls"):
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(message["tool_calls"])]

    def event(delta: Mapping[str, Any], reason: str | None) -> bytes:
        return sse({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    events = [event(delta, None), event({}, choice.get("finish_reason") or "stop")]
    if request.wants_usage:
        events.append(sse({**head, "choices": [], "usage": whole.get("usage")}))
    return [*events, DONE]


def sse(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"


@dataclass(slots=True)
class Streamed:
    """What a stream of events held."""

    text: str = ""
    usage: Mapping[str, Any] | None = None
    finish: str | None = None
    tool_calls: bool = False
    error: str | None = None


def read_events(raw: bytes) -> Streamed:
    """Put a whole stream together again; what is not JSON is passed over."""
    found, parts = Streamed(), []
    for line in raw.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        payload = line[5:].strip()
        if payload in (b"", b"[DONE]"):
            continue
        try:
            event = orjson.loads(payload)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(event, dict):
            continue
        if isinstance(event.get("usage"), dict):
            found.usage = event["usage"]
        if event.get("error"):
            found.error = str(event["error"])[:300]
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index", 0):
                continue
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                continue
            if isinstance(delta.get("content"), str):
                parts.append(delta["content"])
            found.tool_calls |= bool(delta.get("tool_calls"))
            found.finish = choice.get("finish_reason") or found.finish
    found.text = "".join(parts)
    return found
