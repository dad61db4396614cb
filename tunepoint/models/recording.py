"""Record and replay: no call is paid for twice, and a recorded study needs no network."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from tunepoint.errors import ModelError, StudyError
from tunepoint.files.private import create_private
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Endpoint, Forgetful, Request

_TABLES = """
create table if not exists calls (
  key text primary key,         -- SHA-256 of model and request
  model text not null,
  request text not null,
  completion text not null,
  recorded text not null default current_timestamp
)
"""
MAX_KEYS_PER_QUERY = 500
"""Old SQLite versions allow 999 parameters in a statement."""


class CallRecording:
    """A SQLite file of completions, each under the key of the whole request that it answers."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            StudyError: the file is not a SQLite database.

        """
        self.path = path
        self._lock = threading.Lock()
        with suppress(OSError):  # the database says why it cannot be opened
            create_private(path)
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            # A killed process loses nothing; a power cut may cost the last calls, never the file.
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = normal")
            self._database.execute(_TABLES)
        except sqlite3.DatabaseError as error:
            raise StudyError(f"{path}: is not a recording of calls ({error}); move it away") from None

    def find(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Return the completions recorded under these keys."""
        completions: dict[str, Completion] = {}
        for start in range(0, len(keys), MAX_KEYS_PER_QUERY):
            batch = list(keys[start : start + MAX_KEYS_PER_QUERY])
            marks = ",".join("?" * len(batch))
            query = f"select key, completion from calls where key in ({marks})"
            with self._lock:
                rows = self._database.execute(query, batch).fetchall()
            completions.update((key, _completion(text)) for key, text in rows)
        return completions

    def keep(self, key: str, model: str, request: Request, completion: Completion) -> None:
        """Write a completion down, before anybody uses it.

        Raises:
            StudyError: the disk is full or the file cannot be written.

        """
        row = (key, model, json.dumps(asdict(request)), json.dumps(asdict(completion)))
        insert = "insert or ignore into calls values (?, ?, ?, ?, current_timestamp)"
        try:
            with self._lock:
                self._database.execute(insert, row)
        except sqlite3.Error as error:
            raise StudyError(f"{self.path}: cannot be written ({error}); make room and run again") from None

    def set_aside(self, keys: Sequence[str]) -> None:
        """Keep completions under names that no request has: they were paid for, and are not used again."""
        with self._lock:
            self._database.executemany(
                "update calls set key = key || '#' || rowid where key = ?", [(key,) for key in keys]
            )

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("select count(*) from calls").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _completion(text: str) -> Completion:
    content: dict[str, Any] = json.loads(text)
    return Completion(**{**content, "usage": Usage(**content["usage"])})


def read_calls(path: Path, model: str) -> Iterator[tuple[str, Completion, date]]:
    """Return key, completion and day of every call of a model in a recording that stays as it is."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        query = "select key, completion, date(recorded) from calls where model = ?"
        for key, text, day in database.execute(query, (model,)):
            yield key, _completion(text), date.fromisoformat(day)


class RecordedEndpoint:
    """An endpoint whose completions are recorded, and called for once only.

    Transient faults are not recorded. Without an endpoint it only replays.
    """

    def __init__(
        self,
        name: str,
        recording: CallRecording,
        endpoint: Endpoint | None,
        *,
        useless: Callable[[Completion], bool] | None = None,
    ) -> None:
        """Wrap an endpoint.

        Args:
            name: of the model.
            recording: where its completions are.
            endpoint: answers what is not recorded.
            useless: says which recorded completions are asked for once more; none if None.

        """
        self.name = name
        self._useless = useless
        self._asked_again: set[str] = set()
        self.recording = recording
        self.endpoint = endpoint
        self.calls = 0
        """Calls that the endpoint answered; the others were in the recording."""
        self.renewing = False
        """Whether what is recorded is set aside and asked for once more."""
        self.closed = False
        """Whether a call that is not recorded is an error, although it could be made."""
        self.live = False
        """Whether to call every time and record nothing: serving, not measuring."""

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests, the recorded ones without a call."""
        if self.live and self.endpoint is not None:
            self.endpoint.complete(requests, done, allow)
            return
        keys = [request.key(self.name) for request in requests]
        recorded = self._recorded(list(dict.fromkeys(keys)))
        positions: dict[str, list[int]] = defaultdict(list)
        """Key -> the requests that one call will answer."""
        for position, key in enumerate(keys):
            if key in recorded:
                done(position, recorded[key])
            else:
                positions[key].append(position)
        if not positions:
            return
        if self.closed:
            raise StudyError(
                f"{self.name}: opening the study would make {len(positions)} calls that it has not recorded; "
                "run `tunepoint run` on it once, which asks before it pays"
            )
        if self.endpoint is None:
            raise ModelError(
                f"{self.name}: {len(positions)} of {len(requests)} calls are not in "
                f"{self.recording.path}; replaying needs all of them: run without --replay"
            )
        missing = list(positions)
        calls = [requests[positions[key][0]] for key in missing]

        def keep(index: int, completion: Completion) -> None:
            key = missing[index]
            self.calls += 1
            if completion.lasting:
                self.recording.keep(key, self.name, calls[index], completion)
            for position in positions[key]:
                done(position, completion)

        self.endpoint.complete(calls, keep, allow)

    def _recorded(self, keys: Sequence[str]) -> dict[str, Completion]:
        """What is recorded under these keys, but for what is useless and was not asked for again."""
        recorded = self.recording.find(keys)
        if (self._useless is not None or self.renewing) and self.endpoint is not None:
            useless = self._useless or (lambda completion: True)
            again = {key for key, completion in recorded.items() if self.renewing or useless(completion)}
            again -= self._asked_again
            self.recording.set_aside(sorted(again))
            if isinstance(self.endpoint, Forgetful):
                self.endpoint.forget(again)
            self._asked_again |= again
            recorded = {key: completion for key, completion in recorded.items() if key not in again}
        return recorded
