"""Models tuned at Amazon Bedrock: rows in a bucket, jobs by Amazon's own client."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from tunepoint.arms.hosted.buckets import Bucket
from tunepoint.arms.hosted.client import TIMEOUT_SECONDS, TuningClient
from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.arms.hosted.remote_job import JobEvent, RemoteJob, Status
from tunepoint.arms.hosted.rows import Row
from tunepoint.arms.hosted.tuning_run import SUFFIX_CHARACTERS, TuningRun
from tunepoint.errors import ModelError
from tunepoint.models.clouds.amazon import called, open_service
from tunepoint.models.clouds.errors import CLOUD_ERRORS, CloudError
from tunepoint.models.clouds.regions import aws_region

T = TypeVar("T")

BUCKET, ROLE = "TUNEPOINT_BEDROCK_BUCKET", "TUNEPOINT_BEDROCK_ROLE"
"""Environment variables with the folder for rows, and with the role that may read it."""
ROLE_PATTERN = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/.+")
STATUSES: dict[str, Status] = {"Completed": "succeeded", "Failed": "failed", "Stopped": "cancelled"}
"""Any other status means that the job is at work."""
ROW_SCHEMA = "bedrock-conversation-2024"
"""Version of the rows, as the cloud calls it."""


class BedrockClient(TuningClient):
    """A client of a bucket and of tuning jobs at Amazon Bedrock."""

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
            ModelError: the bucket, the role or the region is missing.

        """
        region = aws_region("tuning at bedrock")
        self._bucket = Bucket.from_environment(BUCKET, "s3")
        self._role = os.environ.get(ROLE, "").strip()
        if not ROLE_PATTERN.fullmatch(self._role):
            given = f" (it is {self._role!r})" if self._role else ""
            raise ModelError(
                f"{provider.name} reads the bucket by a role: set {ROLE}, as to "
                f"arn:aws:iam::123456789012:role/TunepointTuning{given}"
            )
        self._bedrock = open_service("bedrock", region, timeout=TIMEOUT_SECONDS)
        self._s3 = open_service("s3", region, timeout=TIMEOUT_SECONDS)
        hint = "check your AWS profile or its variables"
        super().__init__(
            provider, self._bedrock.meta.endpoint_url, key=None, key_hint=hint, sleep=sleep, clock=clock
        )
        self._seen: dict[str, list[JobEvent]] = {}
        """Id of a job -> the statuses that it had."""

    def close(self) -> None:
        """Close the connections."""
        self._bedrock.close()
        self._s3.close()

    def encoded(self, rows: Sequence[Row]) -> bytes:
        """Return rows in the form of Bedrock's conversations."""
        return "".join(json.dumps(_conversation(row), ensure_ascii=False) + "\n" for row in rows).encode()

    # -- files -----------------------------------------------------------------------------

    def stored(self, name: str, content: bytes) -> str | None:
        """Return the address of the whole file; None if the bucket has none."""
        size = self._retry(partial(self._size, name))
        return self._bucket.address(name) if size == len(content) else None

    def upload(self, name: str, content: bytes) -> str:
        """Return the address of the file, uploaded if the bucket has none."""
        if (known := self.stored(name, content)) is not None:
            return known
        self._asked(self._s3.put_object, Bucket=self._bucket.name, Key=self._bucket.path(name), Body=content)
        return self._bucket.address(name)

    def _size(self, name: str) -> int | None:
        try:
            head = called(
                partial(self._s3.head_object, Bucket=self._bucket.name, Key=self._bucket.path(name))
            )
        except CloudError as error:
            if error.status_code == 404:
                return None
            raise
        return int(head["ContentLength"])

    # -- jobs ------------------------------------------------------------------------------

    def jobs(self) -> Iterator[RemoteJob]:
        """Yield the jobs of the account that Tunepoint started."""
        page: dict[str, Any] = {"nameContains": "tp-", "maxResults": 100}
        while True:
            answer = self._asked(self._bedrock.list_model_customization_jobs, **page)
            for summary in answer.get("modelCustomizationJobSummaries", ()):
                yield _remote(summary)
            if not answer.get("nextToken"):
                return
            page["nextToken"] = answer["nextToken"]

    def create(
        self, run: TuningRun, *, file: str, validation: str | None, created: Callable[[], RemoteJob | None]
    ) -> RemoteJob:
        """Start a job and return it; see `TuningClient`.

        Names of jobs are used up by failed ones too, so each has an ending of its own.
        """
        name = f"{run.suffix}-{uuid.uuid4().hex[:8]}"
        request: dict[str, Any] = {
            "jobName": name,
            "customModelName": name,
            "clientRequestToken": name,
            "roleArn": self._role,
            "baseModelIdentifier": run.base,
            "customizationType": "FINE_TUNING",
            "trainingDataConfig": {"s3Uri": file},
            "outputDataConfig": {"s3Uri": self._bucket.address(name)},
            "hyperParameters": {"epochCount": str(run.epochs)},
        }
        if validation is not None:
            request["validationDataConfig"] = {"validators": [{"s3Uri": validation}]}

        def start() -> RemoteJob:
            answer = called(partial(self._bedrock.create_model_customization_job, **request))
            return RemoteJob(answer["jobArn"], "queued", file, run.suffix, None, None, None, None)

        return self._retry(start, created)

    def job(self, identity: str) -> RemoteJob:
        """Return a job as it is now."""
        job = _remote(self._asked(self._bedrock.get_model_customization_job, jobIdentifier=identity))
        seen = self._seen.setdefault(identity, [])
        if not seen or seen[-1].message != job.status:
            seen.append(JobEvent(job.status, None, is_error=False))
        return job

    def cancel(self, identity: str) -> RemoteJob:
        """Ask the cloud to stop a job; return the job."""
        self._asked(self._bedrock.stop_model_customization_job, jobIdentifier=identity)
        return self.job(identity)

    def events(self, identity: str) -> list[JobEvent]:
        """Return the statuses that a job had: the cloud says nothing else of it."""
        return list(self._seen.get(identity, ()))

    def _asked(self, call: Callable[..., T], **arguments: Any) -> T:
        return self._retry(partial(called, partial(call, **arguments)))


def _conversation(row: Row) -> Mapping[str, Any]:
    """Return a row in the form of Bedrock's conversations."""
    messages = row["messages"]
    system = [{"text": message["content"]} for message in messages if message["role"] == "system"]
    return {
        "schemaVersion": ROW_SCHEMA,
        **({"system": system} if system else {}),
        "messages": [
            {"role": message["role"], "content": [{"text": message["content"]}]}
            for message in messages
            if message["role"] != "system"
        ],
    }


def _remote(job: Mapping[str, Any]) -> RemoteJob:
    """Return a job, or a line of the list of jobs, as ours."""
    return RemoteJob(
        id=job["jobArn"],
        status=STATUSES.get(job["status"], "running"),
        file=job.get("trainingDataConfig", {}).get("s3Uri"),
        suffix=str(job["jobName"])[:SUFFIX_CHARACTERS],
        fingerprint=None,
        tuned_model=job.get("outputModelArn") or job.get("customModelArn"),
        trained_tokens=None,
        error=job.get("failureMessage"),
    )
