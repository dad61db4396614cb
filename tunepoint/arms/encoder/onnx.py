"""Tuned encoders that answer from ONNX files, by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunepoint.arms.contract import Input, LocalFittedArm
from tunepoint.arms.encoder.classifier import Classifier
from tunepoint.arms.encoder.extraction import Extractor
from tunepoint.arms.encoder.windows import Window, first_tokens, padded_shapes
from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.encoder import MAX_TOKENS, Encoder, batch_by_length
from tunepoint.models.nearest_label import softmax

BATCH_SIZE = 32


def open_graph(path: Path, threads: int = 0) -> Any:
    """Open an onnxruntime session on this machine's processor.

    Args:
        path: of the ONNX file.
        threads: of one run; 0 for one on each core.

    Raises:
        ModelError: onnxruntime is missing, or cannot read the file.

    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("running ONNX needs onnxruntime", "onnx") from None
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base class
        raise ModelError(
            f"{path}: onnxruntime cannot read it ({str(error)[:200]}); export it again"
        ) from None


def served_by(path: Path, fitted: Classifier | Extractor) -> LocalFittedArm:
    """Return the arm that answers from a file.

    Args:
        path: what `write_graph` wrote of `fitted`.
        fitted: has the tokenizer, and the labels or fields.

    Raises:
        ModelError: onnxruntime is missing, or cannot read the file.

    """
    session = open_graph(path)
    if isinstance(fitted, Classifier):
        return OnnxClassifier(session, fitted)
    return replace(fitted, tagger=OnnxTags(session, fitted.tagger.encoder, fitted.tagger.sizes))


@dataclass
class OnnxClassifier(LocalFittedArm):
    """A classifier's graph; tokenizer and labels are those of the fitted one."""

    session: Any
    fitted: Classifier

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return the most probable label of each input."""
        tokens = self.fitted.encoder.tokens(inputs)
        odds = np.zeros((len(tokens), len(self.fitted.labels)), np.float32)
        for rows in batch_by_length([len(text) for text in tokens], BATCH_SIZE):
            ids, mask = _padded([tokens[i] for i in rows])
            (logits,) = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
            odds[rows] = softmax(logits)
        labels = [self.fitted.labels[i] for i in odds.argmax(axis=1).tolist()]
        usage = Usage("onnx")
        return [
            Reply(label, label, usage, confidence=float(row.max()))
            for label, row in zip(labels, odds, strict=True)
        ]


@dataclass
class OnnxTags:
    """A tagger's graph."""

    session: Any
    encoder: Encoder
    sizes: tuple[int, ...]

    def __call__(self, windows: Sequence[Window]) -> tuple[Tensor, list[Tensor]]:
        """Return the logits that `Tagger` returns."""
        ids, mask = _padded([window.ids for window in windows])
        shapes = padded_shapes(windows, ids.shape[1]).numpy()
        tags, *choices = self.session.run(None, {"input_ids": ids, "attention_mask": mask, "shapes": shapes})
        logits = [torch.from_numpy(choice) for choice in choices]
        return torch.from_numpy(tags)[first_tokens(windows)], logits


def _padded(tokens: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (batch, tokens) token numbers and their mask."""
    longest = max(len(text) for text in tokens)
    assert longest <= MAX_TOKENS, "the tokenizer cuts inputs, or windows divide them"
    ids = np.zeros((len(tokens), longest), np.int64)
    mask = np.zeros((len(tokens), longest), np.int64)
    for row, text in enumerate(tokens):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return ids, mask
