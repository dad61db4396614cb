"""A study at an address of an object store, as in `s3://bucket/studies/mine`: a working copy and its journal.

A study needs a file system: files that grow, locks, a database. So it works in a folder of this machine,
and every two seconds what is new goes to the address: whole files that are replaced there, and parts of those
that only grow. A process that dies loses the work in flight, its machine the last two seconds; the same
command goes on from there, on any machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tunepoint.errors import StudyError
from tunepoint.files.cache import cache_folder
from tunepoint.files.object_store import ObjectStore
from tunepoint.files.text import make_folder, write_json
from tunepoint.models.payments import PAYMENTS
from tunepoint.models.recording import CallRecording
from tunepoint.study.directory import CALLS
from tunepoint.study.manifest import MANIFEST
from tunepoint.study.ownership import OWNER, Ownership

SYNC_SECONDS = 2.0
"""Between two looks at what is new."""
WRITER = ".writer.json"
"""In the working copy: whose journal the address holds, if it is this one."""
TAIL_BYTES = 64
"""By which a file is recognized; numbers of inodes come again."""
MOST_PARTS = 200
"""Of a file, after which it is written whole again: a study of days would leave too many."""
PARTS = ".parts"
"""Ends the name of a folder with the parts of a file, `GENERATION-OFFSET`."""
LOCK = ".journal-lock"
"""In the working copy: held by the process whose it is."""
OWN_FILES = (".lock", LOCK, WRITER, f"{CALLS}-wal", f"{CALLS}-shm")
FIRST, LAST = (PAYMENTS, CALLS), (MANIFEST,)
"""Files that go before the others, so that nothing is paid for twice, and after them, so that the manifest
never tells of what is not there."""


def is_address(out: str) -> bool:
    """Return whether a study directory is an address of an object store."""
    return "://" in out


@dataclass(frozen=True)
class Place:
    """The folder in which a study works."""

    folder: Path
    check: Callable[[], None] = lambda: None
    """Raises where another process has taken the study over."""


@contextmanager
def working_copy(address: str, *, folder: Path | None = None) -> Iterator[Place]:
    """Keep a study at an address while it runs.

    Args:
        address: as `fsspec` reads it.
        folder: the working copy; one in the user's cache if None.

    Raises:
        StudyError: the address cannot be read or written, or another process works on the study.

    """
    journal = Journal(ObjectStore.of(address), folder or _default_folder(address))
    with _locked(journal.folder, address):
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(SYNC_SECONDS):
                with suppress(Exception):  # the network may be gone for a while; the end of the study says so
                    journal.sync()

        thread = threading.Thread(target=follow, name=f"journal of {address}", daemon=True)

        def end() -> None:
            ended.set()
            if thread.is_alive():
                thread.join()
            journal.close()

        try:
            journal.open()
            thread.start()
            yield Place(journal.folder, journal.ownership.raise_lost)
        except BaseException:
            with suppress(StudyError):  # the first error is the one to read
                end()
            raise
        end()


@contextmanager
def _locked(folder: Path, address: str) -> Iterator[None]:
    """Hold the working copy: a second process must not sign for the first."""
    make_folder(folder)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StudyError(f"{address}: another process is working on this study; wait for it") from None
        yield


def _default_folder(address: str) -> Path:
    return cache_folder() / "studies" / hashlib.sha256(address.encode()).hexdigest()[:16]


@dataclass
class _Written:
    """How far a file is at the address."""

    generation: int = 0
    offset: int = 0
    """Bytes of a file that grows, or the number of the last call."""
    stat: tuple[int, int, int] | None = None
    """Inode, size and time of change when it was last looked at."""
    parts: int = 0
    """Of this generation."""
    tail: bytes = b""
    """The last bytes of its last part: a file that grew still has them there."""


@dataclass
class Journal:
    """A working copy, and what of it is at the address."""

    storage: ObjectStore
    folder: Path
    ownership: Ownership = field(init=False)
    _opened: bool = False
    _written: dict[str, _Written] = field(default_factory=dict)
    _first_generation: int = 1
    _names: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.ownership = Ownership(self.storage)

    def open(self) -> None:
        """Take the study over: from the working copy, if it is the newest, else from the address."""
        make_folder(self.folder)
        with self._telling("read"):
            self._names = self.storage.names()
            owner = self.ownership.owner()
        plain = owner is not None and bool(owner.get("plain"))
        if owner is not None and owner["writer"] != self._last_writer():
            self.ownership.refuse_living(owner)
            with self._telling("read"):
                self._restore(plain=plain)
        with self._telling("written"):
            if plain:  # a process that died when it had written them all may have left some
                left = {name for name in self._names if PARTS in name}
                self.storage.remove(left)
                self._names -= left
            generations = [_generation(name) for name in self._names if PARTS in name]
            self._first_generation = 1 + max(generations, default=0)
            write_json(self.folder / WRITER, {"writer": self.ownership.writer})
            self.ownership.take()
            self._opened = True
            self.sync()

    def close(self) -> None:
        """Write what is left as plain files, so that the address holds a study directory.

        Raises:
            StudyError: it cannot be written; the working copy has it all.

        """
        if not self._opened:
            return
        try:
            with self._lock, self._telling("written"):
                self._write_plain()
                self.ownership.note_plain()
                self._drop(self._names - {*self._files(), OWNER})
                self.ownership.end()
        finally:
            self.ownership.stop()

    def sync(self) -> None:
        """Write what is new since the last time."""
        with self._lock:
            # what the manifest tells of must be there, so it is read before the others and written after them
            manifest = self._content(MANIFEST)
            names = [name for name in self._files() if name not in (CALLS, *LAST)]
            names.sort(key=lambda name: name not in FIRST)
            if (self.folder / CALLS).exists():
                self._sync_calls()
            for name in names:
                self._sync_file(name)
            if manifest is not None:
                self._put(MANIFEST, manifest)

    # -- the address -----------------------------------------------------------------------

    def _write(self, name: str, content: bytes) -> None:
        self.ownership.check()
        self.storage.write(name, content)
        self._names.add(name)

    def _put(self, name: str, content: bytes) -> None:
        written = self._written.setdefault(name, _Written())
        digest = int(hashlib.sha256(content).hexdigest()[:12], 16)
        if written.offset != digest or name not in self._names:
            self._write(name, content)
            written.offset = digest

    def _put_part(self, name: str, generation: int, offset: int, content: bytes) -> None:
        self._write(f"{name}{PARTS}/{generation:06d}-{offset:015d}", content)

    def _drop(self, names: set[str]) -> None:
        if names:
            self.ownership.check()
            self.storage.remove(names)
            self._names -= names

    def _older_parts(self, name: str, generation: int) -> set[str]:
        parts = {part for part in self._names if part.startswith(f"{name}{PARTS}/")}
        return {part for part in parts if _generation(part) < generation}

    # -- what is new -----------------------------------------------------------------------

    def _files(self) -> list[str]:
        paths = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".part"]
        names = sorted(path.relative_to(self.folder).as_posix() for path in paths)
        return [name for name in names if name not in OWN_FILES]

    def _content(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self.folder / name).read_bytes()
        return None

    def _sync_file(self, name: str) -> None:
        path = self.folder / name
        written = self._written.setdefault(name, _Written(self._first_generation - 1))
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        stat = (status.st_ino, status.st_size, status.st_mtime_ns)
        if stat == written.stat:
            return
        if path.suffix != ".jsonl":
            content = self._content(name)
            if content is not None:
                self._put(name, content)
                written.stat = stat
            return
        with path.open("rb") as file:
            grown = written.stat is not None and written.stat[0] == stat[0] and written.parts < MOST_PARTS
            if grown:
                file.seek(max(0, written.offset - len(written.tail)))
                grown = file.read(len(written.tail)) == written.tail
            if not grown:  # another file has this name now
                written.generation, written.offset, written.parts = written.generation + 1, 0, 0
            file.seek(written.offset)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]  # a line may be half written
        if content or not grown:
            self._put_part(name, written.generation, written.offset, content)
            written.offset += len(content)
            written.parts += 1
            written.tail = content[-TAIL_BYTES:] if content else b""
        if not grown:
            self._drop(self._older_parts(name, written.generation))
        written.stat = stat

    def _sync_calls(self) -> None:
        """Write the calls that were answered since the last time, as lines of JSON."""
        written = self._written.setdefault(CALLS, _Written(self._first_generation, offset=-1))
        if written.parts >= MOST_PARTS:
            written.generation, written.offset, written.parts = written.generation + 1, -1, 0
        uri = f"{(self.folder / CALLS).resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            query = "select rowid, key, model, request, completion, recorded from calls where rowid > ?"
            rows = database.execute(query, (max(written.offset, 0),)).fetchall()
        first = written.offset < 0
        if rows or first:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            self._put_part(CALLS, written.generation, max(written.offset, 0), lines.encode())
            written.offset = rows[-1][0] if rows else 0
            written.parts += 1
        if first:
            self._drop(self._older_parts(CALLS, written.generation))

    def _write_plain(self) -> None:
        """Write every file whole."""
        names = self._files()
        for name in [name for name in names if name not in (CALLS, *LAST)]:
            content = self._content(name)
            if content is not None:
                self._put(name, content)
        if CALLS in names:
            with TemporaryDirectory() as folder:
                copy = Path(folder) / CALLS
                with closing(sqlite3.connect(self.folder / CALLS)) as database:
                    database.execute("vacuum into ?", (str(copy),))
                self._write(CALLS, copy.read_bytes())
        for name in LAST:
            content = self._content(name)
            if content is not None:
                self._put(name, content)

    # -- taking over -----------------------------------------------------------------------

    def _last_writer(self) -> str | None:
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads((self.folder / WRITER).read_text(encoding="utf-8"))["writer"])
        return None

    def _restore(self, *, plain: bool) -> None:
        """Replace the working copy by what is at the address: parts, unless the plain files are newer."""
        for name in (*self._files(), *OWN_FILES):
            if name != LOCK:
                (self.folder / name).unlink(missing_ok=True)
        parts: dict[str, list[str]] = {}
        for name in sorted(self._names - {OWNER}):
            if PARTS in name and not plain:
                parts.setdefault(name.rpartition(PARTS)[0], []).append(name)
        for name in self._names - {OWNER} - parts.keys():
            if PARTS not in name:
                self._write_here(name, self.storage.read(name) or b"")
        for name, pieces in parts.items():
            newest = max(map(_generation, pieces))
            pieces = [piece for piece in sorted(pieces) if _generation(piece) == newest]
            content = b"".join(self.storage.read(piece) or b"" for piece in pieces)
            if name == CALLS:
                self._restore_calls(content)
            else:
                self._write_here(name, content)

    def _write_here(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _restore_calls(self, lines: bytes) -> None:
        recording = CallRecording(self.folder / CALLS)
        recording.close()
        names = "rowid, key, model, request, completion, recorded"
        with closing(sqlite3.connect(self.folder / CALLS)) as database, database:
            for row in map(json.loads, lines.splitlines()):
                # a key that comes again was set aside between the two, as `CallRecording.set_aside` does
                database.execute("update calls set key = key || '#' || rowid where key = ?", (row[1],))
                database.execute(f"insert into calls ({names}) values (?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Raise errors of the storage as ours, which say where the study is."""
        try:
            yield
        except StudyError:
            raise
        except Exception as error:
            raise StudyError(
                f"{self.storage.address}: cannot be {what} ({type(error).__name__}: {error}). What was "
                f"measured is in {self.folder}; run again when the storage answers"
            ) from None


def _generation(part: str) -> int:
    return int(part.rpartition("/")[2].partition("-")[0])
