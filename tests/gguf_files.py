"""Small GGUF files, and wheels that hold them in parts, for tests."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunepoint.models.gguf.catalog import KNOWN_MODELS, KnownModel, Packages

CHAT_TEMPLATE = "{{ messages }}"
ABOUT: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "llama.context_length": 512,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "é"],
    "tokenizer.ggml.scores": [0.5, 1.5],
    "tokenizer.chat_template": CHAT_TEMPLATE,
}


def gguf_bytes(about: dict[str, Any] = ABOUT, tensors: tuple[tuple[int, ...], ...] = ((8, 4), (3,))) -> bytes:
    """The head of a GGUF file, version 3."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(about))]
    for key, value in about.items():
        parts += [_string(key), _typed(value)]
    for number, shape in enumerate(tensors):
        parts += [_string(f"t{number}"), struct.pack("<I", len(shape))]
        parts += [struct.pack(f"<{len(shape)}Q", *shape), struct.pack("<IQ", 0, 0)]
    return b"".join(parts)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _typed(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    kind = 8 if isinstance(value[0], str) else 6
    items = [_string(item) if kind == 8 else struct.pack("<f", item) for item in value]
    return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(items)


def known(content: bytes, packages: int = 3) -> KnownModel:
    """A model that Tunepoint would know by this content."""
    names = tuple(f"model-part{i}" for i in range(1, packages + 1))
    return replace(
        KNOWN_MODELS["smollm2-135m"],
        name="tiny",
        title="Tiny",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        repository="owner/tiny",
        revision="main",
        file="tiny.gguf",
        packages=Packages(names, "1.0"),
    )


def write_wheels(folder: Path, content: bytes, model: KnownModel) -> list[Path]:
    """The wheels of a model's packages, a part of the content in each."""
    count = len(model.packages.names)
    size = -(-len(content) // count)
    wheels = []
    for number, name in enumerate(model.packages.names):
        stem = name.replace("-", "_")
        wheels.append(folder / f"{stem}-1.0-py3-none-any.whl")
        with zipfile.ZipFile(wheels[-1], "w") as wheel:
            wheel.writestr(f"{stem}/__init__.py", "raise SystemExit('a part was imported')")
            part = content[number * size : (number + 1) * size]
            wheel.writestr(f"{stem}/data/part{number + 1:02}.bin", part)
    return wheels
