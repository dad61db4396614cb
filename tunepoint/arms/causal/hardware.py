"""Whether a base model fits this machine, checked before anything is downloaded or spent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunepoint.arms.causal.recipe import CausalRecipe, Method
from tunepoint.errors import ModelError
from tunepoint.models.providers import is_gguf

PARAMETER_BYTES: Mapping[Method, float] = {"full": 16.0, "lora": 4.3, "qlora": 0.8}
"""Bytes per parameter in training, in single precision: all weights, and the gradients and Adam's two
moments of the trained ones (LoRA: about 2% of the parameters)."""
PARAMETER_BYTES_BF16: Mapping[Method, float] = {"full": 16.0, "lora": 2.3, "qlora": 0.8}
"""The same where frozen weights are kept in bf16."""
STATE_BYTES = 34.0
"""Bytes that a layer keeps for the backward pass, per token and unit of width (Korthikanti et al. 2022,
equation 2, without attention scores)."""
LOGIT_BYTES = 12.0
"""Bytes of one logit, its probability and its gradient, in single precision."""


@dataclass(frozen=True)
class BaseSize:
    """Shape of a base model."""

    parameters: int
    layers: int
    width: int
    vocabulary: int
    context: int
    """Tokens that it can read at once."""
    local: bool
    """Whether its weights are on this machine already."""

    def training_bytes(self, recipe: CausalRecipe, tokens: int, *, half: bool) -> float:
        """Return the memory of a run, in bytes.

        Args:
            recipe: has the method.
            tokens: of the largest batch.
            half: whether the machine trains in bf16.

        """
        parameter_bytes = (PARAMETER_BYTES_BF16 if half else PARAMETER_BYTES)[recipe.method]
        activation_bytes = tokens * (self.layers * self.width * STATE_BYTES + self.vocabulary * LOGIT_BYTES)
        return self.parameters * parameter_bytes + activation_bytes


def resolve_base(base: str, folder: Path) -> str:
    """Return the directory of a base, relative to the task's folder, or its name on a hub.

    Raises:
        ModelError: a model in a GGUF file that is not here, or cannot be opened for tuning.

    """
    if is_gguf(base):
        from tunepoint.models.gguf.unpacking import checkpoint_of

        return str(checkpoint_of(base, folder))
    path = folder / base
    return str(path) if path.is_dir() else base


def size_of(base: str, folder: Path = Path()) -> BaseSize:
    """Return the shape of a base; reads or fetches its configuration alone.

    Raises:
        ModelError: neither a directory with a model nor a name that the hub knows.

    """
    where = resolve_base(base, folder)
    try:
        config: Any = AutoConfig.from_pretrained(where)
        with torch.device("meta"):  # counts parameters without memory for them
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:  # damaged files raise errors of many libraries
        message = str(error).strip().split("\n")[0][:200]
        raise ModelError(
            f"{base}: cannot be tuned ({type(error).__name__}: {message}); name a directory with "
            "config.json, weights and a tokenizer, or a causal language model on the hub"
        ) from None
    text = config.get_text_config()  # multimodal models nest the shape of their language part
    return BaseSize(
        sum(parameter.numel() for parameter in model.parameters()),
        int(text.num_hidden_layers),
        int(text.hidden_size),
        int(text.vocab_size),
        int(getattr(text, "max_position_embeddings", 0) or 1 << 30),
        Path(where).is_dir(),
    )


def device() -> str:
    """Return where training runs: `cuda`, `mps` or `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def half_precision() -> bool:
    """Whether this machine trains in bf16."""
    return device() == "cuda" and torch.cuda.is_bf16_supported()


def free_bytes() -> int:
    """Return the free memory of the accelerator, else of the machine."""
    if device() == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def threads_per_process(processes: int) -> int:
    """Return the threads of each process where so many share this machine."""
    return max(1, (os.cpu_count() or 1) // processes)


def threads_in_use() -> int:
    """Return the threads that compute a training run in this process."""
    return torch.get_num_threads()


def use_threads(threads: int) -> None:
    """Compute with so many threads from now on."""
    torch.set_num_threads(threads)


def check_fits(base: str, size: BaseSize, recipe: CausalRecipe, tokens: int, keep: Path) -> None:
    """Refuse a base that cannot be trained here.

    Args:
        base: its name, for the message.
        size: of the base.
        recipe: has the method.
        tokens: of the longest example: where memory runs out, batches are halved down to one example.
        keep: folder for the trained weights.

    Raises:
        ModelError: memory or disk is too small, with both sizes; or the method needs another machine.

    """
    if recipe.method == "qlora" and device() != "cuda":
        raise ModelError(f"{base}: method 'qlora' needs a CUDA device and this machine has none; use 'lora'")
    _check_memory(base, size, recipe, tokens)
    _check_disk(base, size, recipe, keep)


def _check_memory(base: str, size: BaseSize, recipe: CausalRecipe, tokens: int) -> None:
    needed, free = size.training_bytes(recipe, tokens, half=half_precision()), free_bytes()
    if needed > free:
        raise ModelError(
            f"{base}: {recipe.method} of {size.parameters / 1e9:.2f} billion parameters takes about "
            f"{_readable_size(needed)} of memory and {_readable_size(free)} are free ({device()}); use a "
            "smaller base" + (", or method 'lora'" if recipe.method == "full" else "")
        )


def _check_disk(base: str, size: BaseSize, recipe: CausalRecipe, keep: Path) -> None:
    weights = size.parameters * (2.0 if half_precision() else 4.0)
    # An adapter of rank 16 has 1 to 2% of the parameters, and its checkpoints hold Adam's moments as well.
    checkpoint = weights if recipe.method == "full" else 0.04 * weights
    for purpose, folder, needed in (
        ("its download", _hub_cache(), 0.0 if size.local else weights),
        ("trained weights and a checkpoint", keep, 3 * checkpoint),
    ):
        free = shutil.disk_usage(_existing_parent(folder)).free
        if needed > free:
            raise ModelError(
                f"{base}: {purpose} takes about {_readable_size(needed)} and {folder} has room for "
                f"{_readable_size(free)}; free some disk space first"
            )


def _existing_parent(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _readable_size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.0f} MiB"
