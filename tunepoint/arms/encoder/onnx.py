"""Tuned encoders as ONNX graphs, and a check that they answer the same."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunepoint.arms.contract import Input, LocalFittedArm
from tunepoint.arms.encoder.classifier import Classifier
from tunepoint.arms.encoder.extraction import Extractor
from tunepoint.arms.encoder.tagging import Tagger, Window, first_tokens, padded_shapes
from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.encoder import MAX_TOKENS, Encoder, Reader, Vectors, by_length, softmax

BATCH = 32
AXES = {0: "batch", 1: "tokens"}


def write_graph(fitted: Classifier | Extractor, path: Path) -> None:
    """Write one ONNX file, the labels or fields and the tokenizer in its metadata.

    A classifier takes `input_ids` and `attention_mask`, both (batch, tokens), and gives `logits`
    (batch, labels). An extractor takes the `shapes` of words as well, and gives `tags` (batch, tokens,
    tags) and for each choice `choice_N` (batch, values).

    Raises:
        ModelError: the packages that write it are missing.

    """
    _write(*_graph(fitted), path)


def _write(graph: _Graph, facts: dict[str, str], path: Path) -> None:
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                graph.example(),
                dynamo=True,
                verbose=False,
                input_names=list(graph.takes),
                output_names=list(graph.gives),
                dynamic_shapes=graph.axes(),
            )
    except ImportError as error:
        raise MissingExtra(f"writing ONNX needs {error.name}", "onnx") from None
    assert program is not None, "without a file name the exporter returns what it made"
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # places in the files of this machine
    program.model.metadata_props.update(facts)
    program.save(str(path), external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the exporter to itself, and no lines of its log."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _graph(fitted: Classifier | Extractor) -> tuple[_Graph, dict[str, str]]:
    if isinstance(fitted, Classifier):
        tokenizer = fitted.encoder.tokenizer.to_str()
        return _Classifying(fitted), {"labels": json.dumps(fitted.labels), "tokenizer": tokenizer}
    fields = json.dumps(fitted.fields.document())
    return _Tagging(fitted), {"fields": fields, "tokenizer": fitted.tagger.encoder.tokenizer.to_str()}


class _Graph(torch.nn.Module):
    """An encoder's layers as the exporter follows them."""

    takes: tuple[str, ...] = ("input_ids", "attention_mask")
    gives: tuple[str, ...] = ("logits",)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.embeddings = encoder.embeddings
        self.layers = torch.nn.ModuleList(encoder.layers)
        self.eval()

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to follow; each is a tensor of its own, or the exporter takes two names for one input."""
        return tuple(torch.ones(2, 7, dtype=torch.long) for _ in self.takes)

    def axes(self) -> dict[str, dict[int, str]]:
        """Names of the axes whose size may be another one."""
        return dict.fromkeys(self.takes, AXES)

    def states(self, ids: Tensor, mask: Tensor, more: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(batch, tokens, width) last states, and their (batch, width) mean."""
        state = self.embeddings(input_ids=ids)
        if more is not None:
            state = state + more
        bias = ((1 - mask) * torch.finfo(torch.float32).min)[:, None, None, :]
        for layer in self.layers:
            state = layer(state, bias)
        return state, (state * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


class _Layer(torch.nn.Module):
    """One layer over one sequence; queries, keys and values come of one product, which is a tenth faster."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        own, inner, outer = layer.attention.self, layer.attention.output, layer.output
        parts, scale = (own.query, own.key, own.value), own.attention_head_size**-0.5
        weight, bias = (
            torch.cat([getattr(part, name) * by for part, by in zip(parts, (scale, 1, 1), strict=True)])
            for name in ("weight", "bias")
        )
        self.heads = own.num_attention_heads
        self.weight, self.bias = (torch.nn.Parameter(one.detach(), False) for one in (weight, bias))
        self.joining, self.joined = inner.dense, inner.LayerNorm
        self.widening, self.narrowing, self.narrowed = layer.intermediate.dense, outer.dense, outer.LayerNorm

    def forward(self, state: Tensor, bias: Tensor) -> Tensor:
        """(tokens, width) states of (tokens, width) states and a (1, tokens, tokens) bias."""
        width = state.shape[1]
        mixed = torch.nn.functional.linear(state, self.weight, self.bias)
        query, key, value = mixed.view(-1, 3, self.heads, width // self.heads).permute(1, 2, 0, 3)
        seen = torch.softmax(query @ key.transpose(1, 2) + bias, dim=-1)
        state = self.joined(state + self.joining((seen @ value).transpose(0, 1).reshape(-1, width)))
        wide = torch.nn.functional.gelu(self.widening(state))
        return self.narrowed(state + self.narrowing(wide))  # type: ignore[no-any-return]


class _Reading(_Graph):
    """Several texts as one sequence, none of which sees the others: nothing is padded.

    Takes the numbers of all tokens, the place of each in its text, its text's number, and (texts, tokens)
    weights that make the means.
    """

    takes = ("input_ids", "places", "texts", "weights")
    gives = ("vectors",)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.layers = torch.nn.ModuleList(_Layer(layer) for layer in encoder.layers)

    def forward(self, input_ids: Tensor, places: Tensor, texts: Tensor, weights: Tensor) -> Tensor:
        state = self.embeddings(input_ids=input_ids[None], position_ids=places[None])[0]
        apart = (texts[:, None] != texts[None, :]).float()
        bias = (apart * torch.finfo(torch.float32).min)[None]
        for layer in self.layers:
            state = layer(state, bias)
        return torch.nn.functional.normalize(weights @ state, dim=-1)

    def example(self) -> tuple[Tensor, ...]:
        ids, weights = torch.ones(7, dtype=torch.long), torch.ones(2, 7) / 4
        return ids, torch.arange(7), torch.tensor([0, 0, 0, 1, 1, 1, 1]), weights

    def axes(self) -> dict[str, dict[int, str]]:
        one = {0: "tokens"}
        return {**dict.fromkeys(self.takes[:3], one), "weights": {0: "texts", 1: "tokens"}}


class _Classifying(_Graph):
    def __init__(self, fitted: Classifier) -> None:
        super().__init__(fitted.encoder)
        self.head = torch.nn.Linear(fitted.encoder.width, len(fitted.labels))
        self.head.weight = torch.nn.Parameter(torch.from_numpy(fitted.weight), requires_grad=False)
        self.head.bias = torch.nn.Parameter(torch.from_numpy(fitted.bias), requires_grad=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        _, mean = self.states(input_ids, attention_mask.float())
        logits: Tensor = self.head(torch.nn.functional.normalize(mean, dim=-1))
        return logits


class _Tagging(_Graph):
    takes = ("input_ids", "attention_mask", "shapes")

    def __init__(self, fitted: Extractor) -> None:
        assert isinstance(fitted.tagger, Tagger), "an exported graph is a file already"
        super().__init__(fitted.tagger.encoder)
        tagger = fitted.tagger
        self.shapes, self.tags, self.choices = tagger.shapes, tagger.tags, tagger.choices
        self.gives = ("tags", *(f"choice_{number}" for number in range(len(tagger.choices))))
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, shapes: Tensor) -> tuple[Tensor, ...]:
        state, mean = self.states(input_ids, attention_mask.float(), self.shapes(shapes))
        return self.tags(state), *(head(mean) for head in self.choices)


# -- the graph at work -----------------------------------------------------------------------


def open_graph(path: Path, threads: int = 0) -> Any:
    """An onnxruntime session on this machine's processor.

    Args:
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
    except Exception as error:  # its errors have no tree of their own
        raise ModelError(
            f"{path}: onnxruntime cannot read it ({str(error)[:200]}); export it again"
        ) from None


def reader_of(encoder: Encoder, folder: Path) -> Reader:
    """The encoder's vectors by onnxruntime, one thread for each call; its graph is kept in the folder.

    Raises:
        ModelError: the packages are missing, or the graph reads otherwise than the encoder.

    """
    path = folder / f"{_digest(encoder)}.onnx"
    if path.exists():
        with suppress(Exception):  # damaged, or another program's: it is made anew
            return _reader(path, encoder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as unfinished:  # several processes may write it at once
        written = Path(unfinished) / path.name
        _write(_Reading(encoder), {}, written)
        written.replace(path)
    return _reader(path, encoder)


def _reader(path: Path, encoder: Encoder) -> Reader:
    session = open_graph(path, threads=1)

    def read(tokens: Sequence[Sequence[int]]) -> Vectors:
        return np.concatenate([session.run(["vectors"], _packed(some))[0] for some in _runs(tokens)])

    tried = encoder.tokens(TRIED)
    apart = float(np.abs(read(tried) - encoder.read(tried)).max())
    if not apart < SAME:
        raise ModelError(f"{path}: reads otherwise than the encoder, by {apart:.2g}")
    return read


TRIED = ("", "Where is my refund?", "word " * (MAX_TOKENS - 2))
"""Read by a new graph, and by the encoder."""
PACKED = 512
"""Tokens of one sequence at most: its attention grows with their square."""
SAME = 1e-4
"""Vectors of length one that differ by less in every number are the same."""


def _digest(encoder: Encoder) -> str:
    """Of all weights."""
    found = hashlib.sha256()
    for module in (encoder.embeddings, *encoder.layers):
        for name, value in module.state_dict().items():
            found.update(name.encode())
            found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()[:24]


def served_by(path: Path, fitted: Classifier | Extractor) -> LocalFittedArm:
    """The arm that the file is, reading and answering as `fitted` does."""
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
        """The most probable label of each input."""
        tokens = self.fitted.encoder.tokens(inputs)
        odds = np.zeros((len(tokens), len(self.fitted.labels)), np.float32)
        for rows in by_length([len(text) for text in tokens], BATCH):
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
        """As `Tagger` gives them."""
        ids, mask = _padded([window.ids for window in windows])
        shapes = padded_shapes(windows, ids.shape[1]).numpy()
        given = {"input_ids": ids, "attention_mask": mask, "shapes": shapes}
        tags, *choices = self.session.run(None, given)
        return torch.from_numpy(tags)[first_tokens(windows)], [torch.from_numpy(one) for one in choices]


def _runs(tokens: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Texts in turn, in parts of at most `PACKED` tokens or of one text."""
    start = size = 0
    for end, text in enumerate(tokens):
        if end > start and size + len(text) > PACKED:
            yield tokens[start:end]
            start, size = end, 0
        size += len(text)
    yield tokens[start:]


def _packed(tokens: Sequence[Sequence[int]]) -> dict[str, NDArray[Any]]:
    """What `_Reading` takes."""
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


def _padded(tokens: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(batch, tokens) numbers and their mask."""
    longest = max(len(text) for text in tokens)
    assert longest <= MAX_TOKENS, "inputs are cut or read in windows before"
    ids = np.zeros((len(tokens), longest), np.int64)
    mask = np.zeros((len(tokens), longest), np.int64)
    for row, text in enumerate(tokens):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return ids, mask
