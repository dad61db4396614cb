"""Files and jobs at Fireworks, by its own client: it names them with ids that the caller chooses."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePath
from typing import Any

import fireworks

from tunepoint.arms.hosted.client import TIMEOUT_SECONDS, TuningClient
from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.arms.hosted.remote_job import JobEvent, RemoteJob, Status
from tunepoint.arms.hosted.tuning_run import TuningRun
from tunepoint.errors import ModelError
from tunepoint.models.wire import SdkErrors

ACCOUNT = "FIREWORKS_ACCOUNT_ID"
"""Environment variable with the account, as Fireworks' own client names it."""
READY = "READY"
"""State of a dataset that was uploaded whole."""
PUBLIC_MODELS = "accounts/fireworks/models/"
"""Begins the names of the models that Fireworks offers itself."""
STATES: dict[str, Status] = {
    "JOB_STATE_CREATING": "queued",
    "JOB_STATE_CREATING_INPUT_DATASET": "queued",
    "JOB_STATE_PENDING": "queued",
    "JOB_STATE_VALIDATING": "queued",
    "JOB_STATE_COMPLETED": "succeeded",
    "JOB_STATE_EARLY_STOPPED": "succeeded",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
    "JOB_STATE_DELETING": "cancelled",
}
"""Any other state means that the job is at work."""


class FireworksClient(TuningClient):
    """A client of Fireworks' datasets and jobs."""

    errors = SdkErrors.of(fireworks, fireworks.FireworksError)

    def __init__(
        self,
        provider: TuningProvider,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to call.

        Raises:
            ModelError: the key or the account is not set.

        """
        url = provider.base_url()
        key, key_name = provider.credential(url)
        self._account = os.environ.get(ACCOUNT, "").strip()
        if not self._account:
            raise ModelError(f"{provider.name} needs your account: set {ACCOUNT}, as shown by firectl whoami")
        super().__init__(provider, url, key=key, key_hint=f"check {key_name}", sleep=sleep, clock=clock)
        self._client = fireworks.Fireworks(
            api_key=key, account_id=self._account, base_url=url, max_retries=0, timeout=TIMEOUT_SECONDS
        )
        self._seen: dict[str, list[JobEvent]] = {}
        """Id of a job -> its progress so far: the provider only says how far it is now."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- datasets --------------------------------------------------------------------------

    def stored(self, name: str, content: bytes) -> str | None:
        """Return the name of the dataset with these rows; None if the provider has none, or a part of it."""
        state, _ = self._retry(partial(self._state, _dataset_id(name)))
        return self._dataset(name) if state == READY else None

    def upload(self, name: str, content: bytes) -> str:
        """Return the name of the dataset with these rows, uploaded if the provider has none."""
        dataset = _dataset_id(name)
        stored = partial(self.stored, name, content)
        if (known := stored()) is not None:
            return known
        rows = content.count(b"\n")
        state, _ = self._retry(partial(self._state, dataset))
        if state is None:
            self._retry(partial(self._create_dataset, dataset, rows), partial(self._exists, dataset))
        send = partial(self._client.datasets.upload, dataset, file=(name, content, "application/jsonl"))
        self._retry(send, lambda: None if stored() is None else {})
        self._wait_until_read(dataset, partial(self._reading, dataset))
        return self._dataset(name)

    def _create_dataset(self, dataset: str, rows: int) -> bool:
        self._client.datasets.create(
            dataset_id=dataset, dataset={"format": "CHAT", "example_count": str(rows), "user_uploaded": {}}
        )
        return True

    def _exists(self, dataset: str) -> bool | None:
        return None if self._state(dataset)[0] is None else True

    def _state(self, dataset: str) -> tuple[str | None, str | None]:
        """Return the state of a dataset, None if there is none, and what is wrong with it."""
        try:
            stored = self._client.datasets.get(dataset)
        except fireworks.NotFoundError:
            return None, None
        fault = stored.status.message if stored.status and stored.status.code not in (None, "OK") else None
        return stored.state or READY, fault or None

    def _reading(self, dataset: str) -> tuple[str | None, str | None]:
        state, fault = self._retry(partial(self._state, dataset))
        return (None if state == READY else state), fault

    def _dataset(self, name: str) -> str:
        return f"accounts/{self._account}/datasets/{_dataset_id(name)}"

    # -- jobs ------------------------------------------------------------------------------

    def jobs(self) -> Iterator[RemoteJob]:
        """Yield all jobs of the account."""
        pages = self._retry(partial(self._client.supervised_fine_tuning_jobs.list, page_size=200))
        for job in pages:
            yield _remote(job)

    def create(
        self, run: TuningRun, *, file: str, validation: str | None, created: Callable[[], RemoteJob | None]
    ) -> RemoteJob:
        """Start a job and return it; see `TuningClient`."""
        base = run.base if run.base.startswith("accounts/") else PUBLIC_MODELS + run.base
        optional: dict[str, Any] = {} if validation is None else {"evaluation_dataset": validation}

        def start() -> RemoteJob:
            return _remote(
                self._client.supervised_fine_tuning_jobs.create(
                    dataset=file,
                    base_model=base,
                    display_name=run.suffix,
                    epochs=run.epochs,
                    early_stop=False,
                    **optional,
                )
            )

        return self._retry(start, created)

    def job(self, identity: str) -> RemoteJob:
        """Return a job as it is now."""
        job = self._retry(partial(self._client.supervised_fine_tuning_jobs.get, identity))
        percent = job.job_progress.percent if job.job_progress else None
        seen = self._seen.setdefault(identity, [])
        if percent is not None and (not seen or seen[-1].share != percent / 100):
            seen.append(JobEvent(f"{percent}% trained", min(1.0, percent / 100), is_error=False))
        return _remote(job)

    def cancel(self, identity: str) -> RemoteJob:
        """Ask the provider to stop a job; return the job."""
        stop = partial(self._client.supervised_fine_tuning_jobs.cancel, identity, body={})
        self._retry(stop)
        return self.job(identity)

    def events(self, identity: str) -> list[JobEvent]:
        """Return how far a job was at each look."""
        return list(self._seen.get(identity, ()))


def _dataset_id(name: str) -> str:
    """Return the id of a file's dataset: the file's name without its ending."""
    return PurePath(name).stem


def _remote(job: Any) -> RemoteJob:
    """Return a job of Fireworks' client as ours."""
    cost = job.estimated_cost
    dollars = None
    if cost is not None and cost.currency_code == "USD":
        dollars = float(cost.units or 0) + (cost.nanos or 0) / 1e9
    return RemoteJob(
        id=str(job.name).rpartition("/")[2],
        status=STATES.get(str(job.state), "running"),
        file=job.dataset or None,
        suffix=job.display_name,
        fingerprint=None,
        tuned_model=job.output_model,
        trained_tokens=None,
        error=(job.status.message or None) if job.status else None,
        dollars=dollars,
    )
