"""Replies of a language model that come with a task, so that it can be measured where the model is not.

A file holds one JSON object a line: first what the replies are of (`ReplyOrigin`), then each reply under the
key of the whole request that it answers (`Request.key`). The requests themselves are left out: whoever asks
has them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tunepoint.errors import ModelError
from tunepoint.files.text import write_text
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Endpoint, Request
from tunepoint.models.recording import read_calls

MAX_MISSING_SHARE = 0.02
"""Of all requests so far. Another processor may round a similarity otherwise and show another example;
more than a few such requests come from other data or another seed."""
MIN_MISSING = 2
"""Requests without a reply that are always let pass."""
NOT_RECORDED = "its reply is not in the recording"


@dataclass(frozen=True)
class ReplyOrigin:
    """What replies are of: all that a reader needs to ask again."""

    model: str
    """Its name, as task.toml writes it."""
    title: str
    """The makers' name for it."""
    parameters: int
    weights_sha256: str
    runtime: str
    """What ran it, with its version."""
    processor: str
    """What it ran on, and with how many cores."""
    settings: str
    """How its tokens were chosen."""
    day: date
    """When the last reply was recorded."""

    def content(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**asdict(self), "day": self.day.isoformat()}


@dataclass(frozen=True)
class Agreement:
    """How far replies of today are those of a recording."""

    asked: int
    """Requests that both have answered."""
    same: int
    """Those whose texts are equal."""


class RepliesEndpoint:
    """A model whose replies are read from a file while a study measures it."""

    def __init__(self, name: str, path: Path, open_model: Callable[[], Endpoint]) -> None:
        """Read the file.

        Args:
            name: of the model.
            path: file of its replies.
            open_model: opens the model itself, to serve it.

        Raises:
            ModelError: it is missing, damaged, or holds another model's replies.

        """
        self.name, self.path = name, path
        self.asked = self.missing = 0
        """Requests so far, and those without a reply."""
        self._open_model = open_model
        self._model: Endpoint | None = None
        self.origin, self._completions = read_replies(path)
        if self.origin.model != name:
            raise ModelError(f"{path}: holds replies of {self.origin.model}, not of {name}")

    def go_live(self) -> None:
        """Open the model itself, which answers from now on.

        Raises:
            ModelError: it is not here.
            MissingExtra: what runs it is not installed.

        """
        self._model = self._open_model()

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Answer from the file; see `Endpoint`.

        Raises:
            ModelError: more than a few of all requests so far have no reply.

        """
        if self._model is not None:
            self._model.complete(requests, done, allow)
            return
        for position, request in enumerate(requests):
            completion = self._completions.get(request.key(self.name))
            self.asked += 1
            self.missing += completion is None
            done(position, completion or Completion("", Usage(self.name), error=NOT_RECORDED, lasting=False))
        if self.missing > max(MIN_MISSING, MAX_MISSING_SHARE * self.asked):
            raise ModelError(
                f"{self.name}: {self.missing} of {self.asked} replies are not in {self.path}, which was "
                "recorded for other messages, settings or another seed: take `replies` out of [[models]] to "
                "ask the model itself, with another --out"
            )


class _Reply(BaseModel):
    """A line of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    key: str
    text: str
    error: str | None = None
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    input_tokens: Annotated[int, Field(ge=0)] = 0
    cached_tokens: Annotated[int, Field(ge=0)] = 0
    written_tokens: Annotated[int, Field(ge=0)] = 0
    output_tokens: Annotated[int, Field(ge=0)] = 0
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0
    calls: Annotated[int, Field(ge=1)] = 1
    estimated: bool = False
    seconds: Annotated[float, Field(ge=0)] | None = None
    core_seconds: Annotated[float, Field(ge=0)] | None = None

    def completion(self, model: str) -> Completion:
        """Return what the endpoint completed."""
        usage = self.model_dump(exclude={"key", "text", "error", "confidence"})
        return Completion(self.text, Usage(model, **usage), confidence=self.confidence, error=self.error)


_ORIGIN = TypeAdapter(ReplyOrigin)


def read_replies(path: Path) -> tuple[ReplyOrigin, dict[str, Completion]]:
    """Return what a file of replies is of, and the replies by key.

    Raises:
        ModelError: it is missing or damaged; the message names the line.

    """
    try:
        # not splitlines, which would also end a line at a separator inside a reply
        first, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path}: this file of replies cannot be read ({error}); take `replies` out of [[models]]"
        ) from None
    number, completions = 1, dict[str, Completion]()
    try:
        origin = _ORIGIN.validate_json(first)
        for line in lines:
            number += 1
            reply = _Reply.model_validate_json(line)
            if reply.key in completions:
                raise ValueError("its key stands in the file twice")
            completions[reply.key] = reply.completion(origin.model)
    except ValueError as error:
        why = "; ".join(str(error).splitlines()[:3])
        raise ModelError(
            f"{path}, line {number}: is no recorded reply ({why}); restore the file, or take `replies` out "
            "of [[models]]"
        ) from None
    return origin, completions


def write_replies(path: Path, calls: Path, origin: ReplyOrigin) -> int:
    """Write the replies of one model among the calls of a study; return how many.

    Args:
        path: file to write.
        calls: calls.sqlite of the study.
        origin: what they are replies of; the day is that of the last call.

    Raises:
        ModelError: the study asked that model nothing.

    """
    answered = _calls_of(calls, origin.model)
    if not answered:
        raise ModelError(f"{calls}: holds no reply of {origin.model}")
    rows = sorted((_content(key, call) for key, call, _ in answered), key=lambda row: str(row["key"]))
    recorded = replace(origin, day=max(day for *_, day in answered))
    lines = [json.dumps(line, ensure_ascii=False) for line in (recorded.content(), *rows)]
    write_text(path, "\n".join(lines) + "\n")
    return len(rows)


def agreement(path: Path, calls: Path) -> Agreement:
    """Compare a recording with the calls of a study that asked the model itself.

    Args:
        path: file of replies.
        calls: calls.sqlite of the study.

    """
    origin, completions = read_replies(path)
    pairs = [
        (completions[key].text, call.text)
        for key, call, _ in _calls_of(calls, origin.model)
        if key in completions
    ]
    return Agreement(len(pairs), sum(then == now for then, now in pairs))


def _calls_of(calls: Path, model: str) -> list[tuple[str, Completion, date]]:
    try:
        return list(read_calls(calls, model))
    except sqlite3.DatabaseError as error:
        raise ModelError(f"{calls}: is not a recording of calls ({error})") from None


def _content(key: str, completion: Completion) -> dict[str, Any]:
    """A reply as a line, without what is the same in most of them."""
    fields: dict[str, Any] = asdict(completion)
    usage: dict[str, Any] = fields.pop("usage")
    content = {"key": key, **usage, **fields}
    rounded = {name: round(v, 6) if isinstance(v, float) else v for name, v in content.items()}
    kept = {name: value for name, value in rounded.items() if name in _Reply.model_fields}
    return _Reply.model_validate(kept).model_dump(exclude_defaults=True)
