"""One model behind a provider's API, whatever its wire format: calls at once, attempts, faults.

A `Wire` knows the format and the provider's client. Keys come from the environment and go nowhere else:
errors, records and reports never hold them. Which parameters a server accepts (a schema, log-probabilities,
a temperature) is found out by sending them, once.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import aiohttp

from tunepoint.errors import ModelError, nearest
from tunepoint.models.abilities import Abilities, is_bad_key, refusal_words, refused_value
from tunepoint.models.backoff import backoff, wait_after_rate_limit
from tunepoint.models.chat import Usage
from tunepoint.models.chat_completions import UNCOUNTED, TransientFault
from tunepoint.models.endpoints import Allow, Completion, Done, Request
from tunepoint.models.providers import Address, parse_model_name
from tunepoint.models.rate_limit import ConcurrencyLimiter
from tunepoint.models.wire import Wire

TIMEOUT_SECONDS = 120.0
"""Of one attempt."""
MAX_ATTEMPTS = 6
MAX_CONCURRENCY = 64
MAX_FAILED_REQUESTS = 8
"""Requests in a row without an answer after all attempts: then the server counts as dead."""
POLL_SECONDS = 0.02
"""How often a request that may not be sent yet asks again."""
MAX_FIRST_REFUSALS = 8
"""Requests that a server may refuse before its first answer: then no request will be answered."""
MAX_QUOTED_CHARACTERS = 300
"""Characters of a server's error that ours quotes."""
AGAIN_LATER = (408, 409, 425)
"""Statuses of the moment: a later attempt may succeed."""
_NO_CREDIT = re.compile(r"credit balance|(insufficient|not enough|no) (credit|balance|funds)")
_MODERATED = re.compile(r"moderat|flagged|content.{0,10}(policy|filter|management)|safety|blocked")


@dataclass(frozen=True)
class _Retry:
    """Why a call has to be made again, and how many seconds later."""

    reason: str | None
    """None if the server rejected a parameter, which is left out from now on; no attempt is lost."""
    seconds: float = 0.0


class HostedEndpoint:
    """One model behind a provider's API."""

    def __init__(
        self,
        name: str,
        *,
        concurrency: int = MAX_CONCURRENCY,
        timeout: float = TIMEOUT_SECONDS,
        attempts: int = MAX_ATTEMPTS,
        abilities: Abilities | None = None,
        pause: float = 0.5,
        key_env: str | None = None,
    ) -> None:
        """Start the thread that makes the calls.

        Args:
            name: `provider/MODEL`, or `http://HOST/v1#MODEL`.
            concurrency: calls at once, at most.
            timeout: seconds of one attempt.
            attempts: of one request, the first included.
            abilities: of the server; found out by the first request if None.
            pause: seconds of the first backoff.
            key_env: environment variable with the key; see `parse_model_name`.

        Raises:
            ModelError: the name is not a model's, or its key is not set.

        """
        self.name = name
        self.wire = self.open_wire(parse_model_name(name, key_env), timeout)
        self.address = self.wire.address
        self.abilities = abilities
        """None until the server has answered."""
        self.failures: dict[str, int] = {}
        """What went wrong with single attempts, and how often."""
        self.attempts, self._pause = attempts, pause
        self._limiter = ConcurrencyLimiter(concurrency)
        self._failed_in_a_row = self._answers = self._first_refusals = 0
        self._key = self.address.key()
        # A loop of our own: callers are synchronous, and some run inside another event loop.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=f"calls to {name}")
        self._thread.start()

    def open_wire(self, address: Address, timeout: float) -> Wire:
        """Return the provider's format and client.

        Args:
            address: of the model.
            timeout: seconds of one attempt.

        Raises:
            ModelError: the key is not set.

        """
        raise NotImplementedError

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
        except _NotFound as error:
            raise self._not_found(str(error)) from None

    def models(self) -> list[str]:
        """Return the names of the models that the server offers.

        Raises:
            ModelError: the server cannot be reached, or refuses the key.

        """
        try:
            return asyncio.run_coroutine_threadsafe(self.wire.models(), self._loop).result()
        except self.wire.errors.any as error:
            raise self._systemic(error) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ModelError(
                f"{self.name} ({self.address.url}): its list of models cannot be read "
                f"({type(error).__name__}); is it a server of models?"
            ) from None

    def close(self) -> None:
        """Close the connections and stop the thread that serves them."""
        asyncio.run_coroutine_threadsafe(self.wire.close(), self._loop).result()
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
            self.abilities = self.wire.abilities
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
            await asyncio.wait(workers)  # until each has closed its connection
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
        abilities, errors = self.abilities or self.wire.abilities, self.wire.errors
        try:
            completion = await self.wire.send(request, abilities)
        except errors.rate_limit as error:
            seconds = self._after_rate_limit(error, attempt)
            self._limiter.throttled(seconds)
            return _Retry(self._count("HTTP 429"), seconds)
        except (errors.server, errors.connection) as error:
            return self._retry_later(self._kind_of(error), attempt)
        except (aiohttp.ClientError, OSError, EOFError) as error:
            return self._retry_later(f"a broken reply ({type(error).__name__})", attempt)
        except errors.status as error:
            if _status(error) in AGAIN_LATER:
                return self._retry_later(self._kind_of(error), attempt)
            return self._after_refusal(abilities, error, dict(request.parameters))
        except TransientFault as error:
            return self._retry_later(str(error), attempt)
        except (errors.validation, ValueError) as error:
            return self._retry_later(f"a reply that is not a completion ({error})"[:100], attempt)
        self._limiter.succeeded()
        self._failed_in_a_row = 0
        self._learn_from(completion, request)
        return completion

    def _learn_from(self, completion: Completion, request: Request) -> None:
        """Note an answer, and whether the server keeps to the limit of output tokens."""
        self._answers += completion.error is None
        usage = completion.usage
        if usage.estimated:
            self._count(UNCOUNTED)
        elif usage.output_tokens > request.max_output_tokens and self.abilities is not None:
            # Some servers pass over a parameter that they do not know: they may know the older one.
            self.abilities = self.abilities.with_old_token_parameter()

    # -- faults ----------------------------------------------------------------------------

    def _retry_later(self, reason: str, attempt: int) -> _Retry:
        return _Retry(self._count(reason), backoff(attempt, self._pause))

    def _after_rate_limit(self, error: Exception, attempt: int) -> float:
        """Return the seconds to wait; an empty account is an error, for no wait fills it."""
        if getattr(error, "code", None) == "insufficient_quota":
            raise ModelError(
                f"{self.name}: the account's quota is used up (HTTP 429). All answers so far are kept: "
                "add credit and run again"
            )
        headers = getattr(getattr(error, "response", None), "headers", {})
        return wait_after_rate_limit(self.name, headers, attempt, pause=self._pause)

    def _after_refusal(
        self, abilities: Abilities, error: Exception, parameters: Mapping[str, Any]
    ) -> Completion | _Retry:
        """Drop the parameter that the server refuses, if it does; else the request is at fault, or all are.

        Raises:
            ModelError: every further call would be refused too.

        """
        words, status = self._message_of(error), _status(error)
        refused = refused_value(words, parameters)
        if refused is not None:  # other values may do, so the parameter stays
            fault = f"the server does not take {refused} = {parameters[refused]!r}: {words}"
            return Completion("", Usage(self.name), error=fault)
        fewer = None if status in (401, 402, 404) else abilities.without(words, parameters)
        if fewer is not None:
            # Another call may have dropped it meanwhile; then its abilities count, which are as few or fewer.
            if self.abilities is None or self.abilities == abilities:
                self.abilities = fewer
            return _Retry(None)
        if _NO_CREDIT.search(words.casefold()):
            raise self._without_credit(status, words)
        moderated = status == 403 and _MODERATED.search(words.casefold()) is not None
        if (status in (401, 402, 403, 404) and not moderated) or is_bad_key(words):
            raise self._systemic(error) from None
        self._count(f"HTTP {status}")
        rejected = f"rejected (HTTP {status}): {words}"
        if not self._answers:
            self._first_refusals += 1
            if self._first_refusals >= MAX_FIRST_REFUSALS:
                raise ModelError(
                    f"{self.name} ({self.address.url}) refused its first {self._first_refusals} requests and "
                    f"answered none; the last: HTTP {status}: {words}"
                )
        # Before its first answer nothing shows that the request is at fault and not the server.
        return Completion("", Usage(self.name), error=rejected, lasting=self._answers > 0)

    def _transient(self, error: str) -> Completion:
        """Return a completion without text that is not recorded, so that the next run asks again."""
        return Completion("", Usage(self.name), error=error, lasting=False)

    def _systemic(self, error: Exception) -> ModelError:
        """Return the error for a fault that every further call would have too."""
        status = _status(error)
        where, words = f"{self.name} ({self.address.url})", self._message_of(error)
        hint = self.address.key_hint
        if status == 404:
            return _NotFound(words)
        if status == 402:
            return self._without_credit(status, words)
        if status == 401 or is_bad_key(words):
            quoted = "" if status == 401 else f": {words}"  # servers repeat parts of the key there
            return ModelError(f"{where}: the key was refused (HTTP {status}{quoted}); {hint}")
        if status == 403:
            return ModelError(f"{where}: not allowed (HTTP 403: {words}); {hint}")
        return ModelError(f"{where}: {self._kind_of(error)}: {words}")

    def _without_credit(self, status: int | None, words: str) -> ModelError:
        return ModelError(
            f"{self.name} ({self.address.url}): the account has no credit (HTTP {status}: {words}). "
            "All answers so far are kept: add some and run again"
        )

    def _not_found(self, words: str) -> ModelError:
        """Return the error for HTTP 404: another model, or another address."""
        try:
            models = self.models()
        except ModelError:
            models = []
        if models and self.address.model not in models:
            return ModelError(
                f"{self.name} ({self.address.url}): no model {self.address.model!r}; "
                f"{nearest(self.address.model, models)}"
            )
        return ModelError(
            f"{self.name}: HTTP 404 at {self.address.url}{self.wire.path} ({words}); {self.wire.address_hint}"
        )

    def _kind_of(self, error: Exception) -> str:
        if isinstance(error, self.wire.errors.timeout):
            return "no connection, or no reply in time"
        if isinstance(error, self.wire.errors.connection):
            return "no connection"
        return f"HTTP {_status(error) or '?'}"

    def _count(self, failure: str) -> str:
        self.failures[failure] = self.failures.get(failure, 0) + 1
        return failure

    def _message_of(self, error: Exception) -> str:
        """Return the server's own words without the key, which some servers repeat."""
        text = refusal_words(getattr(error, "body", None))
        response = getattr(error, "response", None)
        if not text and response is not None:
            text = refusal_words(response.text)
        text = text or str(getattr(error, "message", "") or error)
        return text.replace(self._key, "…")[:MAX_QUOTED_CHARACTERS]


class _NotFound(ModelError):
    """HTTP 404: the caller finds out whether the model or the address is unknown."""


async def _wait_until_allowed(allow: Allow, request: Request, stop: asyncio.Event | None = None) -> bool:
    """Wait until a request may be sent; return False if all were stopped meanwhile."""
    while not allow(request):
        await asyncio.sleep(POLL_SECONDS)
        if stop is not None and stop.is_set():
            return False
    return True


def _status(error: Exception) -> int | None:
    """The HTTP status of a refusal; None where there was no reply."""
    status: int | None = getattr(error, "status_code", None)
    return status
