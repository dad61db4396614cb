"""Finished training runs of encoder arms: kept in memory, and on disk as one safetensors file each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunepoint.errors import ModelError

METADATA_KEY = "tunepoint"
"""Of the JSON in the file's metadata."""


class Saveable(Protocol):
    """A fitted arm that can be written to a file."""

    def save(self, path: Path) -> None:
        """Write the arm to one file, whole or not at all."""
        ...


Fitted = TypeVar("Fitted", bound=Saveable)


def run_file(name: str) -> str:
    """Return the name of the file that keeps a run."""
    return f"{name}.safetensors"


def load_or_train(
    name: str,
    runs: dict[str, Fitted],
    folder: Path | None,
    load: Callable[[Path], Fitted],
    train: Callable[[], Fitted],
) -> Fitted:
    """Return a run: from memory, else from disk, else trained.

    Args:
        name: tells runs with other weights apart.
        runs: those in memory, by name; the run is added.
        folder: where finished runs are kept; in memory alone if None.
        load: reads a run from its file.
        train: trains it.

    """
    if name in runs:
        return runs[name]
    path = folder / run_file(name) if folder else None
    if path is not None and path.exists():
        runs[name] = load(path)
        return runs[name]
    runs[name] = train()
    if path is not None:
        runs[name].save(path)
    return runs[name]


def write_run(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write weights, and facts as JSON in their metadata, to one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, unfinished, metadata={METADATA_KEY: json.dumps(facts)})
    unfinished.replace(path)


def read_run(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_run` wrote.

    Args:
        path: of the file.
        kind: of arm that is expected, for the message.

    Raises:
        ModelError: the file is damaged, or another program's.

    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
        facts: dict[str, Any] = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: damaged ({error}); delete it and run again") from None
    if METADATA_KEY not in metadata:
        raise ModelError(f"{path}: not {kind} saved by tunepoint; delete it and run again")
    return tensors, facts
