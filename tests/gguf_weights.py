"""The real weights that tests use, from the cache, the hub or the package index."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from tunepoint.errors import ModelError
from tunepoint.models.gguf.catalog import known_model
from tunepoint.models.gguf.pull import pull, sources
from tunepoint.models.gguf.store import ModelStore

SMOLLM2 = "embedded:smollm2-135m"


def smollm2() -> Path:
    """The file of SmolLM2, with 135 million parameters; skips the test where no source has it."""
    return pulled(SMOLLM2)


def pulled(name: str) -> Path:
    """The file of an embedded model; skips the test where no source has it."""
    pytest.importorskip("xllamacpp")
    store = ModelStore()
    store.make()
    try:
        with FileLock(store.folder / "tests.lock"):  # two processes of a run may both need it
            return pull(known_model(name), store, sources())
    except ModelError as error:
        pytest.skip(f"no weights of {name} here: {error}")
