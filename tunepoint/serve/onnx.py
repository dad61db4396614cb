"""Encoders that serve compute their vectors by onnxruntime, where it is installed and gives the same ones."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from tunepoint.arms.contract import FittedArm

GRAPHS = "graphs"
"""In a study's folder: what onnxruntime runs."""
NEEDED = ("onnx", "onnxruntime", "onnxscript")

log = logging.getLogger(__name__)


def use_onnxruntime(fitted: FittedArm, folder: Path) -> int:
    """Let the encoders of an arm read by onnxruntime; how many do.

    The vectors are compared first: an encoder whose graph reads otherwise goes on as it was.
    """
    if any(importlib.util.find_spec(package) is None for package in NEEDED):
        return 0
    from tunepoint.arms.encoder.onnx import reader_of
    from tunepoint.models.encoder import Encoder

    count = 0
    for part in {id(part): part for part in _parts(fitted)}.values():
        if isinstance(part, Encoder) and part.reader is None:
            try:
                part.reader = reader_of(part, folder / GRAPHS)
                count += 1
            except Exception as error:  # a full disk, an exporter of another version: it serves all the same
                log.warning("%s is served without onnxruntime: %s", part.name, error)
    return count


def _parts(fitted: object) -> Iterator[object]:
    """An arm and all that it is made of."""
    yield fitted
    if is_dataclass(fitted):
        for one in fields(fitted):
            yield from _parts(getattr(fitted, one.name))
