"""What a job asks of its provider, and how often a call is tried.

Keys come from the environment and go nowhere else: errors never hold them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.arms.hosted.remote_job import JobEvent, RemoteJob, error_message
from tunepoint.arms.hosted.rows import Row, jsonl
from tunepoint.arms.hosted.tuning_run import TuningRun
from tunepoint.errors import ModelError
from tunepoint.models.backoff import backoff, wait_after_rate_limit
from tunepoint.models.wire import SdkErrors

T = TypeVar("T")

MAX_ATTEMPTS = 6
"""Of one call; the waits between them add up to about half a minute."""
TIMEOUT_SECONDS = 120.0
MAX_QUOTED_CHARACTERS = 300
"""Of the provider's own words in an error."""
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes with which OpenAI says by HTTP 429 that an account is empty."""
READING_POLL_SECONDS, MAX_READING_SECONDS = 5.0, 1_800.0
"""Between two looks at a file that the provider has not read yet, and in all."""


class TuningClient(ABC):
    """A client of one provider's files and jobs; close it, as by `with`.

    A call whose answer is lost may have had its effect: before each further attempt the client
    looks for it at the provider, so that no file is stored and no job is started twice.

    Every method raises a ModelError if the provider refuses, and after the last attempt.
    """

    errors: ClassVar[SdkErrors]
    """What the provider's client raises."""

    def __init__(
        self,
        provider: TuningProvider,
        url: str,
        *,
        key: str | None,
        key_hint: str,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to call.

        Args:
            provider: whose files and jobs.
            url: where it listens.
            key: with which it is called; None if the provider's client finds credentials by itself.
            key_hint: what to check where the key is refused.
            sleep: waits for some seconds.
            clock: seconds that have passed.

        """
        self.provider, self.url = provider, url
        self.sleep, self.clock = sleep, clock
        self._key, self._key_hint = key, key_hint

    def __enter__(self) -> TuningClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the contract ----------------------------------------------------------------------

    def encoded(self, rows: Sequence[Row]) -> bytes:
        """Return rows as the file that the provider reads."""
        return jsonl(rows)

    @abstractmethod
    def stored(self, name: str, content: bytes) -> str | None:
        """Return the id of the whole file with this name; None if the provider has none."""

    @abstractmethod
    def upload(self, name: str, content: bytes) -> str:
        """Return the id of the file with this name and content, uploaded if the provider has none."""

    @abstractmethod
    def jobs(self) -> Iterator[RemoteJob]:
        """Yield the jobs of the account that may be a run's."""

    @abstractmethod
    def create(
        self, run: TuningRun, *, file: str, validation: str | None, created: Callable[[], RemoteJob | None]
    ) -> RemoteJob:
        """Start a job and return it.

        Args:
            run: what to train.
            file: id of the uploaded training rows.
            validation: id of the uploaded validation rows.
            created: looks for the job at the provider before another attempt.

        """

    @abstractmethod
    def job(self, identity: str) -> RemoteJob:
        """Return a job as it is now."""

    @abstractmethod
    def cancel(self, identity: str) -> RemoteJob:
        """Ask the provider to stop a job; return the job."""

    @abstractmethod
    def events(self, identity: str) -> list[JobEvent]:
        """Return what happened to a job, the oldest first."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    # -- attempts --------------------------------------------------------------------------

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
            except self.errors.rate_limit as error:
                fault, wait = "HTTP 429", self._after_rate_limit(error, attempt)
            except self.errors.server as error:
                fault, wait = f"HTTP {_status(error)}", backoff(attempt)
            except self.errors.connection:
                fault, wait = "no connection, or it was cut", backoff(attempt)
            except self.errors.any as error:
                raise self._refusal(error) from None
            except ValueError:
                fault, wait = "a reply that is not JSON", backoff(attempt)
            self.sleep(wait)
        raise ModelError(
            f"{self.provider.name}: no answer after {MAX_ATTEMPTS} attempts ({fault}) from {self.url}. What "
            "was done so far is kept: check that the server can be reached, and run again"
        )

    def _wait_until_read(self, identity: str, look: Callable[[], tuple[str | None, str | None]]) -> None:
        """Wait until the provider has read a file.

        Args:
            identity: of the file.
            look: returns the status, None once the file is read, and why it cannot be.

        Raises:
            ModelError: it cannot read the file, or takes too long.

        """
        began = self.clock()
        while True:
            status, fault = look()
            if fault is not None:
                raise ModelError(f"{self.provider.name}: it cannot read file {identity}: {fault}")
            if status is None:
                return
            if self.clock() - began > MAX_READING_SECONDS:
                raise ModelError(
                    f"{self.provider.name}: file {identity} is still {status!r} after "
                    f"{MAX_READING_SECONDS:.0f} s; it is kept: run again later"
                )
            self.sleep(READING_POLL_SECONDS)

    # -- refusals --------------------------------------------------------------------------

    def _after_rate_limit(self, error: Exception, attempt: int) -> float:
        """Return the seconds to wait; an empty account also gives HTTP 429, and no wait helps there."""
        if getattr(error, "code", None) in NO_QUOTA or getattr(error, "type", None) == NO_QUOTA[0]:
            raise self._no_rights(error) from None
        headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
        return wait_after_rate_limit(self.provider.name, headers, attempt)

    def _refusal(self, error: Exception) -> ModelError:
        """Return the error for a fault that another attempt would have too."""
        name, words, status = self.provider.name, self._words_of(error), _status(error)
        if status is None:
            return ModelError(f"{name}: {words}")
        if status in (402, 403):
            return self._no_rights(error)
        if status == 401:
            return ModelError(f"{name}: the key was refused (HTTP 401); {self._key_hint}")
        return ModelError(
            f"{name}: HTTP {status} from {self._place_of(error)}: {words}. What was done so far "
            "is kept: fix the cause and run again"
        )

    def _no_rights(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self.provider.name}: refused (HTTP {_status(error)}): {self._words_of(error)}. What was "
            "done so far is kept: check your quota, credit and permissions at the provider, and run again"
        )

    def _place_of(self, error: Exception) -> str:
        """Return the path of a refused call, or the address where only that is known."""
        request: Any = getattr(error, "request", None)
        return self.url if request is None else str(request.url.path)

    def _words_of(self, error: Exception) -> str:
        """Return the provider's own words, the key taken out."""
        words = error_message(getattr(error, "body", None)) or getattr(error, "message", None) or str(error)
        return self._without_key(words)[:MAX_QUOTED_CHARACTERS]

    def _without_key(self, text: str) -> str:
        # Without a key the client sends "none", a word that stands in honest texts.
        key = self._key or ""
        return text.replace(key, "…") if len(key) > len("none") else text


def _status(error: Exception) -> int | None:
    """Return the HTTP status of a refusal; None where there was no reply."""
    status: int | None = getattr(error, "status_code", None)
    return status
