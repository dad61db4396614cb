"""The folder of model files: each under its SHA-256, put there whole and checked."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunepoint.errors import ModelError
from tunepoint.files.cache import cache_folder
from tunepoint.files.text import make_folder, write_json
from tunepoint.models.gguf.catalog import KnownModel

FOLDER_VARIABLE = "TUNEPOINT_MODELS"
"""Environment variable with another folder for model files."""
CHUNK_BYTES = 1 << 20
Progress = Callable[[int, int], None]
"""(bytes done, bytes in all)."""


def silent(done: int, total: int) -> None:
    """Show no progress."""


class ModelStore:
    """Model files on this machine."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use a folder; by default that of the environment, else the user's cache."""
        named = os.environ.get(FOLDER_VARIABLE)
        self.folder = folder or (Path(named) if named else cache_folder() / "models")

    def path(self, model: KnownModel) -> Path:
        """Return where a model's file is, or will be."""
        return self.folder / f"{model.sha256}.gguf"

    def partial(self, model: KnownModel) -> Path:
        """Return where a model's file grows until it is whole."""
        return self.folder / f"{model.sha256}.partial"

    def parts(self, model: KnownModel) -> Path:
        """Return where it is noted which parts an unfinished file has."""
        return self.folder / f"{model.sha256}.parts.json"

    def has(self, model: KnownModel) -> bool:
        """Return whether a model's file is here; `find` checks its content."""
        return self.path(model).exists()

    def find(self, model: KnownModel) -> Path:
        """Return a model's file, checked since it was last written.

        Raises:
            ModelError: it is not here, or is not the published one.

        """
        path = self.path(model)
        if not path.exists():
            raise ModelError(
                f"embedded:{model.name} is not on this machine: run `tunepoint models pull {model.name}` "
                f"({model.bytes / 1e6:,.0f} MB, once)"
            )
        if self._stamp(path) != _read_stamp(self._stamp_path(path)):
            self.verify(model)
        return path

    def verify(self, model: KnownModel, progress: Progress = silent) -> None:
        """Compute the hash of a model's file.

        Raises:
            ModelError: the file is missing, or has another hash.

        """
        path = self.path(model)
        if not path.exists():
            raise ModelError(f"embedded:{model.name} is not in {self.folder}")
        check_hash(path, model, progress)
        write_json(self._stamp_path(path), self._stamp(path))

    def adopt(self, model: KnownModel, file: Path, progress: Progress = silent) -> Path:
        """Check a file's hash and move it to its place, atomically.

        Raises:
            ModelError: it has another hash; the file is removed.

        """
        try:
            check_hash(file, model, progress)
        except ModelError:
            file.unlink(missing_ok=True)
            raise
        path = self.path(model)
        file.replace(path)
        write_json(self._stamp_path(path), self._stamp(path))
        return path

    def remove(self, model: KnownModel) -> int:
        """Delete a model's file and what is left of an unfinished one; return the bytes freed."""
        path = self.path(model)
        lock = self.folder / f"{model.sha256}.lock"
        files = (path, self._stamp_path(path), self.partial(model), self.parts(model), lock)
        freed = sum(file.stat().st_size for file in files if file.exists())
        for file in files:
            file.unlink(missing_ok=True)
        return freed

    def make(self) -> None:
        """Create the folder."""
        make_folder(self.folder)

    @contextmanager
    def locked(self, model: KnownModel) -> Iterator[None]:
        """Wait until no other process brings this model; the system frees the lock of a killed one."""
        with (self.folder / f"{model.sha256}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _stamp(path: Path) -> dict[str, int]:
        """What changes when a file is written: a hash of gigabytes at every start would take seconds."""
        state = path.stat()
        return {"bytes": state.st_size, "modified_ns": state.st_mtime_ns}

    @staticmethod
    def _stamp_path(path: Path) -> Path:
        return path.with_suffix(".json")


def check_hash(path: Path, model: KnownModel, progress: Progress = silent) -> None:
    """Compare a file's SHA-256 with the published one.

    Raises:
        ModelError: it is another.

    """
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(done, model.bytes)
    if digest.hexdigest() != model.sha256:
        raise ModelError(
            f"{path}: is not {model.title}. Its SHA-256 is {digest.hexdigest()}, the published file's is "
            f"{model.sha256} ({done:,} and {model.bytes:,} bytes)"
        )


def _read_stamp(path: Path) -> object:
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None
