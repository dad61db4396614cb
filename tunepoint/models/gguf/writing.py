"""A tuned model as a GGUF file: the base's file with the weights that training changed, or these alone.

Everything else (vocabulary, chat template, embeddings, norms) is copied byte for byte, so the file differs
from its base in nothing but the tuning. Changed weights are written in half precision. An adapter's file
holds what LoRA has added, and llama.cpp needs the base's file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
MATRICES = {"lora_A": "lora_a", "lora_B": "lora_b"}
"""What LoRA adds to a layer, as PEFT and as llama.cpp name it."""
NOT_PLAIN_LORA = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
"""Settings of an adapter that llama.cpp does not know."""
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
    reader, architecture = _read_base(base)
    weights, order = _Weights(merged), _row_order(reader, architecture)
    with _writing(out, architecture) as writer:
        _copy_fields(reader, writer)
        for tensor in reader.tensors:
            _add_tensor(writer, tensor, weights, order)


def write_adapter(base: Path, adapter: Path, out: Path) -> None:
    """Write a LoRA adapter as a GGUF file, which llama.cpp applies to the base's file.

    Args:
        base: GGUF file that the model was tuned from.
        adapter: directory with the adapter, as PEFT writes it.
        out: the file to write.

    Raises:
        ModelError: the layers of this architecture are not known here, or the adapter has other parts than
            two matrices a layer.
        MissingExtra: a package is not installed.

    """
    reader, architecture = _read_base(base)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if any(settings.get(key) for key in NOT_PLAIN_LORA):
        raise ModelError(f"{adapter}: llama.cpp reads adapters of plain LoRA only; merge this one")
    rank = int(settings["r"])
    # llama.cpp scales by alpha / rank; the other rule divides by the root of the rank.
    alpha = settings["lora_alpha"] * (rank**0.5 if settings.get("use_rslora") else 1.0)
    weights, order = _Weights(adapter, "adapter_model"), _row_order(reader, architecture)
    places = {tensor.name: place for tensor in reader.tensors if (place := _place(tensor.name)) is not None}
    names = {
        f"base_model.model.{module}.{part}.weight": (tensor, layer, part)
        for tensor, (module, layer) in places.items()
        for part in MATRICES
    }
    unknown = sorted(set(weights.files) - set(names))
    if unknown or not weights.files:
        raise ModelError(
            f"{adapter}: {unknown[0] if unknown else 'nothing'} in it is not of a layer of {base}"
        )
    with _writing(out, architecture) as writer:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(alpha))
        for key in sorted(weights.files):
            tensor, layer, part = names[key]
            weight = weights.read(key)
            if part == "lora_B" and layer in order:  # the rows of the product are those of this matrix
                weight = reorder(weight, order[layer])
            writer.add_tensor(f"{tensor}.{MATRICES[part]}", weight)


def _read_base(base: Path) -> tuple[GGUFReader, str]:
    """Open the base's file; return it with its architecture."""
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
    return reader, architecture


@contextmanager
def _writing(out: Path, architecture: str) -> Iterator[GGUFWriter]:
    """Write a file as a whole, or leave the old one as it is."""
    import gguf

    unfinished = out.with_suffix(".partial")
    writer = gguf.GGUFWriter(unfinished, architecture)
    try:
        yield writer
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
    place = _place(tensor.name)
    if place is None:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        return
    name, layer = place
    weight = weights.read(f"{name}.weight")
    if layer in order:
        weight = reorder(weight, order[layer])
    writer.add_tensor(tensor.name, weight.astype(np.float16))


def _place(tensor: str) -> tuple[str, str] | None:
    """Return the module of a tensor in transformers, and its layer; None if LoRA does not adapt it."""
    parts = tensor.split(".")  # as in blk.0.attn_q.weight
    if len(parts) != 4 or parts[0] != "blk" or parts[3] != "weight" or parts[2] not in LINEAR_LAYERS:
        return None
    return f"model.layers.{parts[1]}.{LINEAR_LAYERS[parts[2]]}", parts[2]


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

    def __init__(self, folder: Path, stem: str = "model") -> None:
        self.folder = folder
        self.files = dict(_files(folder, stem))

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


def _files(folder: Path, stem: str) -> Iterator[tuple[str, Path]]:
    """Yield the name of each weight and the file that holds it."""
    from safetensors import safe_open

    index = folder / f"{stem}.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text(encoding="utf-8"))
        yield from ((name, folder / file) for name, file in content["weight_map"].items())
        return
    path = folder / f"{stem}.safetensors"
    if not path.exists():
        raise ModelError(f"{folder}: has no {path.name}")
    with safe_open(path, framework="pt") as file:
        yield from ((name, path) for name in file.keys())  # noqa: SIM118  # no mapping
