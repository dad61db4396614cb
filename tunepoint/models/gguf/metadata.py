"""What a GGUF file says of itself: context, size of its state, whether it has a chat template.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Its reference reader takes 20 s to
unpack the vocabulary of a small model; here only what is needed is unpacked, and the rest is skipped.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value in the file -> its `struct` format."""
STRING, ARRAY = 8, 9
MAX_ENTRIES = 1_000_000
"""Keys or tensors from which on a file is taken for damaged."""
BYTES_PER_NUMBER = 2
"""Of the state that attention keeps, in half precision."""


@dataclass(frozen=True)
class FileFacts:
    """What is known of a model file before it is loaded."""

    file_bytes: int
    architecture: str
    title: str
    context: int
    """Tokens that the model was trained for."""
    parameters: int
    """Numbers in its tensors."""
    state_bytes: int
    """Memory for each token of the context."""


def read_facts(name: str, path: Path) -> FileFacts:
    """Read the head of a GGUF file.

    Args:
        name: of the model, for errors.
        path: of the file.

    Raises:
        ModelError: it cannot be read, is no GGUF file, or holds no language model that chats.

    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            values, parameters = _Head(content).read()
    except OSError as error:
        raise ModelError(f"{name}: {path} cannot be read ({error.strerror})") from None
    except (ValueError, struct.error, IndexError, UnicodeDecodeError) as error:
        raise ModelError(f"{name}: {path} is no GGUF file, or damaged ({error})") from None
    architecture = str(values.get("general.architecture"))
    if not values.get("tokenizer.chat_template"):
        raise ModelError(f"{name}: {path} has no chat template, so it is no model that chats")

    def number(key: str, default: int | None = None) -> int:
        value = values.get(f"{architecture}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise ModelError(f"{name}: {path} does not say its {key.replace('_', ' ')} ({architecture})")
        return value

    heads = number("attention.head_count")
    width = number("attention.key_length", number("embedding_length") // heads)
    layers, shared = number("block_count"), number("attention.head_count_kv", heads)
    return FileFacts(
        size,
        architecture,
        str(values.get("general.name", path.name)),
        number("context_length"),
        parameters,
        2 * layers * shared * width * BYTES_PER_NUMBER,
    )


class _Head:
    """Reads the head of a file from its start."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.at = 0

    def read(self) -> tuple[dict[str, Any], int]:
        """Return the values by key, arrays left out, and the numbers in all tensors."""
        if self.content[:4] != MAGIC:
            raise ValueError("it does not begin with GGUF")
        self.at = 4
        version, tensors, keys = self._unpack("I"), self._unpack("Q"), self._unpack("Q")
        if version not in VERSIONS:
            raise ValueError(f"version {version}")
        if max(tensors, keys) > MAX_ENTRIES:
            raise ValueError(f"{tensors} tensors and {keys} keys")
        values = {self._string(): self._value(self._unpack("I")) for _ in range(keys)}
        return values, sum(self._tensor() for _ in range(tensors))

    def _unpack(self, form: str) -> Any:
        size = struct.calcsize("<" + form)
        (value,) = struct.unpack_from("<" + form, self.content, self.at)
        self.at += size
        return value

    def _string(self) -> str:
        size = self._unpack("Q")
        self._skip(size)
        return self.content[self.at - size : self.at].decode()

    def _skip(self, size: int) -> None:
        if size > len(self.content) - self.at:
            raise ValueError("it ends too early")
        self.at += size

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._unpack(_format(kind))
        item, count = self._unpack("I"), self._unpack("Q")
        if item == STRING:
            for _ in range(count):
                self._skip(self._unpack("Q"))
        else:
            self._skip(count * struct.calcsize("<" + _format(item)))
        return None

    def _tensor(self) -> int:
        """Return the numbers in the next tensor."""
        self._string()
        elements = 1
        for _ in range(self._unpack("I")):
            elements *= self._unpack("Q")
        self._skip(12)  # its type and its place
        return elements


def _format(kind: int) -> str:
    if kind not in NUMBERS:
        raise ValueError(f"unknown type {kind}")
    return NUMBERS[kind]
