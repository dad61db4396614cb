"""A tuned model with its card on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from tunepoint.errors import MissingExtra, ModelError, StudyError

CARD = "README.md"
WEIGHTS = ("*.safetensors", "*.gguf", "*.onnx")
LEFT_OUT = ["runs/**", "**/checkpoint-*/**", "*.lock", ".*", "dev.jsonl"]
"""Runs that a killed training resumes from, and answers to the user's own examples."""


def publish(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload a tuned model with its card, and return its address.

    Args:
        folder: with weights and a card, as `tunepoint tune` and `tunepoint export` write it.
        repository: OWNER/NAME on the hub; made if missing.
        private: whether only its owner sees a repository that is made.

    Raises:
        StudyError: the folder holds no weights or no card.
        MissingExtra: the hub's client is not installed.
        ModelError: the hub refuses, or cannot be reached.

    """
    if not any(any(folder.rglob(pattern)) for pattern in WEIGHTS):
        raise StudyError(f"{folder}: no weights here; give what `tunepoint tune` or `tunepoint export` wrote")
    if not (folder / CARD).exists():
        raise StudyError(f"{folder}: no {CARD}, which says what the model is of; export it again")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingExtra("publishing needs the client of the hub", "tune") from None
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Tuned with Tunepoint",
            ignore_patterns=LEFT_OUT,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        advice = "is HF_TOKEN set, and may it write?"
        raise ModelError(f"{repository}: the hub took nothing: {first} ({advice})") from None
    return f"{api.endpoint}/{repository}"
