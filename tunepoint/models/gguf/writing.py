"""A tuned model as a GGUF file: the base's file with the weights that training changed.

Everything else (vocabulary, chat template, embeddings, norms) is copied byte for byte, so the file differs
from its base in nothing but the tuning. Changed weights are written in half precision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.errors import MissingExtra, ModelError

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter, ReaderTensor

LINEAR_LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Name in a GGUF file -> name in transformers, of the layers that LoRA adapts."""
REORDERED = {"llama": ("attn_q", "attn_k")}
"""Architecture -> layers whose rows llama.cpp keeps in another order, for its rotary embedding."""
ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral")
"""Those whose layers have these names."""


def write_tuned(base: Path, merged: Path, out: Path) -> None:
    """Write a tuned model as a GGUF file.

    Args:
        base: GGUF file that the model was tuned from.
        merged: directory with the merged weights, as transformers writes it.
        out: the file to write.

    Raises:
        ModelError: the layers of this architecture are not known here, or a weight is missing.
        MissingExtra: a package is not installed.

    """
    try:
        import gguf
    except ImportError as error:
        raise MissingExtra(f"writing a GGUF file needs {error.name}", "tune,llm") from None
    reader = gguf.GGUFReader(base)
    architecture = str(reader.fields["general.architecture"].contents())
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{base}: tuned weights of {architecture!r} cannot be written as GGUF; those of "
            f"{', '.join(ARCHITECTURES)} can"
        )
    unfinished = out.with_suffix(".partial")
    writer = gguf.GGUFWriter(unfinished, architecture)
    try:
        _copy_fields(reader, writer)
        weights = _Weights(merged)
        order = _row_order(reader, architecture)
        for tensor in reader.tensors:
            _add_tensor(writer, tensor, weights, order)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        with suppress(Exception):  # it may have no file yet
            writer.close()
    unfinished.replace(out)


def _copy_fields(reader: GGUFReader, writer: GGUFWriter) -> None:
    import gguf

    for name, field in reader.fields.items():
        # The writer writes these itself; the last is the quantization of most weights, which has changed.
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=item)


def _add_tensor(writer: GGUFWriter, tensor: ReaderTensor, weights: _Weights, order: dict[str, int]) -> None:
    parts = tensor.name.split(".")  # as in blk.0.attn_q.weight
    layer = LINEAR_LAYERS.get(parts[2]) if len(parts) == 4 and parts[0] == "blk" else None
    if layer is None or parts[3] != "weight":
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        return
    weight = weights.read(f"model.layers.{parts[1]}.{layer}.weight")
    if parts[2] in order:
        weight = reorder(weight, order[parts[2]])
    writer.add_tensor(tensor.name, weight.astype(np.float16))


def _row_order(reader: GGUFReader, architecture: str) -> dict[str, int]:
    """Return layer -> its attention heads, for the layers whose rows are in another order."""
    heads = {
        "attn_q": f"{architecture}.attention.head_count",
        "attn_k": f"{architecture}.attention.head_count_kv",
    }
    return {layer: int(reader.fields[heads[layer]].contents()) for layer in REORDERED.get(architecture, ())}


def reorder(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Return a (rows, columns) weight in llama.cpp's order: the halves of each head's rows interleaved."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


class _Weights:
    """The weights of a directory, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = dict(_files(folder))

    def read(self, name: str) -> NDArray[np.float32]:
        """Read one weight.

        Raises:
            ModelError: the directory has none of this name.

        """
        from safetensors import safe_open

        if name not in self.files:
            raise ModelError(f"{self.folder}: has no weight {name}")
        with safe_open(self.files[name], framework="pt") as file:  # numpy knows no bfloat16
            return np.asarray(file.get_tensor(name).float().numpy())


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name of each weight and the file that holds it."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text(encoding="utf-8"))
        yield from ((name, folder / file) for name, file in content["weight_map"].items())
        return
    path = folder / "model.safetensors"
    if not path.exists():
        raise ModelError(f"{folder}: has no model.safetensors")
    with safe_open(path, framework="pt") as file:
        yield from ((name, path) for name in file.keys())  # noqa: SIM118  # no mapping
