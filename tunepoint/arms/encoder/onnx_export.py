"""Tuned encoders as ONNX files."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from tunepoint.arms.encoder.classifier import Classifier
from tunepoint.arms.encoder.extraction import Extractor
from tunepoint.arms.encoder.tagging import Tagger
from tunepoint.errors import MissingExtra
from tunepoint.models.encoder import Encoder

BATCH_AXES = {0: "batch", 1: "tokens"}


def write_graph(fitted: Classifier | Extractor, path: Path) -> None:
    """Write one ONNX file, the labels or fields and the tokenizer in its metadata.

    A classifier takes `input_ids` and `attention_mask`, both (batch, tokens), and gives `logits`
    (batch, labels). An extractor takes the `shapes` of words as well, and gives `tags` (batch, tokens,
    tags) and for each choice `choice_N` (batch, values).

    Raises:
        ModelError: the packages that write it are missing.

    """
    if isinstance(fitted, Classifier):
        tokenizer = fitted.encoder.tokenizer.to_str()
        metadata = {"labels": json.dumps(fitted.labels), "tokenizer": tokenizer}
        export_graph(_ClassifierGraph(fitted), metadata, path)
    else:
        tokenizer = fitted.tagger.encoder.tokenizer.to_str()
        metadata = {"fields": json.dumps(fitted.fields.document()), "tokenizer": tokenizer}
        export_graph(_TaggerGraph(fitted), metadata, path)


def export_graph(graph: EncoderGraph, metadata: Mapping[str, str], path: Path) -> None:
    """Write a graph to one ONNX file.

    Raises:
        MissingExtra: the packages that write it are missing.

    """
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                graph.example(),
                dynamo=True,
                verbose=False,
                input_names=list(graph.input_names),
                output_names=list(graph.output_names),
                dynamic_shapes=graph.axes(),
            )
    except ImportError as error:
        raise MissingExtra(f"writing ONNX needs {error.name}", "onnx") from None
    assert program is not None, "without a file name the exporter returns what it made"
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # paths of source files on this machine
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, whose warnings are about its own code."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


class EncoderGraph(torch.nn.Module):
    """An encoder's layers, with the inputs and outputs of a file."""

    input_names: tuple[str, ...] = ("input_ids", "attention_mask")
    output_names: tuple[str, ...] = ("logits",)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.embeddings = encoder.embeddings
        self.layers = torch.nn.ModuleList(encoder.layers)
        self.eval()

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs for the exporter to trace."""
        # Each is a tensor of its own: the exporter would merge two inputs that are the same object.
        return tuple(torch.ones(2, 7, dtype=torch.long) for _ in self.input_names)

    def axes(self) -> dict[str, dict[int, str]]:
        """Return the names of the axes of each input whose size may vary."""
        return dict.fromkeys(self.input_names, BATCH_AXES)

    def states(self, ids: Tensor, mask: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (batch, tokens, width) states after the last layer, and their (batch, width) means.

        Args:
            ids: (batch, tokens) token numbers.
            mask: (batch, tokens), 1 for a token and 0 for padding.
            added: (batch, tokens, width), added to the states before the first layer.

        """
        state = self.embeddings(input_ids=ids)
        if added is not None:
            state = state + added
        bias = ((1 - mask) * torch.finfo(torch.float32).min)[:, None, None, :]
        for layer in self.layers:
            state = layer(state, bias)
        return state, (state * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


class _ClassifierGraph(EncoderGraph):
    def __init__(self, fitted: Classifier) -> None:
        super().__init__(fitted.encoder)
        self.head = torch.nn.Linear(fitted.encoder.width, len(fitted.labels))
        self.head.weight = torch.nn.Parameter(torch.from_numpy(fitted.weight), requires_grad=False)
        self.head.bias = torch.nn.Parameter(torch.from_numpy(fitted.bias), requires_grad=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        _, mean = self.states(input_ids, attention_mask.float())
        logits: Tensor = self.head(torch.nn.functional.normalize(mean, dim=-1))
        return logits


class _TaggerGraph(EncoderGraph):
    input_names = ("input_ids", "attention_mask", "shapes")

    def __init__(self, fitted: Extractor) -> None:
        assert isinstance(fitted.tagger, Tagger), "an exported graph is a file already"
        super().__init__(fitted.tagger.encoder)
        tagger = fitted.tagger
        self.shapes, self.tags, self.choices = tagger.shapes, tagger.tags, tagger.choices
        self.output_names = ("tags", *(f"choice_{number}" for number in range(len(tagger.choices))))
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, shapes: Tensor) -> tuple[Tensor, ...]:
        state, mean = self.states(input_ids, attention_mask.float(), self.shapes(shapes))
        return self.tags(state), *(head(mean) for head in self.choices)
