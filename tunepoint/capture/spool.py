"""Captured requests on disk, while the store is away."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from io import BufferedRandom
from math import inf
from pathlib import Path
from typing import Any

from tunepoint.capture.records import CanaryValue, CapturedRequest
from tunepoint.files.private import create_private

try:
    import fcntl
except ImportError:  # Windows: files of processes that have ended are left to whoever looks after them
    fcntl = None  # type: ignore[assignment]

ENDING = ".jsonl"
ADOPT_SECONDS = 10.0
"""Between two looks for files that a killed process has left."""


class Spool:
    """A file of this process that keeps requests until the store is back.

    For one thread. A request is safe on disk when `add` returns. A killed process leaves its file, and the
    next one that uses the folder takes it over; the store ignores what it has already.

    Args:
        folder: for the files; made when it is needed.
        max_bytes: of this process's file, at most.

    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.waiting = 0
        """Requests in the file."""
        self._file: BufferedRandom | None = None
        self._path: Path | None = None
        self._taken_to = 0
        """Position in the file up to which requests were taken."""
        self._looked = -inf

    def add(self, requests: Sequence[CapturedRequest]) -> int:
        """Keep requests; return how many of them, from the first on, there was room for.

        Raises:
            OSError: the file cannot be written.

        """
        file = self._opened()
        size, kept = file.seek(0, os.SEEK_END), 0
        for request in requests:
            line = _line(request)
            if size + len(line) > self.max_bytes:
                break
            file.write(line)
            size += len(line)
            kept += 1
        file.flush()
        os.fsync(file.fileno())
        self.waiting += kept
        return kept

    def next(self, count: int) -> list[CapturedRequest]:
        """Return the next requests, at most `count`; the same ones again until `remove`."""
        self._adopt()
        requests = [request for request, _ in self._read(count)]
        if count and self.waiting and not requests:
            self.waiting = 0  # the rest of the file is damaged
        return requests

    def remove(self, count: int) -> None:
        """Forget the next `count` requests: the store has them."""
        ends = [end for _, end in self._read(count)]
        if ends:
            self._taken_to = ends[-1]
            self.waiting = max(0, self.waiting - len(ends))
        if self.waiting == 0 and self._file is not None:
            self._file.truncate(0)
            self._taken_to = 0

    def close(self) -> None:
        """Close the file; delete it if nothing waits in it."""
        if self._file is None or self._path is None:
            return
        self._file.close()
        if self.waiting == 0:
            with suppress(OSError):
                self._path.unlink()
        self._file = None

    def _opened(self) -> BufferedRandom:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._path = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}{ENDING}"
            create_private(self._path)
            self._file = self._path.open("r+b")
            _lock(self._file)
        return self._file

    def _read(self, count: int) -> Iterator[tuple[CapturedRequest, int]]:
        """Yield requests, each with the position where it ends; a damaged line is skipped."""
        if self._file is None:
            return
        self._file.seek(self._taken_to)
        for _ in range(count):
            line = self._file.readline()
            if not line.endswith(b"\n"):
                return
            request = _request(line)
            if request is not None:
                yield request, self._file.tell()

    def _adopt(self) -> None:
        """Take over the files of processes that have ended."""
        if self.waiting or time.monotonic() < self._looked + ADOPT_SECONDS or fcntl is None:
            return
        self._looked = time.monotonic()
        for path in sorted(self.folder.glob(f"*{ENDING}")) if self.folder.is_dir() else ():
            if path == self._path:
                continue
            with suppress(OSError), path.open("r+b") as file:
                if _lock(file):
                    requests = [request for request in map(_request, file) if request is not None]
                    if self.add(requests) == len(requests):
                        path.unlink()


def _lock(file: Any) -> bool:
    """Lock a file for this process until it is closed; whether no other process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _line(request: CapturedRequest) -> bytes:
    # with a plain dict for its parameters, which `asdict` can copy
    content = asdict(replace(request, parameters=dict(request.parameters)))
    return json.dumps({key: value for key, value in content.items() if value is not None}).encode() + b"\n"


def _request(line: bytes) -> CapturedRequest | None:
    """Return the request of a line; None for one that is damaged."""
    with suppress(ValueError, TypeError):
        content = json.loads(line)
        outcomes = tuple(CanaryValue(**value) for value in content.pop("outcomes", ()))
        return CapturedRequest(**content, outcomes=outcomes)
    return None
