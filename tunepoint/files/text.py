"""Files read with errors that name the place, and written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunepoint.errors import StudyError, TunepointError


@contextmanager
def reading(path: Path, kind: type[TunepointError]) -> Iterator[None]:
    """Turn what can go wrong with opening and decoding a file into an error that names it."""
    try:
        yield
    except IsADirectoryError:
        raise kind(f"{path}: is a folder, a file is expected; name the file in it") from None
    except FileNotFoundError:
        raise kind(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise kind(
            f"{path}:{line}: byte {error.object[error.start]:#04x} is not UTF-8; "
            "save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        ) from None
    except OSError as error:
        raise kind(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def text_of(path: Path, kind: type[TunepointError]) -> str:
    """The text of a UTF-8 file, a byte-order mark left out, or one of our errors."""
    with reading(path, kind):
        return path.read_bytes().decode("utf-8-sig")


def make_folder(folder: Path) -> None:
    """Create a folder and those above it.

    Raises:
        StudyError: it cannot be created; a file may stand in its place.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        StudyError: the disk is full or the folder cannot be written.

    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StudyError: the disk is full or the folder cannot be written.

    """
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from None
