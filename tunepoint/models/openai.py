"""Any OpenAI-compatible endpoint, hosted or on this machine.

Keys come from the environment and go nowhere else: errors, records and reports never hold
them. Which parameters a server accepts (a schema, log-probabilities, a temperature) is found
out by sending them, once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass

import openai

from tunepoint.errors import ModelError, nearest
from tunepoint.models.backoff import backoff, wait_after_rate_limit
from tunepoint.models.chat import Usage
from tunepoint.models.chat_completions import Abilities, read_completion, request_body
from tunepoint.models.endpoints import Allow, Completion, Done, Request
from tunepoint.models.providers import CUSTOM_ENDPOINT_KEY, parse_model_name
from tunepoint.models.rate_limit import ConcurrencyLimiter

TIMEOUT_SECONDS = 120.0
MAX_ATTEMPTS = 6
MAX_CONCURRENCY = 64
MAX_FAILED_REQUESTS = 8
"""Requests in a row without an answer after all attempts: then the server counts as dead."""
POLL_SECONDS = 0.02
"""How often a request that may not be sent yet asks again."""
MAX_QUOTED_CHARACTERS = 300
"""Characters of a server's error that ours quotes."""


@dataclass(frozen=True)
class _Retry:
    """Why a call has to be made again, and how many seconds later."""

    reason: str | None
    """None if the server rejected a parameter, which is left out from now on; no attempt is lost."""
    seconds: float = 0.0


class OpenAIEndpoint:
    """One model behind `/v1/chat/completions`."""

    def __init__(
        self,
        name: str,
        *,
        concurrency: int = MAX_CONCURRENCY,
        timeout: float = TIMEOUT_SECONDS,
        attempts: int = MAX_ATTEMPTS,
        abilities: Abilities | None = None,
        pause: float = 0.5,
    ) -> None:
        """Start the thread that makes the calls; the first one is made by `complete`.

        Args:
            name: `provider/MODEL`, or `http://HOST/v1#MODEL`.
            concurrency: calls at once, at most.
            timeout: seconds of one attempt.
            attempts: of one request, the first included.
            abilities: of the server; found out by the first request if None.
            pause: seconds of the first backoff.

        Raises:
            ModelError: the name is not a model's, or its key is not set.

        """
        self.name = name
        self.address = parse_model_name(name)
        self.abilities = abilities
        """None until the server has answered."""
        self.failures: dict[str, int] = {}
        """What went wrong with single attempts, and how often."""
        self.attempts = attempts
        self._pause = pause
        self._limiter = ConcurrencyLimiter(concurrency)
        self._failed_in_a_row = 0
        self._key = self.address.key()
        self._client = openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self.address.url,
            max_retries=0,  # attempts are counted here, where rate limits lower the concurrency
            timeout=timeout,
            http_client=openai.DefaultAioHttpClient(timeout=timeout),
        )
        # A loop of our own: callers are synchronous, and some run inside another event loop.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=f"calls to {name}")
        self._thread.start()

    # -- the contract ----------------------------------------------------------------------

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests, many at a time; see `Endpoint`."""
        if not requests:
            return
        future = asyncio.run_coroutine_threadsafe(self._complete_all(requests, done, allow), self._loop)
        try:
            future.result()
        except (KeyboardInterrupt, CancelledError):
            future.cancel()
            raise
        except _UnknownModel:
            raise ModelError(
                f"{self.name} ({self.address.url}): no model {self.address.model!r}; "
                f"{nearest(self.address.model, self.models())}"
            ) from None

    def models(self) -> list[str]:
        """Return the names of the models that the server offers.

        Raises:
            ModelError: the server cannot be reached, or refuses the key.

        """

        async def list_names() -> list[str]:
            return sorted([model.id async for model in self._client.models.list()])

        try:
            return asyncio.run_coroutine_threadsafe(list_names(), self._loop).result()
        except openai.OpenAIError as error:
            raise self._systemic(error) from None

    def close(self) -> None:
        """Close the connections and stop the thread that serves them."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- many calls ------------------------------------------------------------------------

    async def _complete_all(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        waiting: Iterator[int] = iter(range(len(requests)))
        if self.abilities is None:
            # The first request goes alone: a parameter that the server rejects fails once, not 64 times.
            first = next(waiting)
            await _wait_until_allowed(allow, requests[first])
            self.abilities = Abilities()
            done(first, await self._complete_one(requests[first]))
        stop = asyncio.Event()

        async def work() -> None:
            for position in waiting:
                if stop.is_set():
                    return
                if not await _wait_until_allowed(allow, requests[position], stop):
                    return
                done(position, await self._complete_one(requests[position], stop))

        workers = [asyncio.create_task(work()) for _ in range(min(self._limiter.max_width, len(requests)))]
        try:
            await asyncio.gather(*workers)
        except BaseException as error:
            stop.set()
            if not isinstance(error, asyncio.CancelledError):
                # Calls under way are paid for: wait for them and keep them.
                await asyncio.wait(workers)
            for worker in workers:
                worker.cancel()
            raise

    async def _complete_one(self, request: Request, stop: asyncio.Event | None = None) -> Completion:
        """Complete a request, in several attempts if need be; raise for systemic faults only."""
        reason, attempt = "", 0
        while attempt < self.attempts:
            abilities = self.abilities
            async with self._limiter:
                outcome = await self._attempt(request, attempt)
            if isinstance(outcome, Completion):
                return outcome
            reason = outcome.reason or reason
            if outcome.reason is None and abilities == self.abilities:
                return self._transient("the server rejects this request in every form that Tunepoint knows")
            attempt += outcome.reason is not None
            if stop is not None and stop.is_set():
                return self._transient(reason)
            await asyncio.sleep(outcome.seconds)
        self._failed_in_a_row += 1
        # Without `stop` it is the very first request, and nothing shows that the server is alive.
        if self._failed_in_a_row >= MAX_FAILED_REQUESTS or stop is None:
            raise ModelError(
                f"{self.name}: no answer after {self.attempts} attempts ({reason}) from {self.address.url}. "
                "All answers so far are kept: check that the server is running, and run again"
            )
        return self._transient(f"no answer after {self.attempts} attempts: {reason}")

    async def _attempt(self, request: Request, attempt: int) -> Completion | _Retry:
        """Call the server once."""
        abilities, started = self.abilities or Abilities(), time.perf_counter()
        try:
            # The client's documented way to any path. `create` walks the types of all parameters
            # and of the reply, half of a call's time; ours are plain, and we read five fields.
            body = request_body(self.address.model, request, abilities)
            reply = await self._client.post("/chat/completions", body=body, cast_to=object)
            completion = read_completion(self.name, reply, time.perf_counter() - started)
        except openai.RateLimitError as error:
            seconds = self._after_rate_limit(error, attempt)
            self._limiter.throttled(seconds)
            return _Retry(self._count("HTTP 429"), seconds)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return self._after_rejection(abilities, error)
        except (openai.InternalServerError, openai.APIConnectionError) as error:
            return self._retry_later(_kind_of(error), attempt)
        except (openai.APIResponseValidationError, ValueError) as error:
            return self._retry_later(f"a reply that is not a completion ({type(error).__name__})", attempt)
        except openai.APIStatusError as error:
            raise self._systemic(error) from None
        self._limiter.succeeded()
        self._failed_in_a_row = 0
        return completion

    # -- faults ----------------------------------------------------------------------------

    def _retry_later(self, reason: str, attempt: int) -> _Retry:
        return _Retry(self._count(reason), backoff(attempt, self._pause))

    def _after_rate_limit(self, error: openai.RateLimitError, attempt: int) -> float:
        """Return the seconds to wait; an empty account is an error, for no wait fills it."""
        if error.code == "insufficient_quota":
            raise ModelError(
                f"{self.name}: the account's quota is used up (HTTP 429). All answers so far are kept: "
                "add credit and run again"
            )
        return wait_after_rate_limit(self.name, error.response.headers, attempt, pause=self._pause)

    def _after_rejection(self, abilities: Abilities, error: openai.APIStatusError) -> Completion | _Retry:
        """Drop the parameter that the server complains about, if it does; else the request is at fault."""
        message = self._message_of(error)
        fewer = abilities.without(message)
        if fewer is None:
            self._count(f"HTTP {error.status_code}")
            return Completion("", Usage(self.name), error=f"rejected (HTTP {error.status_code}): {message}")
        # Another call may have dropped it meanwhile; then its abilities count, which are as few or fewer.
        if self.abilities is None or self.abilities == abilities:
            self.abilities = fewer
        return _Retry(None)

    def _transient(self, error: str) -> Completion:
        """Return a completion without text that is not recorded, so that the next run asks again."""
        return Completion("", Usage(self.name), error=error, lasting=False)

    def _systemic(self, error: openai.OpenAIError) -> ModelError:
        """Return the error for a fault that every further call would have too."""
        status = getattr(error, "status_code", None)
        where = f"{self.name} ({self.address.url})"
        if status in (401, 403):
            key = self.address.key_name or CUSTOM_ENDPOINT_KEY
            return ModelError(f"{where}: the key was refused (HTTP {status}); check {key}")
        if status == 404:
            return _UnknownModel(f"{where}: no model {self.address.model!r}")
        return ModelError(f"{where}: {_kind_of(error)}: {self._message_of(error)}")

    def _count(self, failure: str) -> str:
        self.failures[failure] = self.failures.get(failure, 0) + 1
        return failure

    def _message_of(self, error: openai.OpenAIError) -> str:
        """Return the server's own words without the key, which some servers repeat."""
        body = getattr(error, "body", None)
        message = body.get("message") if isinstance(body, Mapping) else None
        text = str(message or getattr(error, "message", "") or error)
        return text.replace(self._key, "…")[:MAX_QUOTED_CHARACTERS]


class _UnknownModel(ModelError):
    """The server has no such model; the caller lists those that it has."""


async def _wait_until_allowed(allow: Allow, request: Request, stop: asyncio.Event | None = None) -> bool:
    """Wait until a request may be sent; return False if all were stopped meanwhile."""
    while not allow(request):
        await asyncio.sleep(POLL_SECONDS)
        if stop is not None and stop.is_set():
            return False
    return True


def _kind_of(error: openai.OpenAIError) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "no connection, or no reply in time"
    if isinstance(error, openai.APIConnectionError):
        return "no connection"
    return f"HTTP {getattr(error, 'status_code', '?')}"
