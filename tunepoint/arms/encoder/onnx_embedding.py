"""The vectors of an encoder by onnxruntime: faster than torch, and checked to be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunepoint.arms.encoder.onnx import open_graph
from tunepoint.arms.encoder.onnx_export import EncoderGraph, export_graph
from tunepoint.errors import ModelError
from tunepoint.models.encoder import MAX_TOKENS, EmbedTokens, Encoder
from tunepoint.models.nearest_label import Vectors

PROBE_TEXTS = ("", "Where is my refund?", "word " * (MAX_TOKENS - 2))
"""Embedded by a new graph and by the encoder, to compare them."""
MAX_PACKED_TOKENS = 512
"""Of one sequence: its attention grows with their square."""
MAX_DIFFERENCE = 1e-4
"""Unit vectors are the same if no coordinate differs by more."""


def onnx_embedder(encoder: Encoder, folder: Path) -> EmbedTokens:
    """Return what computes the encoder's vectors by onnxruntime, with one thread for each call.

    Args:
        encoder: to be replaced.
        folder: where its graph is kept.

    Raises:
        ModelError: the packages are missing, or the vectors of the graph differ from the encoder's.

    """
    path = folder / f"{_digest(encoder)}.onnx"
    if path.exists():
        with suppress(Exception):  # a graph that is damaged or another encoder's is written again
            return _checked_embedder(path, encoder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as unfinished:  # several processes may write at once
        graph = Path(unfinished) / path.name
        export_graph(_PackedGraph(encoder), {}, graph)
        graph.replace(path)
    return _checked_embedder(path, encoder)


def _checked_embedder(path: Path, encoder: Encoder) -> EmbedTokens:
    session = open_graph(path, threads=1)

    def embed_tokens(tokens: Sequence[Sequence[int]]) -> Vectors:
        return np.concatenate([session.run(["vectors"], _packed(part))[0] for part in _parts(tokens)])

    probes = encoder.tokens(PROBE_TEXTS)
    difference = float(np.abs(embed_tokens(probes) - encoder.embed_tokens(probes)).max())
    if not difference < MAX_DIFFERENCE:  # not >=, which a NaN would pass
        raise ModelError(f"{path}: its vectors differ from the encoder's by {difference:.2g}")
    return embed_tokens


def _digest(encoder: Encoder) -> str:
    """Return 24 hex digits of all weights."""
    digest = hashlib.sha256()
    for module in (encoder.embeddings, *encoder.layers):
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def _parts(tokens: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Yield the texts in parts of at most `MAX_PACKED_TOKENS` tokens, or of one text."""
    start = size = 0
    for end, text in enumerate(tokens):
        if end > start and size + len(text) > MAX_PACKED_TOKENS:
            yield tokens[start:end]
            start, size = end, 0
        size += len(text)
    yield tokens[start:]


def _packed(tokens: Sequence[Sequence[int]]) -> dict[str, NDArray[Any]]:
    """Return the inputs of `_PackedGraph` for some texts."""
    lengths = np.array([len(text) for text in tokens])
    texts = np.repeat(np.arange(len(tokens)), lengths)
    weights = np.zeros((len(tokens), len(texts)), np.float32)
    weights[texts, np.arange(len(texts))] = 1 / np.repeat(lengths.astype(np.float32), lengths)
    return {
        "input_ids": np.concatenate([np.asarray(text, np.int64) for text in tokens]),
        "places": np.concatenate([np.arange(length) for length in lengths]),
        "texts": texts,
        "weights": weights,
    }


class _PackedLayer(torch.nn.Module):
    """One layer over one sequence; one product gives queries, keys and values, which is a tenth faster."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention, attention_output = layer.attention.self, layer.attention.output
        parts = (attention.query, attention.key, attention.value)
        # The scale of the attention scores goes into the query's weights once.
        factors = (attention.attention_head_size**-0.5, 1, 1)
        weight, bias = (
            torch.cat([getattr(part, name) * factor for part, factor in zip(parts, factors, strict=True)])
            for name in ("weight", "bias")
        )
        self.heads = attention.num_attention_heads
        self.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)
        self.attention_dense, self.attention_norm = attention_output.dense, attention_output.LayerNorm
        self.up, self.down, self.norm = layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm

    def forward(self, state: Tensor, bias: Tensor) -> Tensor:
        """Return (tokens, width) states of (tokens, width) states and a (1, tokens, tokens) bias."""
        width = state.shape[1]
        mixed = torch.nn.functional.linear(state, self.weight, self.bias)
        query, key, value = mixed.view(-1, 3, self.heads, width // self.heads).permute(1, 2, 0, 3)
        attention = torch.softmax(query @ key.transpose(1, 2) + bias, dim=-1)
        context = (attention @ value).transpose(0, 1).reshape(-1, width)
        state = self.attention_norm(state + self.attention_dense(context))
        wide = torch.nn.functional.gelu(self.up(state))
        return self.norm(state + self.down(wide))  # type: ignore[no-any-return]


class _PackedGraph(EncoderGraph):
    """Several texts as one sequence without padding; attention stays within each text.

    Takes the numbers of all tokens, the position of each in its text, its text's number, and (texts, tokens)
    weights of the means. The input named `places` has the positions.
    """

    input_names = ("input_ids", "places", "texts", "weights")
    output_names = ("vectors",)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.layers = torch.nn.ModuleList(_PackedLayer(layer) for layer in encoder.layers)

    def forward(self, input_ids: Tensor, places: Tensor, texts: Tensor, weights: Tensor) -> Tensor:
        state = self.embeddings(input_ids=input_ids[None], position_ids=places[None])[0]
        other_text = (texts[:, None] != texts[None, :]).float()
        bias = (other_text * torch.finfo(torch.float32).min)[None]
        for layer in self.layers:
            state = layer(state, bias)
        return torch.nn.functional.normalize(weights @ state, dim=-1)

    def example(self) -> tuple[Tensor, ...]:
        ids, weights = torch.ones(7, dtype=torch.long), torch.ones(2, 7) / 4
        return ids, torch.arange(7), torch.tensor([0, 0, 0, 1, 1, 1, 1]), weights

    def axes(self) -> dict[str, dict[int, str]]:
        packed = {name: {0: "tokens"} for name in self.input_names[:3]}
        return {**packed, "weights": {0: "texts", 1: "tokens"}}
