"""JSON that other programs wrote: read with bounds, line by line where it can be, and looked up safely.

Its numbers are finite and its texts can be encoded: NaN, infinities and halves of surrogate pairs, which
JSON cannot hold but many programs write, become null and `?`. Its nesting is bounded, so code that walks
through it may recurse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunepoint.errors import TunepointError
from tunepoint.files.text import reading

MAX_DOCUMENT_BYTES = 256 * 2**20
"""Of one JSON document, or of one line of JSON Lines: parsed, it takes several times as much memory."""
MAX_DEPTH = 100
"""Levels of lists and objects in each other."""
MAX_INTEGER_DIGITS = 40
"""As many as an id of 128 bits has; longer numbers become null."""
MAX_COUNT = 2**31 - 1
"""The largest count that a column of a capture store holds."""
MAX_NUMBER_CHARACTERS = 400
"""Of a number that is written as text."""
SPLIT = "split it, or export it as JSON Lines, which is read line by line"


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else None


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=lambda _: None)


# -- reading -----------------------------------------------------------------------------------------


def json_values(path: Path, kind: type[TunepointError]) -> Iterator[tuple[str, Any]]:
    """Yield the values of a file with their places: one JSON document, or each line of JSON Lines.

    Lines are read one at a time. A document is read whole, up to `MAX_DOCUMENT_BYTES`.

    Raises:
        TunepointError: of the given kind: the file cannot be read, is too large, or holds something else
            than JSON.

    """
    with reading(path, kind), path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_DOCUMENT_BYTES + 1), b""), start=1):
            _check_size(len(line), f"{path}:{number}", kind, SPLIT)
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                value = parse_json(text, path, kind, line=number)
            except kind:
                if number > 1 or not file.read(1):
                    raise
                break  # the first line is no JSON of its own: the lines make one document
            yield f"{path}:{number}", value
        else:
            return
    yield str(path), read_json(path, kind)


def read_json(path: Path, kind: type[TunepointError], *, advice: str = "", too_large: str = SPLIT) -> Any:
    """Return the JSON document in a file.

    Args:
        path: of the file.
        kind: of the errors.
        advice: what to do if the file is not JSON, for the message.
        too_large: what to do if the file is larger than is allowed, for the message.

    Raises:
        TunepointError: of the given kind: the file cannot be read, is too large, or is not JSON.

    """
    with reading(path, kind), path.open("rb") as file:
        content = file.read(MAX_DOCUMENT_BYTES + 1)
    _check_size(len(content), str(path), kind, too_large)
    return parse_json(content.removeprefix(b"\xef\xbb\xbf"), path, kind, advice=advice)


def _check_size(size: int, place: str, kind: type[TunepointError], advice: str) -> None:
    if size > MAX_DOCUMENT_BYTES:
        raise kind(f"{place}: larger than {MAX_DOCUMENT_BYTES // 2**20} MiB; {advice}")


def parse_json(
    content: bytes, path: Path | str, kind: type[TunepointError], *, line: int = 1, advice: str = ""
) -> Any:
    """Return the value of a JSON text.

    Args:
        content: the text, in UTF-8.
        path: of the file, for messages.
        kind: of the errors.
        line: of the file on which the text begins.
        advice: what to do if the text cannot be read, for the message.

    Raises:
        TunepointError: of the given kind: the text is not UTF-8, not JSON, or nested too deeply.

    """
    try:
        return _parse(content.decode())
    except UnicodeDecodeError as error:
        line += content[: error.start].count(b"\n")
        fault = f"byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        fault = f"not JSON ({error.msg} at column {error.colno})"
    except RecursionError:
        fault = f"lists and objects are nested more than {MAX_DEPTH} deep; correct or remove them"
    raise kind(f"{path}:{line}: {fault}{advice and '; '}{advice}")


def _parse(text: str) -> Any:
    """Return the value of a JSON text; raise what the `json` module raises."""
    value = _DECODER.decode(text)
    if _deeper_than(value, MAX_DEPTH):
        raise RecursionError
    return _encodable(value) if "\\u" in text else value


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        if not layer:
            return False
        nodes = [node for node in layer if isinstance(node, dict | list)]
        layer = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
    return any(isinstance(node, dict | list) for node in layer)


def _encodable(value: Any) -> Any:
    """Return a value in which `?` stands for halves of surrogate pairs, which no file and no model takes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode(errors="replace"))
    return value


# -- looking up --------------------------------------------------------------------------------------


ROLES = {
    "human": "user",
    "ai": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Other names of a chat's roles: LangChain's, Google's, ShareGPT's."""


def decoded(value: Any) -> Any:
    """Return the value of a text that holds a JSON list or object; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        with suppress(json.JSONDecodeError, RecursionError):
            return _parse(value)
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, written as one or as JSON text; an empty one for anything else."""
    content = decoded(value)
    return content if isinstance(content, dict) else {}


def sequence(value: Any) -> Sequence[Any]:
    """Return a list, written as one or as JSON text; an empty one for anything else."""
    content = decoded(value)
    return content if isinstance(content, list) else ()


def first_of(row: Mapping[str, Any], *keys: str) -> Any:
    """Return the first value that is not null under several names of the same field."""
    return next((row[key] for key in keys if row.get(key) is not None), None)


def number(value: Any) -> float | None:
    """Return a finite number, written as one or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > MAX_NUMBER_CHARACTERS:
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def amount(value: Any, most: float) -> float | None:
    """Return a number of dollars or seconds from 0 to `most`; None for anything else."""
    result = number(value)
    return result if result is not None and 0 <= result <= most else None


def count(value: Any) -> int | None:
    """Return a count, rounded if it is a fraction; None for anything else."""
    result = amount(value, MAX_COUNT)
    return None if result is None else round(result)
