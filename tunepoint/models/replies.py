"""Replies of a language model that come with a task, so that it can be measured where the model is not.

A file holds one JSON object a line: first what the replies are of (`Recorded`), then each reply under the
key of the whole request that it answers (`Request.key`). The requests themselves are left out: whoever asks
has them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from tunepoint.errors import ModelError
from tunepoint.files.text import write_text
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Endpoint, Request
from tunepoint.models.recording import read_calls

MAX_MISSING_SHARE = 0.02
"""Of the requests at once. Another processor may round a similarity otherwise and show another example;
more than a few such requests come from other data or another seed."""
MIN_MISSING = 2
"""Requests without a reply that are always let pass."""
NOT_RECORDED = "its reply is not in the recording"


@dataclass(frozen=True)
class Recorded:
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
        self.live = False
        """Whether to ask the model itself, which is opened at the first request."""
        self._open_model, self._opening = open_model, threading.Lock()
        self._opened: Endpoint | None = None
        self.recorded, self._completions = read_replies(path)
        if self.recorded.model != name:
            raise ModelError(f"{path}: holds replies of {self.recorded.model}, not of {name}")

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Answer from the file; see `Endpoint`.

        Raises:
            ModelError: more than a few replies are missing; or it serves, and cannot be opened.

        """
        if self.live:
            self._itself().complete(requests, done, allow)
            return
        missing = 0
        for position, request in enumerate(requests):
            completion = self._completions.get(request.key(self.name))
            missing += completion is None
            done(position, completion or Completion("", Usage(self.name), error=NOT_RECORDED, lasting=False))
        if missing > max(MIN_MISSING, MAX_MISSING_SHARE * len(requests)):
            raise ModelError(
                f"{self.name}: {missing} of {len(requests)} replies are not in {self.path}, which was "
                "recorded for other messages, settings or another seed: take `replies` out of [[models]] to "
                "ask the model itself"
            )

    def _itself(self) -> Endpoint:
        with self._opening:
            self._opened = self._opened or self._open_model()
            return self._opened


def read_replies(path: Path) -> tuple[Recorded, dict[str, Completion]]:
    """Return what a file of replies is of, and the replies by key.

    Raises:
        ModelError: it is missing or damaged; the message names the line.

    """
    number = 1
    try:
        with path.open(encoding="utf-8") as lines:
            first = json.loads(next(lines, ""))
            recorded = Recorded(**{**first, "day": date.fromisoformat(first["day"])})
            completions = {}
            for line in lines:
                number += 1
                row = json.loads(line)
                key = row.pop("key")
                completions[key] = _completion(recorded.model, row)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file of replies; take `replies` out of [[models]]") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path}, line {number}: is no recorded reply ({type(error).__name__}: {error}); restore the "
            "file, or take `replies` out of [[models]]"
        ) from None
    return recorded, completions


def write_replies(path: Path, calls: Path, recorded: Recorded) -> int:
    """Write the replies of one model among the calls of a study; return how many.

    Args:
        path: file to write.
        calls: calls.sqlite of the study.
        recorded: what they are replies of.

    Raises:
        ModelError: the study asked that model nothing.

    """
    rows = sorted(
        ({"key": key, **_content(completion)} for key, completion in _calls_of(calls, recorded.model)),
        key=lambda row: str(row["key"]),
    )
    if not rows:
        raise ModelError(f"{calls}: holds no reply of {recorded.model}")
    lines = [json.dumps(line, ensure_ascii=False) for line in (recorded.content(), *rows)]
    write_text(path, "\n".join(lines) + "\n")
    return len(rows)


def agreement(path: Path, calls: Path) -> Agreement:
    """Compare a recording with the calls of a study that asked the model itself.

    Args:
        path: file of replies.
        calls: calls.sqlite of the study.

    """
    recorded, completions = read_replies(path)
    pairs = [
        (completions[key].text, completion.text)
        for key, completion in _calls_of(calls, recorded.model)
        if key in completions
    ]
    return Agreement(len(pairs), sum(then == now for then, now in pairs))


def _calls_of(calls: Path, model: str) -> Iterator[tuple[str, Completion]]:
    try:
        yield from read_calls(calls, model)
    except sqlite3.DatabaseError as error:
        raise ModelError(f"{calls}: is not a recording of calls ({error})") from None


_DEFAULTS = {field.name: field.default for field in fields(Usage)}


def _content(completion: Completion) -> dict[str, Any]:
    """A reply without what is the same in all of them."""
    usage = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(completion.usage).items()
        if name != "model" and value != _DEFAULTS[name]
    }
    confidence = None if completion.confidence is None else round(completion.confidence, 6)
    rest = {"confidence": confidence, "error": completion.error}
    return {"text": completion.text, **usage, **{name: v for name, v in rest.items() if v is not None}}


def _completion(model: str, row: dict[str, Any]) -> Completion:
    text, confidence, error = row.pop("text"), row.pop("confidence", None), row.pop("error", None)
    return Completion(text, Usage(model, **row), confidence=confidence, error=error)
