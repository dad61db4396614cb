"""Jobs and events as a provider describes them, read from its JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunepoint.errors import ModelError

Status = Literal["uploading", "creating", "queued", "running", "succeeded", "failed", "cancelled"]

STATUSES: dict[str, Status] = {
    "validating_files": "queued",
    "queued": "queued",
    "pending": "queued",
    "succeeded": "succeeded",
    "completed": "succeeded",
    "failed": "failed",
    "error": "failed",
    "cancelled": "cancelled",
}
"""The words of OpenAI and of Together; any other word means that the job is at work."""
FAILED: tuple[Status, ...] = ("failed", "cancelled")
"""Jobs that ended without a model: the next run starts a new one."""


@dataclass(frozen=True)
class RemoteJob:
    """A job as its provider describes it."""

    id: str
    status: Status
    file: str | None
    """Id of the file with the training rows."""
    suffix: str | None
    fingerprint: str | None
    """Of the run, where the provider keeps metadata."""
    tuned_model: str | None
    trained_tokens: int | None
    error: str | None
    dollars: float | None = None
    """Of training, where the provider says it."""

    @classmethod
    def parse(cls, job: Mapping[str, Any], provider: str) -> RemoteJob:
        """Read a job in OpenAI's or Together's form.

        Raises:
            ModelError: it has no id.

        """
        tokens = job.get("trained_tokens") or job.get("token_count")
        metadata = job.get("metadata") or {}
        return cls(
            id=id_of(job, provider),
            status=STATUSES.get(str(job.get("status")), "running"),
            file=job.get("training_file") or None,
            suffix=job.get("suffix"),
            fingerprint=metadata.get("tunepoint") if isinstance(metadata, Mapping) else None,
            tuned_model=job.get("fine_tuned_model") or job.get("model_output_name"),
            trained_tokens=tokens if isinstance(tokens, int) else None,
            error=error_message(job.get("error")),
        )


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job."""

    message: str
    share: float | None
    """Steps done of all steps, 0..1; None where the event does not say."""
    is_error: bool

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> JobEvent:
        """Read an event of OpenAI's form, with its steps in `data`, or of Together's, with them beside."""
        message, level = str(event.get("message") or ""), str(event.get("level") or "")
        facts = {**event, **data} if isinstance(data := event.get("data"), Mapping) else event
        step, steps = facts.get("step"), facts.get("total_steps")
        in_message = re.search(r"\bstep (\d+)/(\d+)", message, re.IGNORECASE)
        if not steps and in_message is not None:
            step, steps = int(in_message[1]), int(in_message[2])
        share = min(1.0, step / steps) if isinstance(step, int) and isinstance(steps, int) and steps else None
        return cls(message, share, level == "error")


def id_of(content: Mapping[str, Any], provider: str) -> str:
    """Return the id of a file or a job.

    Raises:
        ModelError: it has none.

    """
    if isinstance(identity := content.get("id"), str) and identity:
        return identity
    raise ModelError(
        f"{provider}: its answer has no id ({str(dict(content))[:120]}); is it an OpenAI-style API?"
    )


def error_message(error: object) -> str | None:
    """Return the message of an error, which is a text or an object that holds one."""
    if isinstance(error, Mapping):
        error = error.get("message")
    return str(error) if error else None
