"""Arms as the gateway asks them: a server behind a URL, a model in this process, an arm of a study."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tunepoint.arms.cascade import Gate
from tunepoint.arms.contract import Concurrent, FittedArm
from tunepoint.capture.records import nanodollars
from tunepoint.errors import TunepointError
from tunepoint.files.amounts import TokenPrice
from tunepoint.files.machine import cores
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.prices import CallPrice
from tunepoint.serve.batching import MicroBatcher
from tunepoint.serve.protocol import ChatRequest, completion, text_of, usage_of
from tunepoint.serve.upstream import ArmFault, Upstream

MOST_TOKENS = 2**31 - 1
"""Tokens that a server may say it has counted."""
LONG_CONTEXT = 100_000
"""Input tokens from which a price may be another one, and is looked up anew."""


@dataclass(slots=True)
class ArmResponse:
    """What an arm said, and what it took."""

    whole: dict[str, Any]
    """The completion, as the client gets it."""
    text: str
    model: str
    answer: str | None = None
    format_ok: bool | None = None
    confidence: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float = 0.0
    core_seconds: float | None = None
    cost_nanousd: int | None = None
    reply: Reply | None = None
    """Where the arm is one of a study."""


class ServedArm(Protocol):
    """An arm that serves. One that does not answer raises an `ArmFault`, and another is asked."""

    name: str
    model: str

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """The whole answer."""
        ...

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[bytes]] | None:
        """The answer's events as they come; None where the arm answers whole."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Pricer:
    """The price of an answer, without looking it up each time."""

    def __init__(self, price: CallPrice | None) -> None:
        self.price = price
        self._rates = None if price is None else TokenPrice(**price.rates())

    def nanodollars(self, given: int, cached: int, output: int) -> int | None:
        """Billionths of a dollar; None where no price is known."""
        if self.price is None or self._rates is None:
            return None
        if given > LONG_CONTEXT:
            return nanodollars(self.price.dollars(Usage(self.price.model, given, cached, output)))
        return round(self._rates.microdollars(given, cached, output) * 1_000)


def tokens_of(usage: Mapping[str, Any] | None) -> tuple[int, int, int] | None:
    """Input, cached and output tokens as a server counts them; None where it does not."""
    if not usage or not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    held = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = usage.get("prompt_tokens"), held, usage.get("completion_tokens")
    given, cached, output = (
        min(count, MOST_TOKENS) if isinstance(count, int) and count > 0 else 0 for count in counts
    )
    return given, min(cached, given), output


class ProxyArm:
    """A server that gets the conversation as the application wrote it."""

    def __init__(self, name: str, upstream: Upstream, price: CallPrice | None) -> None:
        self.name, self.upstream = name, upstream
        self.model = upstream.address.name
        self.pricer = Pricer(price)

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """The server's completion, under the task's name."""
        started = time.perf_counter()
        body = {**request.body, "model": self.upstream.address.model}
        body.pop("stream", None)
        body.pop("stream_options", None)
        whole = await self.upstream.complete(body)
        whole["model"] = request.task
        first = whole["choices"][0] if isinstance(whole["choices"], list) else None
        message = first.get("message") if isinstance(first, dict) else None
        if not isinstance(message, dict):
            raise ArmFault("the reply is no completion")
        found = ArmResponse(whole, text_of(message.get("content")), self.model)
        found.seconds = time.perf_counter() - started
        self.count(found, whole.get("usage"))
        return found

    def count(self, found: ArmResponse, usage: Mapping[str, Any] | None) -> None:
        """Note tokens and their price."""
        tokens = tokens_of(usage)
        if tokens is not None:
            found.input_tokens, found.cached_tokens, found.output_tokens = tokens
            found.cost_nanousd = self.pricer.nanodollars(*tokens)

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The server's events; its usage is always asked for."""
        options = {**(request.body.get("stream_options") or {}), "include_usage": True}
        body = {**request.body, "model": self.upstream.address.model, "stream_options": options}
        return self.upstream.stream(body)

    def close(self) -> None:
        """Nothing: connections are shared."""


class StudyArm:
    """An arm of a study: it gets the input, and answers as it was measured."""

    def __init__(self, name: str, model: str) -> None:
        self.name, self.model = name, model

    async def reply(self, request: ChatRequest) -> tuple[Reply, float | None]:
        """The reply, and core seconds where it was given on this machine."""
        raise NotImplementedError

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """The parsed answer as the completion's text; the whole text where none could be read."""
        started = time.perf_counter()
        reply, core_seconds = await self.reply(request)
        if not reply.text and reply.error is not None:
            raise ArmFault(reply.error)
        seconds = time.perf_counter() - started
        text = reply.answer if reply.answer is not None else reply.text
        usage = reply.usage
        found = ArmResponse(
            completion(request, text, usage_of(usage.input_tokens, usage.output_tokens)),
            text,
            self.model,
            reply.answer,
            reply.format_ok,
            reply.confidence,
            usage.input_tokens or None,
            usage.cached_tokens or None,
            usage.output_tokens or None,
            seconds,
            core_seconds,
            reply=reply,
        )
        found.cost_nanousd = self.cost(usage)
        return found

    def cost(self, usage: Usage) -> int | None:
        """Billionths of a dollar; None for an arm of this machine."""
        return None

    def stream(self, request: ChatRequest) -> None:
        """It answers whole."""

    def close(self) -> None:
        """Nothing is held."""


class LocalArm(StudyArm):
    """An arm that runs in this process, in batches; one on each core where several threads may ask it."""

    def __init__(self, name: str, fitted: FittedArm, model: str) -> None:
        super().__init__(name, model)
        at_once = isinstance(fitted, Concurrent) and fitted.concurrent
        self.batcher = MicroBatcher(fitted, threads=cores() if at_once else 1)

    async def reply(self, request: ChatRequest) -> tuple[Reply, float | None]:
        """The reply, with its share of the batch's processor time."""
        try:
            reply, seconds = await self.batcher.answer(request.input)
        except BlockingIOError as error:
            raise ArmFault(f"busy: {error}", status=503) from None
        return reply, seconds

    def close(self) -> None:
        """End its threads."""
        self.batcher.close()


class RemoteArm(StudyArm):
    """An arm of a study that calls models elsewhere: prompts, chains, repairs, as they were measured."""

    def __init__(
        self, name: str, fitted: FittedArm, model: str, prices: Mapping[str, CallPrice], at_once: int
    ) -> None:
        super().__init__(name, model)
        self.fitted, self.prices = fitted, prices
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="calls")

    async def reply(self, request: ChatRequest) -> tuple[Reply, float | None]:
        """The reply, from a thread that waits for it."""
        loop = asyncio.get_running_loop()
        try:
            (reply,) = await loop.run_in_executor(self._threads, self.fitted.answer, [request.input])
        except TunepointError as error:
            raise ArmFault(str(error)) from None
        return replace(reply, usage=replace(reply.usage, seconds=None)), None

    def cost(self, usage: Usage) -> int | None:
        """What the calls cost."""
        price = self.prices.get(usage.model)
        return None if price is None else nanodollars(price.dollars(usage))

    def close(self) -> None:
        """End its threads once they are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CascadeArm:
    """A cheap arm first, a strong one where the cheap one is unsure."""

    def __init__(self, name: str, cheap: ServedArm, strong: ServedArm, gate: Gate) -> None:
        self.name, self.cheap, self.strong, self.gate = name, cheap, strong, gate
        self.model = f"{cheap.model}, {strong.model}"

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """The cheap arm's answer where the gate opens, else the strong one's; both are paid for."""
        first = await self.cheap.answer(request)
        reply = first.reply
        if reply is not None and self.gate.opens(reply):
            return first
        then = await self.strong.answer(request)
        then.seconds += first.seconds
        if first.core_seconds is not None:
            then.core_seconds = first.core_seconds + (then.core_seconds or 0.0)
        if first.cost_nanousd is not None:
            then.cost_nanousd = first.cost_nanousd + (then.cost_nanousd or 0)
        return then

    def stream(self, request: ChatRequest) -> None:
        """It answers whole: the gate needs the answer."""

    def close(self) -> None:
        """Close both."""
        self.cheap.close()
        self.strong.close()
