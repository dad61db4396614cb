"""Bases, their tokenizers and their adapters, in memory."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from tunepoint.arms.causal.distributed import local_rank, own_device
from tunepoint.arms.causal.hardware import half_precision
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.errors import ModelError


def load_tokenizer(where: str) -> Any:
    """Load the tokenizer of a base, able to render a conversation and to pad.

    Raises:
        ModelError: it cannot be loaded, or has no chat template.

    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where)
    except Exception as error:  # damaged files raise errors of many libraries
        raise _load_error(where, error) from None
    if not tokenizer.chat_template:
        raise ModelError(
            f"{where}: its tokenizer has no chat template, which turns messages into a prompt. Use an "
            "instruction-tuned base, or add a chat_template to its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_error(where: str, error: Exception) -> ModelError:
    message = str(error).strip().split("\n")[0][:200]
    return ModelError(f"{where}: cannot be loaded ({type(error).__name__}: {message})")


def load_base(where: str, recipe: CausalRecipe | None = None) -> tuple[Any, Any]:
    """Load (model, tokenizer) of a base, in the precision of this machine and on its device.

    Raises:
        ModelError: it cannot be loaded, or has no chat template.

    """
    options: dict[str, Any] = {"dtype": torch.bfloat16 if half_precision() else torch.float32}
    if recipe is not None and recipe.method == "qlora":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        options["device_map"] = {"": local_rank()}  # quantized weights cannot be moved afterwards
    disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = load_tokenizer(where)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(where, **options)
    except Exception as error:  # damaged files raise errors of many libraries
        raise _load_error(where, error) from None
    return (model if "device_map" in options else model.to(own_device())), tokenizer


def put_adapter(model: Any, folder: Path, name: str = "default") -> Any:
    """Add the adapter of a run to a model beside those that it has, and activate it."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft uses a deprecated name of transformers
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    model.set_adapter(name)
    return model.eval()
