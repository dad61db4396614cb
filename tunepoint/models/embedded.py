"""The embedded encoder, if it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunepoint.errors import ModelError

if TYPE_CHECKING:
    from tunepoint.models.encoder import Encoder

ENCODER_PARAMETERS = 22_713_216
"""Of all-MiniLM-L6-v2."""
CPU_TORCH = " (torch==2.13.0 first, for the small CPU build)"
"""Advice for whoever installs torch: without it pip takes the CUDA build of several gigabytes."""


def installed_encoder() -> Encoder | None:
    """Return the embedded encoder for comparing inputs; None if its packages or weights are missing."""
    try:
        from tunepoint.models.encoder import Encoder

        return Encoder.load()
    except (ImportError, ModelError):
        return None
