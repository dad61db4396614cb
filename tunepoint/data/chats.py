"""Chats as rows: the last answer of each is the target, and what stands before it is the input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.data.table import NumberedRow, Row, Table, counted, python_literal
from tunepoint.errors import DataError
from tunepoint.files.foreign_json import ROLES, decoded

CHAT_COLUMNS = ("messages", "conversations", "conversation", "contents")
"""Columns that hold a chat: OpenAI and trl, ShareGPT, Gemini."""
INPUT, TARGET, SYSTEM, CONVERSATION = "input", "target", "system", "conversation"
"""Columns that a chat becomes: last question, last answer, system message, all before the answer."""
CHAT_TEXTS = (INPUT, TARGET, SYSTEM, CONVERSATION)
PROMPT, COMPLETION = "prompt", "completion"
"""Columns of trl, whose values may be messages."""
_CONTENTS = ("content", "value", "parts", "text")
"""Keys of what a message says: OpenAI's, ShareGPT's, Gemini's."""


class _Unusable(ValueError):
    """Why a chat is no example."""


@dataclass(frozen=True)
class _Message:
    """One message of a chat."""

    role: str
    text: str
    """Of its text parts."""
    calls: tuple[Mapping[str, Any], ...] = ()
    """Names and arguments of the functions that it calls."""
    other_parts: int = 0
    """Images, sounds and files in it."""
    trained_on: bool = True
    """False if the weight of the message is 0."""

    @property
    def said(self) -> str:
        """The text, else the calls as JSON: an object, or a list of several."""
        if self.text or not self.calls:
            return self.text
        calls = self.calls[0] if len(self.calls) == 1 else self.calls
        return json.dumps(calls, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True)
class _Exchange:
    """The last answer of a chat, with what stands before it."""

    before: tuple[_Message, ...]
    """Without system messages."""
    answer: _Message
    after: int
    """Messages behind the answer."""
    system: str

    @property
    def question(self) -> str:
        """The last message of the user."""
        return next(message.text for message in reversed(self.before) if message.role == "user")

    @property
    def conversation(self) -> str:
        """All that stands before the answer; the question alone if it is the only message."""
        if len(self.before) == 1:
            return self.before[0].said
        return "\n".join(f"{message.role}: {message.said}" for message in self.before)


def unfold_chats(path: Path, rows: Sequence[NumberedRow]) -> Table:
    """Return the rows with each chat as columns of text; a table without chats stays as it is.

    Chats become `input`, `target` and `system`; `conversation` too if one of them has several turns. In
    trl's form the texts stand in `prompt` and `completion` instead. Other columns stay.

    Raises:
        DataError: no chat has both a question and an answer.

    """
    column = next((name for name in CHAT_COLUMNS if _holds_chats(name, rows)), None)
    if column is not None:
        return _chat_table(path, rows, column)
    if all(_are_messages(row.get(name)) for _, row in rows for name in (PROMPT, COMPLETION)) and rows:
        return _trl_table(path, rows)
    return Table(tuple(rows))


def _holds_chats(column: str, rows: Sequence[NumberedRow]) -> bool:
    """Whether a column holds lists of messages, perhaps among values that are none."""
    values = [_decoded(row[column]) for _, row in rows if column in row]
    if not values or any(isinstance(value, str) for value in values):
        return False
    if column == "messages" and all(len(row) == 1 for _, row in rows):
        return True  # a file of nothing else: its faults are faults of chats
    return any(_are_messages(value) for value in values)


def _decoded(value: Any) -> Any:
    """Return messages that CSV and Parquet hold as JSON or as Python prints them; anything else as it is."""
    held = decoded(value)
    messages = python_literal(held) if isinstance(held, str) and held.lstrip().startswith("[") else held
    return messages if _are_messages(messages) else value


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    )


def _chat_table(path: Path, rows: Sequence[NumberedRow], column: str) -> Table:
    """Return the rows of chats in a column."""
    exchanges: list[tuple[int, Row, _Exchange]] = []
    left_out: list[tuple[int, str]] = []
    for line, row in rows:
        rest = {key: value for key, value in row.items() if key != column}
        try:
            exchange = _last_exchange(column, _decoded(row.get(column)), rest.get(SYSTEM))
        except _Unusable as fault:
            left_out.append((line, str(fault)))
        else:
            exchanges.append((line, rest, exchange))
    exchanges, calls_alone = _without_calls_among_texts(exchanges)
    left_out = sorted([*left_out, *calls_alone])
    if not exchanges and left_out:
        raise DataError(f"{path}:{left_out[0][0]}: {left_out[0][1]} ({counted(len(rows), 'chat')} read)")
    found_all = [exchange for _, _, exchange in exchanges]
    several = any(len(exchange.before) > 1 for exchange in found_all)
    unfolded = tuple((line, {**rest, **_columns(found, several)}) for line, rest, found in exchanges)
    roles = ((CONVERSATION if several else INPUT,), TARGET)
    rest_of = {line: rest for line, rest, _ in exchanges}
    notes = [*_replaced(path, rest_of, unfolded), *_notes(path, found_all)]
    return Table(unfolded, tuple(notes), tuple(left_out), roles)


def _replaced(path: Path, before: Mapping[int, Row], after: Sequence[NumberedRow]) -> list[str]:
    """Return notes on columns of the file that had the names of those that a chat becomes."""
    names = [
        name
        for name in CHAT_TEXTS
        if any(name in before[line] and before[line][name] != row.get(name) for line, row in after)
    ]
    return [
        f"{path.name}: the column {name!r} now holds text from the chats; rename yours to keep it"
        for name in names
    ]


def _columns(exchange: _Exchange, several: bool) -> dict[str, str]:
    columns = {INPUT: exchange.question, TARGET: exchange.answer.said, SYSTEM: exchange.system}
    return columns | ({CONVERSATION: exchange.conversation} if several else {})


def _last_exchange(column: str, value: Any, system: Any) -> _Exchange:
    """Return the last answer that is trained on, with what stands before it.

    Raises:
        _Unusable: a message has no role or no content, or there is no question or no answer.

    """
    if not isinstance(value, list):
        raise _Unusable(f"{column} is {value!r:.60}; expected a list of role and content")
    messages = [_message(item) for item in value]
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    missing = {"user", "assistant"} - {message.role for message in messages}
    if missing:
        raise _Unusable(f"the chat has no {' and no '.join(sorted(missing))} message")
    trained = [i for i in answers if messages[i].trained_on]
    if not trained:
        raise _Unusable("every answer of the chat has weight 0")
    last = trained[-1]
    before = tuple(message for message in messages[:last] if message.role != "system")
    if not any(message.role == "user" for message in before):
        raise _Unusable("no user message stands before the last answer")
    systems = [message.text for message in messages if message.role == "system"]
    systems = systems or [system if isinstance(system, str) else ""]
    return _Exchange(before, messages[last], len(messages) - last - 1, systems[-1])


def _message(item: Any) -> _Message:
    """Return a message in OpenAI's form (role, content), ShareGPT's (from, value) or Gemini's (role, parts).

    Raises:
        _Unusable: it has none of these.

    """
    message = item if isinstance(item, dict) else {}
    role = message.get("role") or message.get("from")
    content = next((message[key] for key in _CONTENTS if message.get(key) is not None), None)
    if not isinstance(role, str) or not isinstance(content, (str, list, dict, type(None))):
        raise _Unusable("every message needs a role and a text as its content")
    texts, others = _parts(content)
    return _Message(
        role=ROLES.get(role.lower(), role.lower()),
        text="\n".join(texts),
        calls=_calls(message),
        other_parts=others,
        trained_on=message.get("weight") != 0,
    )


def _parts(content: str | list[Any] | dict[str, Any] | None) -> tuple[list[str], int]:
    """Return the texts of a message's content, and how many other parts it has."""
    if isinstance(content, str):
        return [content], 0
    parts = content if isinstance(content, list) else [content] if content else []
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    plain = [text for text in texts if isinstance(text, str)]
    return plain, len(parts) - len(plain)


def _calls(item: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the names and arguments of the functions that a message calls."""
    listed = item.get("tool_calls")
    calls = listed if isinstance(listed, list) else []
    functions = [call.get("function") or call for call in calls if isinstance(call, dict)]
    if item.get("function_call"):
        functions.append(item["function_call"])
    return tuple(
        {"name": function.get("name"), "arguments": _arguments(function.get("arguments"))}
        for function in functions
        if isinstance(function, dict)
    )


def _arguments(written: Any) -> Any:
    """Return the arguments of a call, which most files hold as JSON text."""
    try:
        return json.loads(written) if isinstance(written, str) else written
    except (ValueError, RecursionError):
        return written


def _without_calls_among_texts(
    exchanges: list[tuple[int, Row, _Exchange]],
) -> tuple[list[tuple[int, Row, _Exchange]], list[tuple[int, str]]]:
    """Leave out function calls where other chats end with a text: one task has answers of one kind."""
    if not any(exchange.answer.text for _, _, exchange in exchanges):
        return exchanges, []
    kept = [item for item in exchanges if item[2].answer.text or not item[2].answer.calls]
    return kept, [
        (line, "its answer is a function call, not a text")
        for line, _, exchange in exchanges
        if not exchange.answer.text and exchange.answer.calls
    ]


def _notes(path: Path, exchanges: Sequence[_Exchange]) -> list[str]:
    """Return how the chats of a file were read, where that is not plain."""
    total = counted(len(exchanges), "chat")
    counts = {
        f"have several turns; {CONVERSATION!r} holds all before the last answer, {INPUT!r} only the last "
        "question": sum(len(exchange.before) > 1 for exchange in exchanges),
        "go on after the last answer; what follows it is left out": sum(
            exchange.after > 0 for exchange in exchanges
        ),
        "hold images or other parts; only the text is read": sum(
            any(message.other_parts for message in (*exchange.before, exchange.answer))
            for exchange in exchanges
        ),
        "end with a function call; the target is its name and arguments, as JSON": sum(
            bool(exchange.answer.calls and not exchange.answer.text) for exchange in exchanges
        ),
    }
    systems = {exchange.system for exchange in exchanges}
    if len(systems) > 1:
        counts[
            f"have {len(systems)} different system messages; add {SYSTEM!r} to data.input if they matter"
        ] = len(exchanges)
    return [f"{path.name}: {count} of {total} {what}" for what, count in counts.items() if count]


def _trl_table(path: Path, rows: Sequence[NumberedRow]) -> Table:
    """Return the rows of trl's conversational form, with the texts of its messages."""
    given = dict(rows)
    joined = [
        (
            line,
            {
                "messages": [*row[PROMPT], *row[COMPLETION]],
                **({SYSTEM: row[SYSTEM]} if SYSTEM in row else {}),
            },
        )
        for line, row in rows
    ]
    chats = _chat_table(path, joined, "messages")
    unfolded = tuple((line, {**given[line], **_as_trl(row)}) for line, row in chats.rows)
    note = f"{path.name}: {PROMPT!r} and {COMPLETION!r} hold messages; their texts are read"
    return Table(unfolded, (note, *chats.notes), chats.left_out, ((PROMPT,), COMPLETION))


def _as_trl(row: Row) -> Row:
    return {PROMPT: row.get(CONVERSATION, row[INPUT]), COMPLETION: row[TARGET], SYSTEM: row[SYSTEM]}
