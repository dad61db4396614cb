"""The files and jobs of a provider over HTTP, and a job as its state file holds it.

Keys come from the environment and go nowhere else: errors and state files never hold them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import openai
from pydantic import TypeAdapter, ValidationError

from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.errors import ModelError
from tunepoint.files.text import text_of
from tunepoint.models.backoff import backoff, wait_after_rate_limit
from tunepoint.models.prices import tuned_price

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
"""The words of OpenAI and of Together; any other means that the job is still at work."""
ENDED = ("failed", "cancelled")
ATTEMPTS = 6
TIMEOUT = 120.0
PAGE = 100
"""Files, jobs or events asked for at once."""


@dataclass(frozen=True)
class Job:
    """How far a run has come, as its state file holds it; never a key."""

    fingerprint: str
    provider: str
    base: str
    status: Status = "uploading"
    file: str | None = None
    validation_file: str | None = None
    id: str | None = None
    tuned_model: str | None = None
    trained_tokens: int | None = None
    training_usd: float | None = None
    """Trained tokens at the known price of training; None where either is unknown."""
    message: str | None = None
    """Why it failed, in the provider's words."""
    created: str = ""
    changed: str = ""
    """Times of the first and of the last writing, UTC."""

    @classmethod
    def read(cls, path: Path) -> Job | None:
        """The job of a state file; None if there is no file.

        Raises:
            ModelError: the file is damaged.

        """
        if not path.exists():
            return None
        try:
            return TypeAdapter(cls).validate_json(text_of(path, ModelError))
        except ValidationError:
            raise ModelError(
                f"{path}: damaged; delete it and run again: a job that was started is found again at the "
                "provider, and not started twice"
            ) from None

    def save(self, path: Path) -> Job:
        """Write the state file, whole or not at all; returns what was written."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        job = replace(self, created=self.created or now, changed=now)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(job), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
        return job

    def seen(self, found: Mapping[str, Any]) -> Job:
        """The job with what the provider says of it."""
        counted = found.get("trained_tokens") or found.get("token_count")
        tokens = counted if isinstance(counted, int) else None
        return replace(
            self,
            id=_id(found, self.provider),
            status=status_of(found),
            file=found.get("training_file") or self.file,
            tuned_model=found.get("fine_tuned_model") or found.get("model_output_name"),
            trained_tokens=tokens,
            training_usd=_dollars(self, tokens),
            message=_message(found.get("error")),
        )


def status_of(found: Mapping[str, Any]) -> Status:
    """The status of a provider's job in our words."""
    return STATUSES.get(str(found.get("status")), "running")


def _dollars(job: Job, tokens: int | None) -> float | None:
    price = tuned_price(f"{job.provider}/ft:{job.base}")
    if tokens is None or price is None or price.training is None:
        return None
    return tokens * price.training / 1e6


def _id(found: Mapping[str, Any], provider: str) -> str:
    if isinstance(identity := found.get("id"), str) and identity:
        return identity
    raise ModelError(
        f"{provider}: its answer names no id ({str(dict(found))[:120]}); is it an OpenAI-style API?"
    )


class JobsClient:
    """The files and jobs of one provider, over HTTP; to be closed, as by `with`.

    Every method raises a ModelError where the provider refuses, and after the last attempt.
    """

    def __init__(
        self,
        provider: TuningProvider,
        *,
        url: str | None = None,
        timeout: float = TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.url = provider.base_url(url)
        self.sleep, self.clock = sleep, clock
        self._key, self._key_name = provider.credential(self.url)
        self._client = openai.OpenAI(
            api_key=self._key,
            base_url=self.url,
            max_retries=0,  # attempts are counted here: what was created unseen is looked for in between
            timeout=timeout,
        )

    def __enter__(self) -> JobsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def file(self, name: str, size: int) -> str | None:
        """Id of the whole file of this name, if the provider has it."""
        for file in self._listed(self.provider.files):
            whole = file.get("bytes") in (None, size) and file.get("status") != "error"
            if file.get("filename") == name and whole:
                return _id(file, self.provider.name)
        return None

    def upload(self, name: str, content: bytes) -> str:
        """Id of the file of this name, uploaded if the provider does not have it."""
        held = self.file(name, len(content))
        if held is not None:
            return held
        form = {"purpose": "fine-tune"}
        if self.provider.upload != self.provider.files:
            form |= {"file_name": name, "file_type": "jsonl"}
        post = partial(
            self._client.post,
            self.provider.upload,
            cast_to=object,
            body=form,
            files=[("file", (name, content, "application/jsonl"))],
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )

        def stored() -> dict[str, Any] | None:
            found = self.file(name, len(content))
            return None if found is None else {"id": found}

        return _id(self._patiently(post, stored), self.provider.name)

    def jobs(self) -> Iterator[dict[str, Any]]:
        """All jobs of the account, the newest first."""
        return self._listed(self.provider.jobs)

    def create(
        self, request: Mapping[str, Any], created: Callable[[], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Start a job; `created` looks for it before another attempt."""
        post = partial(self._client.post, self.provider.jobs, cast_to=object, body=dict(request))
        return self._patiently(post, created)

    def job(self, identity: str) -> dict[str, Any]:
        """What the provider says of a job."""
        return self._patiently(partial(self._get, f"{self.provider.jobs}/{identity}"))

    def events(self, identity: str) -> list[Event]:
        """What happened to a job, the oldest first."""
        events = list(self._listed(f"{self.provider.jobs}/{identity}/events"))
        events.reverse()  # the newest come first: of one second, the order is kept
        return [Event.of(event) for event in sorted(events, key=_moment)]

    def cancel(self, identity: str) -> dict[str, Any]:
        """Ask the provider to stop a job."""
        path = f"{self.provider.jobs}/{identity}/cancel"
        return self._patiently(partial(self._client.post, path, cast_to=object))

    # -- patience --------------------------------------------------------------------------

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> object:
        return self._client.get(path, cast_to=object, options={"params": dict(query or {})})

    def _listed(self, path: str) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"limit": PAGE} if self.provider.paged else {}
        while True:
            page = self._patiently(partial(self._get, path, query))
            items = [item for item in page.get("data") or [] if isinstance(item, dict)]
            yield from items
            if not (self.provider.paged and page.get("has_more") and items):
                return
            query = {**query, "after": items[-1]["id"]}

    def _patiently(
        self, call: Callable[[], object], found: Callable[[], dict[str, Any] | None] | None = None
    ) -> dict[str, Any]:
        """One call with as many attempts as it takes.

        `found` looks before each further attempt whether the last one had its effect, though its
        answer was lost.
        """
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt and found is not None and (had := found()) is not None:
                return had
            try:
                return self._object(call())
            except openai.RateLimitError as error:
                why, wait = "HTTP 429", self._after_rate_limit(error, attempt)
            except openai.InternalServerError as error:
                why, wait = f"HTTP {error.status_code}", backoff(attempt)
            except openai.APIConnectionError:
                why, wait = "no connection, or it was cut", backoff(attempt)
            except openai.OpenAIError as error:
                raise self._lasting(error) from None
            except ValueError:
                why, wait = "a reply that is not JSON", backoff(attempt)
            self.sleep(wait)
        raise ModelError(
            f"{self.provider.name}: no answer after {ATTEMPTS} attempts ({why}) from {self.url}; what was "
            "done is kept: see that it can be reached, and run again"
        )

    def _object(self, answer: object) -> dict[str, Any]:
        if isinstance(answer, dict):
            text = json.dumps(answer)
            held: dict[str, Any] = json.loads(self._without_key(text))
            return held
        raise ModelError(
            f"{self.provider.name}: {self.url} answers with something that is no JSON object; is it the "
            f"address of an OpenAI-style API? {self.provider.setting} sets another"
        )

    def _after_rate_limit(self, error: openai.RateLimitError, attempt: int) -> float:
        """Seconds to wait; an empty account is not a rate limit."""
        if "insufficient_quota" in (error.code, error.type) or error.code == "billing_hard_limit_reached":
            raise self._unpaid(error) from None
        return wait_after_rate_limit(self.provider.name, error.response.headers, attempt)

    def _unpaid(self, error: openai.APIStatusError) -> ModelError:
        return ModelError(
            f"{self.provider.name}: refuses for want of quota, credit or rights (HTTP {error.status_code}): "
            f"{self._said(error)}; what was done is kept: settle it with the provider and run again"
        )

    def _lasting(self, error: openai.OpenAIError) -> ModelError:
        """A fault that another attempt would have too."""
        if not isinstance(error, openai.APIStatusError):
            return ModelError(f"{self.provider.name}: {self._said(error)}")
        if error.status_code in (402, 403):
            return self._unpaid(error)
        if error.status_code == 401:
            return ModelError(f"{self.provider.name}: the key was refused (HTTP 401); check {self._key_name}")
        return ModelError(
            f"{self.provider.name}: HTTP {error.status_code} from {error.request.url.path}: "
            f"{self._said(error)}; what was done is kept: mend the cause and run again"
        )

    def _said(self, error: openai.OpenAIError) -> str:
        """The provider's own words, the key taken out."""
        said = _message(getattr(error, "body", None)) or getattr(error, "message", "") or str(error)
        return self._without_key(str(said))[:300]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if len(self._key) > len("none") else text


def _message(error: object) -> str | None:
    """The message of an error, which is a text or an object that holds one."""
    if isinstance(error, Mapping):
        error = error.get("message")
    return str(error) if error else None


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    message: str
    share: float | None
    """Steps done of all steps, where the event tells."""
    bad: bool

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Event:
        """An event of OpenAI's form, with its steps in `data`, or of Together's, with them beside."""
        message, level = str(event.get("message") or ""), str(event.get("level") or "")
        told = {**event, **data} if isinstance(data := event.get("data"), Mapping) else event
        step, steps = told.get("step"), told.get("total_steps")
        said = re.search(r"\bstep (\d+)/(\d+)", message, re.IGNORECASE)
        if not steps and said is not None:
            step, steps = int(said[1]), int(said[2])
        share = min(1.0, step / steps) if isinstance(step, int) and isinstance(steps, int) and steps else None
        return cls(message, share, level == "error")


def _moment(event: Mapping[str, Any]) -> str:
    """Seconds or an ISO time as text: within one provider either sorts by time."""
    return str(event.get("created_at") or "")
