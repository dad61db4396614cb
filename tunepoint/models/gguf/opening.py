"""A model in a GGUF file by its name: `embedded:NAME`, whose hash is known, or `gguf:PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.errors import ModelError
from tunepoint.models.gguf.catalog import known_model
from tunepoint.models.gguf.store import ModelStore
from tunepoint.models.providers import EMBEDDED_PREFIX, GGUF_PREFIX

if TYPE_CHECKING:
    from tunepoint.models.gguf.endpoint import GgufEndpoint


def gguf_path(name: str, folder: Path) -> Path:
    """Return the file behind a name.

    Args:
        name: `embedded:NAME` or `gguf:PATH`.
        folder: where a relative path starts.

    Raises:
        ModelError: the name is unknown, or the file is not here or not the published one.

    """
    if name.startswith(EMBEDDED_PREFIX):
        return ModelStore().find(known_model(name))
    path = folder / Path(name.removeprefix(GGUF_PREFIX)).expanduser()
    if not path.is_file():
        raise ModelError(f"{name}: there is no file {path}")
    return path


def open_gguf(name: str, folder: Path, processors: int | None = None) -> GgufEndpoint:
    """Open a model; its weights are loaded at the first request.

    Args:
        name: `embedded:NAME` or `gguf:PATH`.
        folder: where a relative path starts.
        processors: cores to use; all that this process may use if None.

    Raises:
        ModelError: the file is missing, altered, or no model that chats.
        MissingExtra: llama.cpp is not installed.

    """
    from tunepoint.models.gguf.endpoint import GgufEndpoint

    return GgufEndpoint(name, gguf_path(name, folder), processors=processors)
