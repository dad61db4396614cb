"""A tuned model with its card on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from tunepoint.errors import MissingExtra, ModelError, StudyError

CARD = "README.md"
WEIGHTS = ("*.safetensors", "*.gguf", "*.onnx")
PUBLISHED = (
    CARD,
    *WEIGHTS,
    "*config*.json",
    "*.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.model",
    "labels.json",
)
PARTS = ("adapter", "model", "merged")
"""Folders of a tuned model whose files are published too; runs, checkpoints and answers stay here."""


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
    files = _published(folder)
    if not any(Path(name).match(pattern) for name in files for pattern in WEIGHTS):
        raise StudyError(f"{folder}: no weights; give a folder from `tunepoint tune` or `tunepoint export`")
    if CARD not in files:
        raise StudyError(f"{folder}: no {CARD}, the model card; export the model again")
    try:
        from httpx import HTTPError
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingExtra("publishing needs the client of the hub", "tune") from None
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise StudyError(f"{repository}: exists and is public; add --public, or choose another name")
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Tuned with Tunepoint",
            allow_patterns=files,
        )
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{repository}: the hub refused the upload: {first}. Check that HF_TOKEN is set and may write"
        ) from None
    return f"{api.endpoint}/{repository}"


def _published(folder: Path) -> list[str]:
    """Files of a tuned model that go to the hub, as paths within its folder."""
    paths = []
    for part in (folder, *(folder / name for name in PARTS)):
        paths += [path for pattern in PUBLISHED for path in part.glob(pattern) if path.is_file()]
    return sorted({path.relative_to(folder).as_posix() for path in paths})
