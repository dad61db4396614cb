"""Captured requests on disk, while the store is away."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields, replace
from io import FileIO
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
UNREADABLE = ".unreadable"
"""Ending of a file that held no request when it was taken over."""
ADOPT_SECONDS = 10.0
"""Between two looks for files that a killed process has left."""


class Spool:
    """A file of this process that keeps requests until the store is back.

    For one thread. A request is safe on disk when `add` returns. A killed process leaves its file, and the
    next one that uses the folder takes it over; the store ignores what it has already. Writes are not
    buffered: what a full disk refuses is not tried again behind the back of whoever added it.

    Args:
        folder: for the files; made when it is needed.
        max_bytes: of this process's file, at most.

    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.waiting = 0
        """Requests in the file."""
        self._file: FileIO | None = None
        self._path: Path | None = None
        self._taken_to = 0
        """Position in the file up to which requests were taken."""
        self._looked = -inf

    def add(self, requests: Sequence[CapturedRequest]) -> int:
        """Keep requests; return how many of them, from the first on, there was room for.

        Raises:
            OSError: the file cannot be written; none of them is kept.

        """
        file = self._opened()
        size, lines = file.seek(0, os.SEEK_END), list[bytes]()
        for line in map(_line, requests):
            if size + sum(map(len, lines)) + len(line) > self.max_bytes:
                break
            lines.append(line)
        try:
            _write(file, b"".join(lines))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)  # half of them would be written again later, and counted once
            raise
        self.waiting += len(lines)
        return len(lines)

    def next(self, count: int) -> list[CapturedRequest]:
        """Return the next requests, at most `count`; the same ones again until `remove`.

        Raises:
            OSError: the file cannot be read.

        """
        self._adopt()
        requests, _ = self._read(count)
        if count and self.waiting and not requests:
            self.waiting = 0  # the rest of the file is damaged
        return requests

    def remove(self, count: int) -> None:
        """Forget the next `count` requests: the store has them.

        Raises:
            OSError: the file cannot be read.

        """
        requests, end = self._read(count)
        self._taken_to = end
        self.waiting = max(0, self.waiting - len(requests))
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

    def _opened(self) -> FileIO:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._path = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}{ENDING}"
            create_private(self._path)
            self._file = FileIO(self._path, "r+")
            _lock(self._file)
        return self._file

    def _read(self, count: int) -> tuple[list[CapturedRequest], int]:
        """Return requests, and the position where the last one ends; a damaged line is skipped."""
        requests: list[CapturedRequest] = []
        if self._file is None or self._path is None or not self.waiting:
            return requests, self._taken_to
        with self._path.open("rb") as file:
            file.seek(self._taken_to)
            while len(requests) < count and (line := file.readline()).endswith(b"\n"):
                request = _request(line)
                requests += [] if request is None else [request]
            return requests, file.tell()

    def _adopt(self) -> None:
        """Take over a file that a process has left which has ended: it becomes this one's."""
        if self.waiting or time.monotonic() < self._looked + ADOPT_SECONDS or fcntl is None:
            return
        self._looked = time.monotonic()
        for path in sorted(self.folder.glob(f"*{ENDING}")):
            if path == self._path:
                continue
            with suppress(OSError):
                if self._take(path):
                    self._looked = -inf  # there may be another one
                    return

    def _take(self, path: Path) -> bool:
        """Go on with a file that nobody has; whether there are requests in it."""
        with ExitStack() as opened:
            file = opened.enter_context(FileIO(path, "r+"))
            if not _lock(file):
                return False
            with path.open("rb") as lines:
                whole = [line for line in lines if line.endswith(b"\n")]
            waiting = sum(_request(line) is not None for line in whole)
            if not waiting:
                # kept for whoever can read it
                path.rename(path.with_suffix(UNREADABLE)) if path.stat().st_size else path.unlink()
                return False
            file.truncate(sum(map(len, whole)))  # a kill may leave half a line
            self.close()
            self._file, self._path, self._taken_to, self.waiting = file, path, 0, waiting
            opened.pop_all()
            return True


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


def _write(file: FileIO, content: bytes) -> None:
    """Write all of it: a system may take a part at a time."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) or 0 :]


def _request(line: bytes) -> CapturedRequest | None:
    """Return the request of a line; None for one that is damaged. What a later version adds is ignored."""
    with suppress(ValueError, TypeError):
        content = json.loads(line)
        outcomes = tuple(CanaryValue(**_known(CanaryValue, value)) for value in content.pop("outcomes", ()))
        return CapturedRequest(**_known(CapturedRequest, content), outcomes=outcomes)
    return None


def _known(kind: type[Any], content: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in content.items() if name in names}
