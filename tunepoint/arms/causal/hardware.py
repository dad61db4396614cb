"""Whether a base model fits this machine: said with the sizes, before anything is downloaded or spent."""

from __future__ import annotations

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

BYTES: Mapping[Method, float] = {"full": 16.0, "lora": 4.3, "qlora": 0.8}
"""Bytes a parameter in training, in single precision: weights, gradients and Adam's two moments of what
learns (LoRA: about 2% of the parameters)."""
HALF: Mapping[Method, float] = {"full": 16.0, "lora": 2.3, "qlora": 0.8}
"""The same where weights that do not learn are kept in bf16."""
STATE = 34.0
"""Bytes that a layer keeps of a token for the backward pass, times the width (Korthikanti et al. 2022,
equation 2, without attention scores)."""
LOGITS = 12.0
"""Bytes of a token's logit, its probability and its gradient, in single precision."""


@dataclass(frozen=True)
class Size:
    """What a base model takes."""

    parameters: int
    layers: int
    width: int
    vocabulary: int
    context: int
    here: bool
    """Whether its weights are on this machine already."""

    def training_bytes(self, recipe: CausalRecipe, tokens: int, *, half: bool) -> float:
        """Memory of a run whose largest batch has so many tokens."""
        each = (HALF if half else BYTES)[recipe.method]
        states = tokens * (self.layers * self.width * STATE + self.vocabulary * LOGITS)
        return self.parameters * each + states


def place(base: str, folder: Path) -> str:
    """The directory of a base, relative to the task's folder, or its name on a hub."""
    path = folder / base
    return str(path) if path.is_dir() else base


def size_of(base: str, folder: Path = Path()) -> Size:
    """Parameters and shape of a base; only its configuration is read or fetched.

    Raises:
        ModelError: neither a directory with a model nor a name that the hub knows.

    """
    where = place(base, folder)
    try:
        config: Any = AutoConfig.from_pretrained(where)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the files bring up
        said = str(error).strip().split("\n")[0][:200]
        raise ModelError(
            f"{base}: cannot be tuned ({type(error).__name__}: {said}); name a directory with config.json, "
            "weights and a tokenizer, or a causal language model that the hub knows"
        ) from None
    text = config.get_text_config()
    return Size(
        sum(parameter.numel() for parameter in model.parameters()),
        int(text.num_hidden_layers),
        int(text.hidden_size),
        int(text.vocab_size),
        int(getattr(text, "max_position_embeddings", 0) or 1 << 30),
        Path(where).is_dir(),
    )


def device() -> str:
    """Where training runs: `cuda`, `mps` or `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def half_precision() -> bool:
    """Whether this machine trains in bf16."""
    return device() == "cuda" and torch.cuda.is_bf16_supported()


def free_bytes() -> int:
    """Memory that training can have: the accelerator's, else the machine's."""
    if device() == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def check_fits(base: str, size: Size, recipe: CausalRecipe, tokens: int, keep: Path) -> None:
    """Refuse a base that cannot be trained here.

    Args:
        tokens: of the largest batch of one example: batches are halved down to it.
        keep: folder for the trained weights.

    Raises:
        ModelError: memory or disk is too small, with both sizes; or the method needs another machine.

    """
    if recipe.method == "qlora" and device() != "cuda":
        raise ModelError(f"{base}: method 'qlora' needs a CUDA device and this machine has none; take 'lora'")
    needed, free = size.training_bytes(recipe, tokens, half=half_precision()), free_bytes()
    if needed > free:
        raise ModelError(
            f"{base}: {recipe.method} of {size.parameters / 1e9:.2f} billion parameters takes about "
            f"{_gib(needed)} of memory and {_gib(free)} are free ({device()}); take a smaller base"
            + (", or method 'lora'" if recipe.method == "full" else "")
        )
    each = 2.0 if half_precision() else 4.0
    weights = size.parameters * each
    kept = weights if recipe.method == "full" else 0.04 * weights  # checkpoints and the adapter
    for what, path, bytes_ in (
        ("its download", _cache(), 0.0 if size.here else weights),
        ("trained weights and a checkpoint", keep, 3 * kept),
    ):
        room = shutil.disk_usage(_existing(path)).free
        if bytes_ > room:
            raise ModelError(
                f"{base}: {what} takes about {_gib(bytes_)} and {path} has room for {_gib(room)}; "
                "make room first"
            )


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.0f} MiB"
