"""Gemini tuned at Google Cloud: rows in a bucket, jobs by Google's own client."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import storage
from google.genai import types

from tunepoint.arms.hosted.buckets import Bucket
from tunepoint.arms.hosted.client import TIMEOUT_SECONDS, TuningClient
from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.arms.hosted.remote_job import JobEvent, RemoteJob, Status
from tunepoint.arms.hosted.rows import Row
from tunepoint.arms.hosted.tuning_run import TuningRun
from tunepoint.models.clouds.errors import CLOUD_ERRORS, CloudConnectionError, refusal
from tunepoint.models.clouds.gemini import tuned_name
from tunepoint.models.clouds.google import GoogleCloud, faults_in_our_form
from tunepoint.models.providers import NO_KEY, parse_model_name

T = TypeVar("T")

BUCKET = "TUNEPOINT_VERTEX_BUCKET"
"""Environment variable with the folder for rows."""
LABEL = "tunepoint"
"""Label of a job that holds the run's fingerprint, as much of it as a label takes."""
MAX_LABEL_CHARACTERS = 63
STATES: dict[str, Status] = {
    "JOB_STATE_QUEUED": "queued",
    "JOB_STATE_PENDING": "queued",
    "JOB_STATE_SUCCEEDED": "succeeded",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
}
"""Any other state means that the job is at work."""


class VertexClient(TuningClient):
    """A client of a bucket and of tuning jobs at Google Cloud."""

    errors = CLOUD_ERRORS

    def __init__(
        self,
        provider: TuningProvider,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to call.

        Raises:
            ModelError: the bucket, the project, the region or credentials are missing.

        """
        key = parse_model_name("vertex/any").key()
        token = None if key == NO_KEY else key
        bucket = Bucket.from_environment(BUCKET, "gs")
        cloud = GoogleCloud.from_environment("tuning at vertex", token)
        hint = "check VERTEX_ACCESS_TOKEN, or run gcloud auth application-default login"
        super().__init__(
            provider,
            f"projects/{cloud.project}/locations/{cloud.location}",
            key=token,
            key_hint=hint,
            sleep=sleep,
            clock=clock,
        )
        self._bucket = bucket
        self._storage = storage.Client(project=cloud.project, credentials=cloud.credentials)
        self._client = cloud.open(TIMEOUT_SECONDS)
        self._seen: dict[str, list[JobEvent]] = {}
        """Id of a job -> the states that it was in."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._storage.close()

    def encoded(self, rows: Sequence[Row]) -> bytes:
        """Return rows in the form of Gemini's contents."""
        return "".join(json.dumps(_contents(row), ensure_ascii=False) + "\n" for row in rows).encode()

    # -- files -----------------------------------------------------------------------------

    def stored(self, name: str, content: bytes) -> str | None:
        """Return the address of the whole file; None if the bucket has none."""
        blob = self._asked(lambda: self._storage.bucket(self._bucket.name).get_blob(self._bucket.path(name)))
        return self._bucket.address(name) if blob is not None and blob.size == len(content) else None

    def upload(self, name: str, content: bytes) -> str:
        """Return the address of the file, uploaded if the bucket has none."""
        if (known := self.stored(name, content)) is not None:
            return known
        blob = self._storage.bucket(self._bucket.name).blob(self._bucket.path(name))
        self._asked(
            lambda: blob.upload_from_string(
                content, content_type="application/jsonl", timeout=TIMEOUT_SECONDS
            )
        )
        return self._bucket.address(name)

    # -- jobs ------------------------------------------------------------------------------

    def jobs(self) -> Iterator[RemoteJob]:
        """Yield all tuning jobs of the project in its region."""
        for job in self._asked(lambda: list(self._client.tunings.list(config={"page_size": 100}))):
            yield _remote(job)

    def create(
        self, run: TuningRun, *, file: str, validation: str | None, created: Callable[[], RemoteJob | None]
    ) -> RemoteJob:
        """Start a job and return it; see `TuningClient`."""
        config = types.CreateTuningJobConfig(
            epoch_count=run.epochs,
            learning_rate_multiplier=run.learning_rate_multiplier,
            tuned_model_display_name=run.suffix,
            export_last_checkpoint_only=True,
            labels={LABEL: run.fingerprint[:MAX_LABEL_CHARACTERS]},
            validation_dataset=types.TuningValidationDataset(gcs_uri=validation) if validation else None,
        )
        dataset = types.TuningDataset(gcs_uri=file)

        def start() -> RemoteJob:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The SDK's tuning implementation is experimental")
                return _remote(
                    self._client.tunings.tune(base_model=run.base, training_dataset=dataset, config=config)
                )

        return self._asked(start, created)

    def job(self, identity: str) -> RemoteJob:
        """Return a job as it is now."""
        job = _remote(self._asked(partial(self._client.tunings.get, name=identity)))
        seen = self._seen.setdefault(identity, [])
        if not seen or seen[-1].message != job.status:
            seen.append(JobEvent(job.status, None, is_error=False))
        return job

    def cancel(self, identity: str) -> RemoteJob:
        """Ask the cloud to stop a job; return the job."""
        self._asked(partial(self._client.tunings.cancel, name=identity))
        return self.job(identity)

    def events(self, identity: str) -> list[JobEvent]:
        """Return the states that a job was in: the cloud says nothing else of it."""
        return list(self._seen.get(identity, ()))

    def _asked(self, call: Callable[[], T], effect: Callable[[], T | None] = lambda: None) -> T:
        """Call until there is an answer; faults of both clients count alike."""

        def once() -> T:
            with faults_in_our_form():
                try:
                    return call()
                except GoogleAPICallError as error:
                    raise refusal(error.message, int(error.code or 500)) from None
                except RetryError as error:
                    raise CloudConnectionError(str(error)) from None

        return self._retry(once, effect)


def _contents(row: Row) -> Mapping[str, Any]:
    """Return a row in the form of Gemini's contents."""
    messages = row["messages"]
    system = [{"text": message["content"]} for message in messages if message["role"] == "system"]
    contents = [
        {
            "role": "model" if message["role"] == "assistant" else "user",
            "parts": [{"text": message["content"]}],
        }
        for message in messages
        if message["role"] != "system"
    ]
    return {
        **({"systemInstruction": {"role": "system", "parts": system}} if system else {}),
        "contents": contents,
    }


def _remote(job: types.TuningJob) -> RemoteJob:
    """Return a job of Google's client as ours."""
    spec, tuned = job.supervised_tuning_spec, job.tuned_model
    stats = job.tuning_data_stats.supervised_tuning_data_stats if job.tuning_data_stats else None
    epochs = spec.hyper_parameters.epoch_count if spec and spec.hyper_parameters else None
    tokens = stats.total_billable_token_count if stats else None
    return RemoteJob(
        id=str(job.name),
        status=STATES.get(job.state.value if job.state else "", "running"),
        file=spec.training_dataset_uri if spec else None,
        suffix=job.tuned_model_display_name,
        fingerprint=None,
        tuned_model=tuned_name(str(job.base_model), tuned.endpoint) if tuned and tuned.endpoint else None,
        trained_tokens=tokens * epochs if tokens and epochs else None,
        error=job.error.message if job.error else None,
    )
