"""[[prompts]]: prompts that somebody wrote, such as the one in production, sent as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from tunepoint.errors import TaskError
from tunepoint.files.text import read_text
from tunepoint.files.toml import Section
from tunepoint.models.chat import Message

INPUT = "input"
"""Placeholder of the whole input: `{input}`, or `{{input}}` as templates have it."""


class WrittenMessage(Section):
    """A message with placeholders."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class WrittenPrompt(Section):
    """A prompt that somebody wrote."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    messages: Path | tuple[WrittenMessage, ...]
    """A JSON file of chat messages, a text file, or the messages themselves.

    `{input}` stands for the input, and the name of an input column for its part. A text without a
    placeholder is the system message.
    """
    models: tuple[str, ...] | None = None
    """Names of the `[[models]]` that get it; all chat models if missing."""


_MESSAGES = TypeAdapter(tuple[WrittenMessage, ...])


def read_messages(prompt: WrittenPrompt, folder: Path, columns: Sequence[str]) -> tuple[Message, ...]:
    """Return the messages of a prompt, with their placeholders.

    Args:
        prompt: names the file, or holds the messages.
        folder: where relative paths start.
        columns: names of the input columns, which may be placeholders too.

    Raises:
        TaskError: no such file, no chat messages in it, or no placeholder for the input.

    """
    where = f"[[prompts]] {prompt.name}"
    written: tuple[WrittenMessage, ...]
    if isinstance(prompt.messages, Path):
        path = prompt.messages if prompt.messages.is_absolute() else folder / prompt.messages
        if not path.exists():
            raise TaskError(f"{where}: {path}: no such file; give JSON with messages, or a text file")
        text = read_text(path, TaskError)
        is_json = path.suffix == ".json"
        written = _from_json(f"{where}: {path}", text) if is_json else _from_text(text, columns)
    else:
        written = prompt.messages
    messages = tuple(Message(message.role, message.content) for message in written)
    if not messages:
        raise TaskError(f"{where}: holds no messages")
    if any(_placeholder(columns).search(message.content) for message in messages):
        return messages
    if all(message.role == "system" for message in messages):
        return (*messages, Message("user", f"{{{INPUT}}}"))
    names = ", ".join(f"{{{name}}}" for name in (INPUT, *columns))
    raise TaskError(f"{where}: no message says where the input goes; write one of {names} there")


def _from_text(text: str, columns: Sequence[str]) -> tuple[WrittenMessage, ...]:
    role: Literal["system", "user"] = "user" if _placeholder(columns).search(text) else "system"
    return (WrittenMessage(role=role, content=text.strip()),) if text.strip() else ()


def _from_json(where: str, text: str) -> tuple[WrittenMessage, ...]:
    """Messages of a list, or of the body of a call."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where}: not JSON: {error}") from None
    if isinstance(content, Mapping):
        content = content.get("messages")
    if not isinstance(content, list):
        raise TaskError(f'{where}: no list of messages, as in [{{"role": "system", "content": "..."}}]')
    known = [
        {key: entry.get(key) for key in ("role", "content")} if isinstance(entry, Mapping) else entry
        for entry in content
    ]
    try:
        return _MESSAGES.validate_python(known)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise TaskError(f"{where}: message {place}: {fault['msg'].lower()}, got {fault['input']!r}") from None


def fill(messages: Sequence[Message], text: str, columns: Sequence[str]) -> tuple[Message, ...]:
    """Return the messages with an input in place of their placeholders.

    Args:
        messages: with placeholders.
        text: the input; several columns stand in it as `name: value` lines.
        columns: their names; one column is the text itself.

    """
    values = {**_parts(text, columns), INPUT: text}  # a column of that name is the whole input too
    pattern = _placeholder(columns)

    def value(match: re.Match[str]) -> str:
        return values[match["name"] or match["in_template"]]

    return tuple(Message(message.role, pattern.sub(value, message.content)) for message in messages)


def opening_of(messages: Sequence[Message], columns: Sequence[str]) -> str:
    """Return the words that a search may change: the first message, up to its first placeholder."""
    return _parted(messages[0].content, columns)[0]


def with_opening(messages: Sequence[Message], columns: Sequence[str], text: str) -> tuple[Message, ...]:
    """Return the messages with other words in that place; what looks like a placeholder there is none."""
    first, *others = messages
    text = _placeholder(columns).sub(lambda match: match["name"] or match["in_template"], text)
    _, rest = _parted(first.content, columns)
    return (Message(first.role, text + rest), *others)


def _parted(content: str, columns: Sequence[str]) -> tuple[str, str]:
    """A message in front of its first placeholder, and from the space before that on."""
    match = _placeholder(columns).search(content)
    opening = content[: match.start()].rstrip() if match else content
    return opening, content[len(opening) :]


def _placeholder(columns: Sequence[str]) -> re.Pattern[str]:
    """Matches placeholders only: prompts hold other braces, such as those of JSON."""
    names = "|".join(map(re.escape, sorted({INPUT, *columns}, key=len, reverse=True)))
    return re.compile(rf"\{{\{{\s*(?P<in_template>{names})\s*\}}\}}|\{{(?P<name>{names})\}}")


def _parts(text: str, columns: Sequence[str]) -> dict[str, str]:
    """Column -> its part of an input, "" where it was empty."""
    if len(columns) == 1:
        return {columns[0]: text}
    parts = dict.fromkeys(columns, "")
    starts: list[tuple[str, int, int]] = []
    at = 0
    for name in columns:
        begins = re.compile(rf"^{re.escape(name)}: ", re.MULTILINE)
        # the input begins with its first column that is not empty
        match = begins.search(text, at) if starts else begins.match(text)
        if match is not None:
            starts.append((name, match.start(), match.end()))
            at = match.end()
    ends = [start for _, start, _ in starts[1:]] + [len(text)]
    for (name, _, begin), end in zip(starts, ends, strict=True):
        parts[name] = text[begin:end].removesuffix("\n")
    return parts
