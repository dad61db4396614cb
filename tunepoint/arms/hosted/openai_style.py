"""Files and jobs by an API in OpenAI's style: OpenAI's own, Azure's, Together's, Nebius's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import openai

from tunepoint.arms.hosted.client import TIMEOUT_SECONDS, TuningClient
from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.arms.hosted.remote_job import JobEvent, RemoteJob, error_message, id_of
from tunepoint.arms.hosted.tuning_run import TuningRun
from tunepoint.errors import ModelError
from tunepoint.models.wire import SdkErrors

PAGE_SIZE = 100
"""Files, jobs or events of one page of a list."""
UNREAD = ("uploaded", "pending", "running", "notRunning")
"""Status of a file that the provider has not read to its end."""


class OpenAIStyleClient(TuningClient):
    """A client of files and jobs in OpenAI's style."""

    errors = SdkErrors.of(openai, openai.OpenAIError)

    def __init__(
        self,
        provider: TuningProvider,
        *,
        url: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to call; `url` is in place of the provider's own."""
        base = provider.base_url(url)
        key, key_name = provider.credential(base)
        super().__init__(provider, base, key=key, key_hint=f"check {key_name}", sleep=sleep, clock=clock)
        self._client = openai.OpenAI(
            api_key=key,
            base_url=base,
            max_retries=0,  # _retry counts attempts: it has to look for effects between them
            timeout=timeout,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- files -----------------------------------------------------------------------------

    def stored(self, name: str, content: bytes) -> str | None:
        """Return the id of the whole file with this name; None if the provider has none."""
        for file in self._listed(self.provider.files):
            # A cut upload may have left a part of it under the same name.
            is_whole = file.get("bytes") in (None, len(content)) and file.get("status") != "error"
            if file.get("filename") == name and is_whole:
                return id_of(file, self.provider.name)
        return None

    def upload(self, name: str, content: bytes) -> str:
        """Return the id of the file with this name and content, uploaded if the provider has none."""
        stored = partial(self.stored, name, content)
        identity = stored() or self._retry(partial(self._upload, name, content), stored)
        if self.provider.reads_files_first:
            self._wait_until_read(identity, partial(self._reading, identity))
        return identity

    def _reading(self, identity: str) -> tuple[str | None, str | None]:
        """Return the status of a file while it is read, and why it cannot be."""
        file = self._retry(partial(self._get, f"{self.provider.files}/{identity}"))
        status = file.get("status")
        fault = (error_message(file.get("error")) or str(file)) if status == "error" else None
        return (str(status) if status in UNREAD else None), fault

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

    def create(
        self, run: TuningRun, *, file: str, validation: str | None, created: Callable[[], RemoteJob | None]
    ) -> RemoteJob:
        """Start a job and return it; see `TuningClient`."""
        request = run.request(self.provider, file=file, validation=validation)
        return self._retry(lambda: self._job(self._post(self.provider.jobs, request)), created)

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

    def _json(self, answer: object) -> dict[str, Any]:
        """Return an answer's JSON object, the key taken out: state files and errors quote from it."""
        if isinstance(answer, dict):
            content: dict[str, Any] = json.loads(self._without_key(json.dumps(answer)))
            return content
        raise ModelError(
            f"{self.provider.name}: {self.url} answers with something that is not a JSON object; is it the "
            f"address of an OpenAI-style API? {self.provider.setting} sets another one"
        )


def _moment(event: Mapping[str, Any]) -> str:
    """Return seconds or an ISO time as text: within one provider either sorts by time."""
    return str(event.get("created_at") or "")
