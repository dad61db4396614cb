"""The weights of a GGUF file as a checkpoint of transformers, which can be trained."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

from tunepoint.errors import MissingExtra, ModelError
from tunepoint.files.text import make_folder
from tunepoint.models.gguf.catalog import known_model
from tunepoint.models.gguf.opening import gguf_path
from tunepoint.models.gguf.store import ModelStore
from tunepoint.models.providers import EMBEDDED_PREFIX


def checkpoint_of(name: str, folder: Path) -> Path:
    """Return a directory with the weights of a model in a GGUF file, unpacked at the first call.

    The weights are what the quantized file stands for, in half precision: a checkpoint is up to four times
    as large as the file.

    Args:
        name: `embedded:NAME` or `gguf:PATH`.
        folder: where a relative path starts.

    Raises:
        ModelError: the file is missing or altered, or transformers cannot open it.
        MissingExtra: a package is not installed.

    """
    path = gguf_path(name, folder)
    target = ModelStore().folder / "unpacked" / _identity(name, path)
    if target.exists():
        return target
    make_folder(target.parent)
    with target.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be unpacking it; the system frees the lock
        if not target.exists():
            # A killed process leaves no half of a checkpoint under the final name.
            unfinished = target.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            try:
                _unpack(name, path, unfinished)
                unfinished.replace(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _identity(name: str, path: Path) -> str:
    """What names the content of a file: its hash where it is known, else where and when it was written."""
    if name.startswith(EMBEDDED_PREFIX):
        return known_model(name).sha256
    state = path.stat()
    text = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()


def _unpack(name: str, path: Path, target: Path) -> None:
    try:
        import gguf  # noqa: F401  # transformers looks for it
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise MissingExtra(f"tuning {name} needs {error.name}", "tune,llm") from None
    disable_progress_bar()  # type: ignore[no-untyped-call]
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar for every step, which nothing else hides
            tokenizer: Any = AutoTokenizer.from_pretrained(**where)
            model: Any = AutoModelForCausalLM.from_pretrained(
                **where, dtype=torch.bfloat16, **_as_dense_weights()
            )
    except Exception as error:  # damaged files raise errors of many libraries
        message = str(error).strip().split("\n")[0][:200]
        raise ModelError(f"{name}: cannot be opened for tuning ({type(error).__name__}: {message})") from None
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _as_dense_weights() -> dict[str, Any]:
    """Options with which transformers unpacks the weights; older versions always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
