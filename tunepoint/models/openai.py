"""Any OpenAI-compatible endpoint, hosted or on this machine.

Keys come from the environment and go nowhere else: errors, records and reports never hold
them. What a server can do (schemas, log-probabilities, a temperature) is found out by
asking it, once.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import Any

import openai

from tunepoint.errors import ModelError, nearest
from tunepoint.models.backoff import backoff, wait_after_rate_limit
from tunepoint.models.chat import Message, Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Request
from tunepoint.models.providers import CUSTOM_ENDPOINT_KEY, parse_model_name
from tunepoint.models.rate_limit import ConcurrencyLimiter

TIMEOUT = 120.0
ATTEMPTS = 6
CONCURRENCY = 64
DEAD = 8
"""Requests in a row that got no answer after all attempts: then the server is taken for dead."""


@dataclass(frozen=True)
class Abilities:
    """What a server takes; found out by asking."""

    schema: bool = True
    logprobs: bool = True
    temperature: bool = True
    seed: bool = True
    token_parameter: str = "max_completion_tokens"

    def without(self, message: str) -> Abilities | None:
        """The abilities left after a complaint, or None if it is about something else."""
        said = message.casefold()
        if self.schema and any(word in said for word in ("response_format", "schema", "guided")):
            return replace(self, schema=False)
        if self.logprobs and "logprob" in said:
            return replace(self, logprobs=False)
        if self.token_parameter == "max_completion_tokens" and "max_completion_tokens" in said:
            return replace(self, token_parameter="max_tokens")
        if self.token_parameter == "max_tokens" and "max_tokens" in said and "max_completion" in said:
            return replace(self, token_parameter="max_completion_tokens")
        if self.temperature and "temperature" in said:
            return replace(self, temperature=False)
        if self.seed and "seed" in said:
            return replace(self, seed=False)
        return None


class OpenAIEndpoint:
    """One model behind `/v1/chat/completions`."""

    def __init__(
        self,
        name: str,
        *,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        abilities: Abilities | None = None,
        pause: float = 0.5,
    ) -> None:
        self.name = name
        self.address = parse_model_name(name)
        self.abilities = abilities
        """None until the server was asked."""
        self.log: dict[str, int] = {}
        """What went wrong on the way, and how often."""
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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=f"calls to {name}")
        self._thread.start()

    # -- the contract ----------------------------------------------------------------------

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests, many at a time; see `Endpoint`."""
        if not requests:
            return
        future = asyncio.run_coroutine_threadsafe(self._all(requests, done, allow), self._loop)
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
        """Names of the models that the server offers.

        Raises:
            ModelError: it cannot be reached, or refuses the key.

        """

        async def listed() -> list[str]:
            return sorted([model.id async for model in self._client.models.list()])

        try:
            return asyncio.run_coroutine_threadsafe(listed(), self._loop).result()
        except openai.OpenAIError as error:
            raise self._systemic(error) from None

    def close(self) -> None:
        """Close connections and the thread that serves them."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- many calls ------------------------------------------------------------------------

    async def _all(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        waiting: Iterator[int] = iter(range(len(requests)))
        if self.abilities is None:
            first = next(waiting)
            await _allowed(allow, requests[first])
            self.abilities = Abilities()
            done(first, await self._patiently(requests[first]))
        stop = asyncio.Event()

        async def worker() -> None:
            for position in waiting:
                if stop.is_set():
                    return
                if not await _allowed(allow, requests[position], stop):
                    return
                done(position, await self._patiently(requests[position], stop))

        workers = [asyncio.create_task(worker()) for _ in range(min(self._limiter.most, len(requests)))]
        try:
            await asyncio.gather(*workers)
        except BaseException as error:
            stop.set()
            if not isinstance(error, asyncio.CancelledError):
                # What is on its way is paid for: wait for it and keep it.
                await asyncio.wait(workers)
            for task in workers:
                task.cancel()
            raise

    async def _patiently(self, request: Request, stop: asyncio.Event | None = None) -> Completion:
        """One request, with as many attempts as it takes; raises for systemic faults only."""
        why, attempt = "", 0
        while attempt < self.attempts:
            able = self.abilities
            async with self._limiter:
                outcome, wait = await self._once(request, attempt)
            if isinstance(outcome, Completion):
                return outcome
            why = outcome or why
            if outcome is None and able == self.abilities:
                return self._fault("the server takes this request in no form that we know")
            attempt += outcome is not None
            if stop is not None and stop.is_set():
                return self._fault(why)
            await asyncio.sleep(wait)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= DEAD or stop is None:
            raise ModelError(
                f"{self.name}: no answer after {self.attempts} attempts ({why}) from {self.address.url}; "
                "what was answered is kept: see that it is running, and run again"
            )
        return self._fault(f"no answer after {self.attempts} attempts: {why}")

    async def _once(self, request: Request, attempt: int) -> tuple[Completion | str | None, float]:
        """A completion; or why there is none and how long to wait; or None for other abilities."""
        able, started = self.abilities or Abilities(), time.perf_counter()
        try:
            # The client's documented way to any path. `create` walks the types of all parameters
            # and of the reply, half of a call's time; ours are plain, and we read five fields.
            body = self._arguments(request, able)
            reply = await self._client.post("/chat/completions", body=body, cast_to=object)
            completion = self._completion(reply, time.perf_counter() - started)
        except openai.RateLimitError as error:
            wait = self._after_rate_limit(error, attempt)
            self._limiter.throttled(wait)
            return self._note("HTTP 429"), wait
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return self._less_able(able, error), 0.0
        except (openai.InternalServerError, openai.APIConnectionError) as error:
            return self._note(_kind_of(error)), backoff(attempt, self._pause)
        except (openai.APIResponseValidationError, ValueError) as error:
            what = f"a reply that is not a completion ({type(error).__name__})"
            return self._note(what), backoff(attempt, self._pause)
        except openai.APIStatusError as error:
            raise self._systemic(error) from None
        self._limiter.succeeded()
        self._failed_in_a_row = 0
        return completion, 0.0

    def _less_able(self, able: Abilities, error: openai.APIStatusError) -> Completion | None:
        """Drop the ability that the server complains about, if it does; else the request is at fault."""
        said = self._said(error)
        fewer = able.without(said)
        if fewer is None:
            self._note(f"HTTP {error.status_code}")
            return Completion("", Usage(self.name), error=f"rejected (HTTP {error.status_code}): {said}")
        if self.abilities is None or self.abilities == able:
            self.abilities = fewer
        return None

    def _arguments(self, request: Request, able: Abilities) -> dict[str, Any]:
        """The call as keyword arguments, without what the server does not take."""
        arguments: dict[str, Any] = {
            "model": self.address.model,
            "messages": [_message(turn) for turn in request.messages],
            able.token_parameter: request.max_output_tokens,
        }
        if able.temperature:
            arguments["temperature"] = request.temperature
        if able.seed:
            arguments["seed"] = request.sample
        if able.logprobs and request.choices:
            arguments["logprobs"] = True
        if able.schema and request.schema is not None:
            schema = {"name": "answer", "schema": dict(request.schema), "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    # -- what comes back -------------------------------------------------------------------

    def _completion(self, reply: Any, seconds: float) -> Completion:
        """The completion in a reply's JSON; a ValueError if it is not one."""
        try:
            choice = reply["choices"][0]
            message = choice["message"]
            usage = _usage(self.name, reply.get("usage") or {}, seconds)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ValueError("no choices in it") from None
        text, reason = message.get("content") or "", choice.get("finish_reason")
        if message.get("refusal"):
            return Completion("", usage, error=f"refused: {message['refusal'][:200]}")
        if reason == "content_filter":
            return Completion("", usage, error="refused by the content filter")
        if reason == "length" and not text:
            return Completion("", usage, error="cut off before an answer: all output tokens were spent")
        return Completion(text, usage, confidence=_confidence(choice.get("logprobs") or {}))

    def _fault(self, why: str) -> Completion:
        return Completion("", Usage(self.name), error=why, lasting=False)

    def _systemic(self, error: openai.OpenAIError) -> ModelError:
        """A fault that every further call would have too."""
        status = getattr(error, "status_code", None)
        where = f"{self.name} ({self.address.url})"
        if status in (401, 403):
            key = self.address.key_name or CUSTOM_ENDPOINT_KEY
            return ModelError(f"{where}: the key was refused (HTTP {status}); check {key}")
        if status == 404:
            return _UnknownModel(f"{where}: no model {self.address.model!r}")
        return ModelError(f"{where}: {_kind_of(error)}: {self._said(error)}")

    def _after_rate_limit(self, error: openai.RateLimitError, attempt: int) -> float:
        """Seconds to wait; an empty account is not a rate limit."""
        if error.code == "insufficient_quota":
            raise ModelError(
                f"{self.name}: the account's quota is used up (HTTP 429); what was answered is kept: "
                "add credit and run again"
            )
        return wait_after_rate_limit(self.name, error.response.headers, attempt, pause=self._pause)

    def _note(self, what: str) -> str:
        self.log[what] = self.log.get(what, 0) + 1
        return what

    def _said(self, error: openai.OpenAIError) -> str:
        """The server's own words, the key taken out."""
        body = getattr(error, "body", None)
        said = body.get("message") if isinstance(body, Mapping) else None
        text = str(said or getattr(error, "message", "") or error)
        return text.replace(self._key, "…")[:300]


async def _allowed(allow: Allow, request: Request, stop: asyncio.Event | None = None) -> bool:
    """Wait until a request may be sent; False if all was stopped meanwhile."""
    while not allow(request):
        await asyncio.sleep(0.02)
        if stop is not None and stop.is_set():
            return False
    return True


class _UnknownModel(ModelError):
    """The server has no such model; the caller asks which it has."""


def _message(turn: Message) -> dict[str, str]:
    return {"role": turn.role, "content": turn.content}


def _kind_of(error: openai.OpenAIError) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "no connection, or no reply in time"
    if isinstance(error, openai.APIConnectionError):
        return "no connection"
    return f"HTTP {getattr(error, 'status_code', '?')}"


def _usage(name: str, given: Mapping[str, Any], seconds: float) -> Usage:
    prompt = given.get("prompt_tokens_details") or {}
    output = given.get("completion_tokens_details") or {}
    return Usage(
        name,
        input_tokens=given.get("prompt_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens") or 0,
        output_tokens=given.get("completion_tokens") or 0,
        reasoning_tokens=output.get("reasoning_tokens") or 0,
        seconds=seconds,
    )


def _confidence(logprobs: Mapping[str, Any]) -> float | None:
    """Probability of the text: the exponential of its summed log-probabilities."""
    tokens = logprobs.get("content")
    if not tokens:
        return None
    return min(1.0, math.exp(sum(float(token["logprob"]) for token in tokens)))
