"""A job as its state file on this machine holds it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tunepoint.arms.hosted.remote_job import RemoteJob, Status
from tunepoint.errors import ModelError
from tunepoint.files.text import read_text
from tunepoint.models.prices import tuned_price


@dataclass(frozen=True)
class JobState:
    """How far a run is; never a key. The field names are the keys of the state file."""

    fingerprint: str
    """Of the run."""
    provider: str
    base: str
    status: Status = "uploading"
    file: str | None = None
    validation_file: str | None = None
    id: str | None = None
    """The provider's name for the job; None before it is created."""
    tuned_model: str | None = None
    trained_tokens: int | None = None
    training_usd: float | None = None
    """By the provider's word, else trained tokens at the known price of training; None if unknown."""
    message: str | None = None
    """Why it failed, in the provider's words."""
    created: str = ""
    changed: str = ""
    """Times of the first and of the last writing, UTC."""

    @classmethod
    def read(cls, path: Path) -> JobState | None:
        """Return the job of a state file; None if there is no file.

        Raises:
            ModelError: the file is damaged.

        """
        if not path.exists():
            return None
        try:
            return TypeAdapter(cls).validate_json(read_text(path, ModelError))
        except ValidationError:
            raise ModelError(
                f"{path}: damaged. Delete it and run again: a job that was already started is found at the "
                "provider, not started twice"
            ) from None

    def save(self, path: Path) -> JobState:
        """Write the state file, whole or not at all; return what was written."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        job = replace(self, created=self.created or now, changed=now)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(job), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
        return job

    def updated(self, remote: RemoteJob) -> JobState:
        """Return the job with what the provider now says of it."""
        return replace(
            self,
            id=remote.id,
            status=remote.status,
            file=remote.file or self.file,
            tuned_model=remote.tuned_model,
            trained_tokens=remote.trained_tokens,
            training_usd=self._dollars(remote.trained_tokens) if remote.dollars is None else remote.dollars,
            message=remote.error,
        )

    def _dollars(self, tokens: int | None) -> float | None:
        price = tuned_price(f"{self.provider}/ft:{self.base}")
        if tokens is None or price is None or price.training is None:
            return None
        return tokens * price.training / 1e6
