"""Record and replay: no call is paid for twice, and a recorded study needs no network."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunepoint.errors import DataError, ModelError, StudyError
from tunepoint.files.text import reading
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Endpoint, Request

_TABLES = """
create table if not exists calls (
  key text primary key,         -- SHA-256 of model and request
  model text not null,
  request text not null,
  completion text not null,
  recorded text not null default current_timestamp
)
"""


class CallRecording:
    """Completions on disk by the whole request that they answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._store = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._store.execute("pragma journal_mode = wal")
            self._store.execute("pragma synchronous = normal")
            self._store.execute(_TABLES)
        except sqlite3.DatabaseError as error:
            raise StudyError(f"{path}: not a recording that can be used ({error}); move it away") from None

    def find(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The completions that were recorded under these keys."""
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), 500):
            some = list(keys[start : start + 500])
            marks = ",".join("?" * len(some))
            with self._lock:
                rows = self._store.execute(f"select key, completion from calls where key in ({marks})", some)
                found.update((key, _completion(text)) for key, text in rows.fetchall())
        return found

    def keep(self, key: str, model: str, request: Request, completion: Completion) -> None:
        """Write a completion down before anybody sees it.

        Raises:
            StudyError: the disk is full or the file cannot be written.

        """
        row = (key, model, json.dumps(asdict(request)), json.dumps(asdict(completion)))
        try:
            with self._lock:
                self._store.execute("insert or ignore into calls values (?, ?, ?, ?, current_timestamp)", row)
        except sqlite3.Error as error:
            raise StudyError(f"{self.path}: cannot be written ({error}); make room and run again") from None

    def __len__(self) -> int:
        with self._lock:
            return int(self._store.execute("select count(*) from calls").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._store.close()


def _completion(text: str) -> Completion:
    content: dict[str, Any] = json.loads(text)
    return Completion(**{**content, "usage": Usage(**content["usage"])})


class RecordedEndpoint:
    """An endpoint whose completions are kept, and not asked for again.

    Faults of the moment are not kept. Without an endpoint it only replays.
    """

    def __init__(self, name: str, recording: CallRecording, endpoint: Endpoint | None) -> None:
        self.name = name
        self.recording = recording
        self.endpoint = endpoint
        self.asked = 0
        """Calls that went out."""
        self.live = False
        """True asks the endpoint every time and keeps nothing: serving, not measuring."""

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests, the recorded ones without a call."""
        if self.live and self.endpoint is not None:
            self.endpoint.complete(requests, done, allow)
            return
        keys = [request.key(self.name) for request in requests]
        found = self.recording.find(list(dict.fromkeys(keys)))
        positions: dict[str, list[int]] = defaultdict(list)
        for position, key in enumerate(keys):
            if key in found:
                done(position, found[key])
            else:
                positions[key].append(position)
        if not positions:
            return
        if self.endpoint is None:
            raise ModelError(
                f"{self.name}: {len(positions)} of {len(requests)} calls are not in "
                f"{self.recording.path}; replaying needs all of them: run without --replay"
            )
        missing = list(positions)
        asked = [requests[positions[key][0]] for key in missing]

        def keep(index: int, completion: Completion) -> None:
            key = missing[index]
            self.asked += 1
            if completion.lasting:
                self.recording.keep(key, self.name, asked[index], completion)
            for position in positions[key]:
                done(position, completion)

        self.endpoint.complete(asked, keep, allow)


# -- recordings that another tool made -----------------------------------------------------


class _Row(BaseModel):
    """One line of a log: what was asked, what was answered, what it took."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)
    item: str | None = None
    input: str | None = None
    output: str
    input_tokens: Annotated[int, Field(ge=0)] = 0
    cached_tokens: Annotated[int, Field(ge=0)] = 0
    output_tokens: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class ProductionLog:
    """Outputs that a system in production gave, by input or by the id of an example."""

    name: str
    outputs: Mapping[str, Completion]

    def of(self, item: str, text: str) -> Completion | None:
        """The output for an example, looked up by its id, then by its input."""
        return self.outputs.get(item) or self.outputs.get(text.strip())


def read_production_log(path: Path, name: str) -> ProductionLog:
    """Read a JSONL log of `output` with `item` or `input`, and tokens and seconds if known.

    Raises:
        DataError: no such file, or a line that is not such an object; the message names it.

    """
    outputs: dict[str, Completion] = {}
    for number, text in _lines(path):
        try:
            row = _Row.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"]) or "the line"
            raise DataError(f"{path}:{number}: {key}: {fault['msg'].lower()}") from None
        where = row.item if row.item is not None else row.input
        if where is None:
            raise DataError(f"{path}:{number}: neither item nor input; one of them says what was answered")
        usage = Usage(name, row.input_tokens, row.cached_tokens, row.output_tokens, seconds=row.seconds)
        outputs[where.strip()] = Completion(row.output, usage)
    if not outputs:
        raise DataError(f"{path}: no lines in it; each needs output, and item or input")
    return ProductionLog(name, outputs)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with reading(path, DataError):
        raw = path.read_bytes()
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield number, line
