"""The files and jobs of a provider, over HTTP.

Keys come from the environment and go nowhere else: errors never hold them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import openai

from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.arms.hosted.remote_job import JobEvent, RemoteJob, error_message, id_of
from tunepoint.errors import ModelError
from tunepoint.models.backoff import backoff, wait_after_rate_limit

T = TypeVar("T")

MAX_ATTEMPTS = 6
"""Of one call; the waits between them add up to about half a minute."""
TIMEOUT_SECONDS = 120.0
PAGE_SIZE = 100
"""Files, jobs or events of one page of a list."""
UNREAD = ("uploaded", "pending", "running", "notRunning")
"""Status of a file that the provider has not read to its end."""
READING_POLL_SECONDS, MAX_READING_SECONDS = 5.0, 1_800.0
"""Between two looks at such a file, and in all."""
MAX_QUOTED_CHARACTERS = 300
"""Of the provider's own words in an error."""
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes with which OpenAI says by HTTP 429 that an account is empty."""


class TuningClient:
    """A client of one provider's files and jobs; close it, as by `with`.

    A call whose answer is lost may have had its effect: before each further attempt the client
    looks for it at the provider, so that no file is stored and no job is started twice.

    Every method raises a ModelError if the provider refuses, and after the last attempt.
    """

    def __init__(
        self,
        provider: TuningProvider,
        *,
        url: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
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
            max_retries=0,  # _retry counts attempts: it has to look for effects between them
            timeout=timeout,
        )

    def __enter__(self) -> TuningClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # -- files -----------------------------------------------------------------------------

    def file(self, name: str, size: int) -> str | None:
        """Return the id of the file with this name and size in bytes; None if the provider has none."""
        for file in self._listed(self.provider.files):
            # A cut upload may have left a part of it under the same name.
            is_whole = file.get("bytes") in (None, size) and file.get("status") != "error"
            if file.get("filename") == name and is_whole:
                return id_of(file, self.provider.name)
        return None

    def upload(self, name: str, content: bytes) -> str:
        """Return the id of the file with this name and content, uploaded if the provider has none."""
        stored = partial(self.file, name, len(content))
        identity = stored() or self._retry(partial(self._upload, name, content), stored)
        if self.provider.reads_files_first:
            self._wait_until_read(identity)
        return identity

    def _wait_until_read(self, identity: str) -> None:
        """Wait until the provider has read a file.

        Raises:
            ModelError: it cannot read the file, or takes too long.

        """
        began = self.clock()
        while True:
            file = self._retry(partial(self._get, f"{self.provider.files}/{identity}"))
            status = file.get("status")
            if status not in UNREAD:
                break
            if self.clock() - began > MAX_READING_SECONDS:
                raise ModelError(
                    f"{self.provider.name}: file {identity} is still {status!r} after "
                    f"{MAX_READING_SECONDS:.0f} s; it is kept: run again later"
                )
            self.sleep(READING_POLL_SECONDS)
        if status == "error":
            why = error_message(file.get("error")) or file
            raise ModelError(f"{self.provider.name}: it cannot read file {identity}: {why}")

    def _upload(self, name: str, content: bytes) -> str:
        form = {"purpose": "fine-tune"}
        if self.provider.upload != self.provider.files:
            form |= {"file_name": name, "file_type": "jsonl"}
        answer = self._client.post(
            self.provider.upload,
            cast_to=object,
            body=form,
            files=[("file", (name, content, "application/jsonl"))],
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )
        return id_of(self._json(answer), self.provider.name)

    # -- jobs ------------------------------------------------------------------------------

    def jobs(self) -> Iterator[RemoteJob]:
        """Yield all jobs of the account, the newest first."""
        for job in self._listed(self.provider.jobs):
            yield RemoteJob.parse(job, self.provider.name)

    def create(self, request: Mapping[str, Any], created: Callable[[], RemoteJob | None]) -> RemoteJob:
        """Start a job and return it; `created` looks for it at the provider before another attempt."""
        return self._retry(lambda: self._job(self._post(self.provider.jobs, dict(request))), created)

    def job(self, identity: str) -> RemoteJob:
        """Return a job as it is now."""
        return self._retry(lambda: self._job(self._get(f"{self.provider.jobs}/{identity}")))

    def cancel(self, identity: str) -> RemoteJob:
        """Ask the provider to stop a job; return the job."""
        return self._retry(lambda: self._job(self._post(f"{self.provider.jobs}/{identity}/cancel", None)))

    def events(self, identity: str) -> list[JobEvent]:
        """Return what happened to a job, the oldest first."""
        events = list(self._listed(f"{self.provider.jobs}/{identity}/events"))
        events.reverse()  # they come newest first; a stable sort then keeps the order within a second
        return [JobEvent.parse(event) for event in sorted(events, key=_moment)]

    # -- calls -----------------------------------------------------------------------------

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._json(self._client.get(path, cast_to=object, options={"params": dict(query or {})}))

    def _post(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        return self._json(self._client.post(path, cast_to=object, body=body))

    def _job(self, content: Mapping[str, Any]) -> RemoteJob:
        return RemoteJob.parse(content, self.provider.name)

    def _listed(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield all items of a list, page after page."""
        query: dict[str, Any] = {"limit": PAGE_SIZE} if self.provider.paged else {}
        while True:
            page = self._retry(partial(self._get, path, query))
            items = [item for item in page.get("data") or [] if isinstance(item, dict)]
            yield from items
            if not (self.provider.paged and page.get("has_more") and items):
                return
            query = {**query, "after": items[-1]["id"]}

    def _retry(self, call: Callable[[], T], effect: Callable[[], T | None] = lambda: None) -> T:
        """Call until there is an answer.

        Args:
            call: one attempt.
            effect: looks, before each further attempt, whether an earlier one had its effect
                although the answer was lost.

        """
        fault = ""
        for attempt in range(MAX_ATTEMPTS):
            if attempt and (done := effect()) is not None:
                return done
            try:
                return call()
            except openai.RateLimitError as error:
                fault, wait = "HTTP 429", self._after_rate_limit(error, attempt)
            except openai.InternalServerError as error:
                fault, wait = f"HTTP {error.status_code}", backoff(attempt)
            except openai.APIConnectionError:
                fault, wait = "no connection, or it was cut", backoff(attempt)
            except openai.OpenAIError as error:
                raise self._refusal(error) from None
            except ValueError:
                fault, wait = "a reply that is not JSON", backoff(attempt)
            self.sleep(wait)
        raise ModelError(
            f"{self.provider.name}: no answer after {MAX_ATTEMPTS} attempts ({fault}) from {self.url}. What "
            "was done so far is kept: check that the server can be reached, and run again"
        )

    def _json(self, answer: object) -> dict[str, Any]:
        """Return an answer's JSON object, the key taken out: state files and errors quote from it."""
        if isinstance(answer, dict):
            content: dict[str, Any] = json.loads(self._without_key(json.dumps(answer)))
            return content
        raise ModelError(
            f"{self.provider.name}: {self.url} answers with something that is not a JSON object; is it the "
            f"address of an OpenAI-style API? {self.provider.setting} sets another one"
        )

    # -- refusals --------------------------------------------------------------------------

    def _after_rate_limit(self, error: openai.RateLimitError, attempt: int) -> float:
        """Return the seconds to wait; an empty account also gives HTTP 429, and no wait helps there."""
        if error.code in NO_QUOTA or error.type == NO_QUOTA[0]:
            raise self._no_rights(error) from None
        return wait_after_rate_limit(self.provider.name, error.response.headers, attempt)

    def _refusal(self, error: openai.OpenAIError) -> ModelError:
        """Return the error for a fault that another attempt would have too."""
        name, words = self.provider.name, self._words_of(error)
        if not isinstance(error, openai.APIStatusError):
            return ModelError(f"{name}: {words}")
        if error.status_code in (402, 403):
            return self._no_rights(error)
        if error.status_code == 401:
            return ModelError(f"{name}: the key was refused (HTTP 401); check {self._key_name}")
        return ModelError(
            f"{name}: HTTP {error.status_code} from {error.request.url.path}: {words}. What was done so far "
            "is kept: fix the cause and run again"
        )

    def _no_rights(self, error: openai.APIStatusError) -> ModelError:
        return ModelError(
            f"{self.provider.name}: refused (HTTP {error.status_code}): {self._words_of(error)}. What was "
            "done so far is kept: check your quota, credit and permissions at the provider, and run again"
        )

    def _words_of(self, error: openai.OpenAIError) -> str:
        """Return the provider's own words, the key taken out."""
        words = str(error)
        if isinstance(error, openai.APIError):
            words = error_message(error.body) or error.message or words
        return self._without_key(words)[:MAX_QUOTED_CHARACTERS]

    def _without_key(self, text: str) -> str:
        # Without a key the client sends "none", a word that stands in honest texts.
        return text.replace(self._key, "…") if len(self._key) > len("none") else text


def _moment(event: Mapping[str, Any]) -> str:
    """Return seconds or an ISO time as text: within one provider either sorts by time."""
    return str(event.get("created_at") or "")
