"""Text files: errors that name the place in them, and writes that succeed as a whole or change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunepoint.errors import StudyError, TunepointError


@contextmanager
def reading(path: Path, kind: type[TunepointError]) -> Iterator[None]:
    """Raise failures to open or decode a file as `kind`, in a message that names the file and the fix."""
    try:
        yield
    except IsADirectoryError:
        raise kind(f"{path}: expected a file, found a folder; name a file in it") from None
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


def read_text(path: Path, kind: type[TunepointError]) -> str:
    """Return the text of a UTF-8 file without a byte-order mark; failures raise `kind`."""
    with reading(path, kind):
        return path.read_bytes().decode("utf-8-sig")


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it.

    Raises:
        StudyError: the folder cannot be created, perhaps because a file has its name.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from None


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file as a whole, or leave the old one as it is.

    Args:
        path: of the file.
        content: what it holds.
        indent: spaces of a level; None writes one line, ten times as fast.

    Raises:
        StudyError: the disk is full or the folder cannot be written.

    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole, or leave the old one as it is.

    Raises:
        StudyError: the disk is full or the folder cannot be written.

    """
    # A rename within a folder is atomic: a killed process leaves the old file or the new one.
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from None
