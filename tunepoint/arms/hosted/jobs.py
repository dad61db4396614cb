"""The job of a run: found, started once, followed, stopped.

A run has a fingerprint, which names its file and its job. The state file is written before and
after every step, and before anything is created it is looked for at the provider: a process that
is killed at any point resumes with the same job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tunepoint.arms.hosted.client import TuningClient
from tunepoint.arms.hosted.job_state import JobState
from tunepoint.arms.hosted.opening import open_client
from tunepoint.arms.hosted.providers import PROVIDERS
from tunepoint.arms.hosted.remote_job import FAILED, RemoteJob
from tunepoint.arms.hosted.tuning_run import TuningRun
from tunepoint.errors import ModelError, nearest

Progress = Callable[[str, float | None], None]
"""Called with what the provider says, and the share that is done where it says so, 0..1."""

POLL_SECONDS = 10.0
"""Between two looks at a running job."""
PATIENCE_SECONDS = 24 * 3600.0
"""To watch one job before giving up; the job itself continues."""


def quiet(message: str, share: float | None) -> None:
    """Drop progress that nobody watches."""


@dataclass(frozen=True)
class HostedJob:
    """The one job of a run at a provider."""

    client: TuningClient
    run: TuningRun
    path: Path
    """Its state file."""

    def existing(self) -> JobState | None:
        """Return the job if it is at work or done, by the state file or by the provider's list.

        Failed and cancelled jobs do not count: after them, the next run starts a new job.

        Raises:
            ModelError: the provider cannot be reached.

        """
        job = JobState.read(self.path)
        if job is not None and job.id is not None and job.status not in FAILED:
            return job
        job = job or self._new()
        content = self.client.encoded(self.run.rows)
        remote = self._at_provider(self.client.stored(self.run.file_name("train"), content))
        return None if remote is None else replace(job, message=None).updated(remote).save(self.path)

    def start(self) -> JobState:
        """Upload the rows and create the job; a file or a job that exists is used.

        Raises:
            ModelError: the provider refuses or gives no answer; what was done is in the state file.

        """
        client, run = self.client, self.run
        # these may refuse: before anything is written or uploaded
        run.hyperparameters(client.provider)
        rows, validation_rows = client.encoded(run.rows), client.encoded(run.validation)
        job = self._new().save(self.path)
        file = client.upload(run.file_name("train"), rows)
        job = replace(job, file=file).save(self.path)
        validation = None
        if run.validation:
            validation = client.upload(run.file_name("validation"), validation_rows)
        job = replace(job, status="creating", validation_file=validation).save(self.path)
        remote = client.create(run, file=file, validation=validation, created=lambda: self._at_provider(file))
        return job.updated(remote).save(self.path)

    def watch(
        self, job: JobState, *, progress: Progress = quiet, patience: float = PATIENCE_SECONDS
    ) -> JobState:
        """Follow a started job until it is done.

        Args:
            job: its state, which is saved at every change.
            progress: gets the provider's events, each once.
            patience: seconds before giving up; the job itself continues.

        Raises:
            ModelError: the job failed or was cancelled, or took longer than `patience`.

        """
        identity = job.id
        assert identity is not None, "a job is watched after it was started"
        client, began, reported = self.client, self.client.clock(), 0
        while True:
            now = job.updated(client.job(identity))
            job = now.save(self.path) if now != job else job
            events = client.events(identity)[reported:]
            reported += len(events)
            for event in events:
                progress(event.message, event.share)
            if job.status == "succeeded":
                return job
            if job.status in FAILED:
                complaints = [event.message for event in events if event.is_error]
                raise ModelError(_failure(job, complaints, self.path))
            if client.clock() - began > patience:
                raise ModelError(
                    f"{job.provider}: job {identity} is still {job.status} after {patience:.0f} s. It "
                    f"continues at the provider, and its state is in {self.path}: run again to watch it"
                )
            client.sleep(POLL_SECONDS)

    def cancel(self) -> JobState:
        """Stop the job; one that is over stays as it is.

        Raises:
            ModelError: no such job was started, or the provider refuses.

        """
        job = self.existing()
        if job is None or job.id is None:
            raise ModelError(
                f"{self.client.provider.name}: this run has no job at work ({self.path}), so there is "
                "nothing to cancel"
            )
        return _stop(self.client, job, job.id, self.path)

    def _new(self) -> JobState:
        return JobState(self.run.fingerprint, self.client.provider.name, self.run.base)

    def _at_provider(self, file: str | None) -> RemoteJob | None:
        """Return the provider's job for the run: a finished one before one at work."""
        live = [job for job in self.client.jobs() if self._is_ours(job, file) and job.status not in FAILED]
        return min(live, key=lambda job: job.status != "succeeded", default=None)

    def _is_ours(self, job: RemoteJob, file: str | None) -> bool:
        # Not every provider keeps metadata or lists suffixes: any of the three marks will do.
        has_file = file is not None and job.file == file
        return has_file or job.fingerprint == self.run.fingerprint or job.suffix == self.run.suffix


def jobs_in(folder: Path) -> dict[Path, JobState]:
    """Return the jobs whose state files are in a folder.

    Raises:
        ModelError: a file is damaged.

    """
    jobs = {path: JobState.read(path) for path in sorted(folder.glob("*.json"))}
    return {path: job for path, job in jobs.items() if job is not None}


def cancel_job(folder: Path, identity: str) -> JobState:
    """Stop a job by the id that its provider gave it; one that is over stays as it is.

    Raises:
        ModelError: no state file has this id, or the provider refuses.

    """
    jobs = {job.id: (path, job) for path, job in jobs_in(folder).items() if job.id is not None}
    if identity not in jobs:
        raise ModelError(f"{folder}: no job {identity!r}; {nearest(identity, jobs)}")
    path, job = jobs[identity]
    with open_client(PROVIDERS[job.provider]) as client:
        return _stop(client, job, identity, path)


def _stop(client: TuningClient, job: JobState, identity: str, path: Path) -> JobState:
    job = job.updated(client.job(identity)).save(path)
    if job.status in (*FAILED, "succeeded"):
        return job
    return job.updated(client.cancel(identity)).save(path)


def _failure(job: JobState, complaints: list[str], path: Path) -> str:
    reason = job.message or (complaints[-1] if complaints else "the provider does not say why")
    outcome = "was cancelled" if job.status == "cancelled" else f"failed: {reason}"
    return (
        f"{job.provider}: job {job.id} {outcome}. The uploaded file {job.file} and the state in {path} are "
        "kept: fix the cause and run again, and a new job starts with that file"
    )
