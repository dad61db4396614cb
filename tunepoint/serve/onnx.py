"""Switches the encoders of an arm that serves to ONNX Runtime, where it is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from tunepoint.arms.contract import FittedArm

GRAPHS = "graphs"
"""Folder of the exported graphs in a study."""
REQUIRED_PACKAGES = ("onnx", "onnxruntime", "onnxscript")

log = logging.getLogger(__name__)


def use_onnxruntime(fitted: FittedArm, folder: Path) -> int:
    """Run an arm's encoders on ONNX Runtime; return how many.

    An encoder whose exported graph gives other vectors keeps running on torch.

    Args:
        folder: of the study, where the graphs are kept.

    """
    if any(importlib.util.find_spec(package) is None for package in REQUIRED_PACKAGES):
        return 0
    from tunepoint.arms.encoder.onnx_embedding import onnx_embedder
    from tunepoint.models.encoder import Encoder

    count = 0
    # By identity: the parts of an arm may share an encoder, which is exported once.
    for part in {id(part): part for part in _parts(fitted)}.values():
        if isinstance(part, Encoder) and part.runtime is None:
            try:
                part.runtime = onnx_embedder(part, folder / GRAPHS)
                count += 1
            except Exception as error:  # a full disk, another exporter: torch serves just as well
                log.warning("%s is served without onnxruntime: %s", part.name, error)
    return count


def _parts(fitted: object) -> Iterator[object]:
    """An arm and, recursively, the fields that it is made of."""
    yield fitted
    if is_dataclass(fitted):
        for field in fields(fitted):
            yield from _parts(getattr(fitted, field.name))
