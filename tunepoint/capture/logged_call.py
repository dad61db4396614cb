"""One call of a chat model in another tool's log, and the captured request that it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tunepoint.capture.records import CapturedRequest, nanodollars
from tunepoint.files.foreign_json import ROLES, amount, count, decoded, first_of, mapping, number, sequence
from tunepoint.files.left_out import LeftOut

Json = Mapping[str, Any]
LAST_SECONDS = 1e11
"""Times above this are milliseconds: as seconds they would be in the year 5138."""
LAST_MILLISECONDS = 1e14
"""Times above this are microseconds."""
LAST_MICROSECONDS = 1e17
"""Times above this are nanoseconds."""
CACHED = ("cached_tokens", "cache_read")
"""Names of the tokens that a provider read from its cache."""
MAX_SECONDS = 1e9
MAX_USD = 1e9
"""Of a call; more is a mistake."""
MAX_MODEL_CHARACTERS = 300
FAILED = 502
"""Status of a call that failed, where the log does not say."""
NO_ANSWER = "no choices in the reply"
WHOLE_REPLIES = ("content", "text", "completion", "tool_calls")
"""Keys of the objects in which tools put the text of an answer."""
TEXT_PARTS = ("text", "input_text", "output_text")
REDACTED = ("redacted-by-litellm", "__REDACTED__")
"""What LiteLLM and OpenInference write instead of a text."""
TRUNCATED = ("(litellm_truncated", "<truncated due to size exceeding limit>")
"""What LiteLLM and Langfuse write at the place where they cut a text."""


@dataclass(frozen=True)
class Reply:
    """What a model answered: its text, or why there is none."""

    text: str | None
    """None if the log holds no answer."""
    usage: Json = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoggedCall:
    """What the logs of all tools have in common."""

    origin: str
    messages: Any
    """As `chat_messages` reads them."""
    reply: Reply
    identity: Any
    """The tool's own id."""
    at: Any
    """A time as `moment_of` reads it."""
    model: Any = None
    parameters: Json = field(default_factory=dict)
    """Everything else of the request."""
    usage: Json = field(default_factory=dict)
    """Tokens in OpenAI's names, where the reply holds none."""
    seconds: float | None = None
    usd: Any = None
    error: str | None = None
    status: int | None = None
    """HTTP status, where the log has it."""
    user: Any = None

    def captured(self, task: str, undated: float) -> CapturedRequest:
        """Return the call as a captured request, with an id that depends on nothing but its content.

        Args:
            task: that it belongs to.
            undated: the time of a call whose own is missing or cannot be read.

        Raises:
            LeftOut: it has no messages, or a tool removed their text.

        """
        messages = chat_messages(self.messages)
        question = next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1])
        text = text_in(question.get("content"))
        _check_texts([*(text_in(m.get("content")) for m in messages), self.reply.text or ""])
        if not text.strip():
            raise LeftOut("without a text in the question")
        error = self.error or self.reply.error or (NO_ANSWER if self.reply.text is None else None)
        usage = {**self.usage, **{key: value for key, value in self.reply.usage.items() if value is not None}}
        cached = first_of(mapping(first_of(usage, "prompt_tokens_details", "input_tokens_details")), *CACHED)
        model = str(self.model or "unknown")[:MAX_MODEL_CHARACTERS]
        usd = amount(self.usd, MAX_USD)
        return CapturedRequest(
            id=self._id(text, messages, model),
            at=moment_of(self.at) or undated,
            task=task,
            arm=model,
            role="imported",
            model=model,
            input=text,
            output=self.reply.text or "",
            status=200 if error is None else self.status or FAILED,
            error=error,
            messages=messages if len(messages) > 1 else None,
            parameters=dict(self.parameters),
            input_tokens=count(first_of(usage, "prompt_tokens", "input_tokens")),
            cached_tokens=count(cached),
            output_tokens=count(first_of(usage, "completion_tokens", "output_tokens")),
            seconds=None if self.seconds is None else amount(max(0.0, self.seconds), MAX_SECONDS),
            cost_nanousd=None if usd is None else nanodollars(usd),
            user=hashlib.sha256(str(self.user).encode()).hexdigest()[:32] if self.user else None,
            origin=self.origin,
        )

    def _id(self, text: str, messages: Sequence[Json], model: str) -> str:
        """The same for the same entry: a log that is imported twice is stored once."""
        entry = [self.identity, text, self.at]
        if not self.identity:  # then only all of it tells it apart from other calls with this question
            entry += [messages, model, self.reply.text]
        content = json.dumps(entry, default=str, sort_keys=True)
        return f"{self.origin}-{hashlib.sha256(content.encode()).hexdigest()[:40]}"


def _check_texts(texts: Sequence[str]) -> None:
    """Refuse a call whose texts a tool removed or cut: what is left is not what was asked or answered.

    Raises:
        LeftOut: there is such a text.

    """
    for text in texts:
        if text.strip() in REDACTED:
            raise LeftOut("whose texts were redacted: switch the logging of messages on")
        if any(mark in text for mark in TRUNCATED):
            raise LeftOut("whose texts were truncated: raise the limit of the logger")


# -- messages ----------------------------------------------------------------------------------------


def chat_messages(value: Any) -> list[dict[str, Any]]:
    """Return the messages of a request: a list of them, an object that holds one, or a text.

    Raises:
        LeftOut: there are none.

    """
    messages = [_message(message) for message in _flat(value)]
    if not messages:
        raise LeftOut("without messages")
    return messages


def _flat(content: Any) -> Iterator[Any]:
    """Yield the messages in a value; LangChain nests lists of them, other tools put them into objects."""
    if isinstance(content, str):
        written = decoded(content)
        yield from _flat(written) if _is_chat(written) else [content] if content.strip() else []
    elif isinstance(content, list):
        for member in content:
            yield from _flat(member)
    elif isinstance(content, dict):
        inner = None if "role" in content else first_of(content, "messages", "prompt", "input")
        yield from _flat(inner) if inner is not None else [content] if content else []


def _is_chat(value: Any) -> bool:
    """Return whether JSON text holds messages; else it is a text that happens to be JSON."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_chat, value))
    return isinstance(value, dict) and not {"role", "messages"}.isdisjoint(value)


def _message(value: Any) -> dict[str, Any]:
    """Return a message with `role` and `content`; a text alone is the user's."""
    if isinstance(value, str):
        return {"role": "user", "content": value}
    role = value.get("role") or (value.get("type") if value.get("type") in ROLES else None) or "user"
    if not isinstance(role, str) or not {"content", "role"} & value.keys():
        raise LeftOut("whose messages have no role and no content")
    return {**value, "role": ROLES.get(role, role), "content": value.get("content")}


def text_in(content: Any) -> str:
    """Return the text of a message's content, which may be in parts; what is no text is left out."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text for part in content if (text := text_in(part)))
    if isinstance(content, dict) and content.get("type", "text") in TEXT_PARTS:
        return text_in(first_of(content, "text", "content"))
    return ""


# -- replies -----------------------------------------------------------------------------------------


def plain_text(value: Any) -> str:
    """Return a text, or that of parts, which may be written as JSON text."""
    parts = decoded(value)
    typed = isinstance(parts, list) and all(isinstance(part, dict) and "type" in part for part in parts)
    return value if isinstance(value, str) and not (typed and parts) else text_in(parts)


def reply_in(value: Any) -> Reply:
    """Return the answer in a reply, which may be a completion, a message, a list of them, or a text.

    Chat completions, the Responses API and Anthropic's messages are known. Any other object is the answer.
    """
    content = decoded(value)
    if isinstance(value, str) and not _is_reply(content):
        return Reply(value if value.strip() not in ("", "{}", "[]", "null") else None)
    if isinstance(content, list):
        return reply_in(content[-1]) if content else Reply(None)
    if not isinstance(content, dict) or not content:
        return Reply(None)
    usage, fault = mapping(content.get("usage")), error_in(content.get("error"))
    if isinstance(content.get("choices"), list):
        return _chosen(content["choices"], usage, fault)
    if content.get("object") == "response":
        outputs = [mapping(output) for output in sequence(content.get("output"))]
        return Reply(
            "\n".join(filter(None, (text_in(output.get("content")) for output in outputs))), usage, fault
        )
    if isinstance(content.get("message"), dict):
        return Reply(text_in(content["message"].get("content")), usage, fault)
    if not content.keys().isdisjoint(WHOLE_REPLIES):
        return Reply(text_in(first_of(content, *WHOLE_REPLIES)), usage, fault)
    return Reply(None if fault else json.dumps(content, ensure_ascii=False), {}, fault)


def _is_reply(value: Any) -> bool:
    """Return whether JSON text holds a reply; else it is an answer that happens to be JSON."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_reply, value))
    if not isinstance(value, dict):
        return False
    return "choices" in value or value.get("object") == "response" or {"role", "content"} <= value.keys()


def _chosen(choices: Sequence[Any], usage: Json, fault: str | None) -> Reply:
    choice = mapping(choices[0]) if choices else {}
    if not choice:
        return Reply(None, usage, fault)
    message = mapping(choice.get("message"))
    content = message.get("content") if message else choice.get("text")
    return Reply(text_in(content), usage, fault or error_in(choice.get("error")))


def error_in(value: Any) -> str | None:
    """Return the words of an error, which may be an object, a text, or missing."""
    if not value:
        return None
    words = first_of(mapping(value), "message", "error_message", "detail", "code")
    return str(words if words is not None else value)


# -- times -------------------------------------------------------------------------------------------


def moment_of(value: Any) -> float | None:
    """Return a time in seconds since 1970, or None for anything that is no time.

    Seconds, milliseconds, microseconds, nanoseconds, ISO 8601 (without a zone it is UTC), and pairs of
    seconds and nanoseconds are read.
    """
    if isinstance(value, list) and len(value) == 2:
        seconds, nanoseconds = number(value[0]), number(value[1])
        return None if seconds is None or nanoseconds is None else moment_of(seconds + nanoseconds / 1e9)
    instant = number(value)
    if instant is None:
        return _iso_moment(value) if isinstance(value, str) else None
    for limit, divisor in ((LAST_MICROSECONDS, 1e9), (LAST_MILLISECONDS, 1e6), (LAST_SECONDS, 1e3)):
        if instant > limit:
            instant /= divisor
            break
    return instant if 0 < instant <= LAST_SECONDS else None


def _iso_moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def seconds_between(start: Any, end: Any) -> float | None:
    """Return the seconds from one time to another, or None where one is missing."""
    first, last = moment_of(start), moment_of(end)
    return None if first is None or last is None else last - first
