"""Arms as the gateway calls them: a server behind a URL, a model in this process, an arm of a study."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from tunepoint.capture.records import nanodollars
from tunepoint.errors import TunepointError
from tunepoint.files.amounts import TokenPrice
from tunepoint.files.machine import cores
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.chat_completions import generated_text, read_completion, read_usage, text_of
from tunepoint.models.prices import CallPrice
from tunepoint.serve.batching import MicroBatcher
from tunepoint.serve.protocol import ChatRequest, completion, usage_of
from tunepoint.serve.upstream import ArmFault, Upstream

if TYPE_CHECKING:  # a gateway that only relays loads no arms of studies
    from tunepoint.arms.cascade import Gate
    from tunepoint.arms.contract import FittedArm

LONG_CONTEXT_TOKENS = 100_000
"""Input tokens above which a price may differ, and is looked up for each answer."""


@dataclass(slots=True)
class ArmResponse:
    """What an arm answered, with its tokens, time and cost."""

    completion: dict[str, Any]
    """As the client gets it; empty for a stream, whose events the client has already."""
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
    """Of an arm of a study: what a cascade's gate decides on."""


class ServedArm(Protocol):
    """An arm that serves; one that cannot answer raises an `ArmFault`, and another one is called."""

    name: str
    model: str

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """Return the whole answer."""
        ...

    def stream(
        self, request: ChatRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | ArmResponse]] | None:
        """Open the answer's events, or the whole answer of a server that does not stream.

        None where the arm cannot stream.
        """
        ...

    def close(self) -> None:
        """Release threads and connections."""
        ...


class Pricer:
    """Prices answers without looking the price up each time: that takes longer than the gateway itself."""

    def __init__(self, price: CallPrice | None) -> None:
        self.price = price
        self._rates = None if price is None else TokenPrice(**price.rates())

    def nanodollars(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> int | None:
        """Billionths of a dollar; None where no price is known."""
        if self.price is None or self._rates is None:
            return None
        if input_tokens > LONG_CONTEXT_TOKENS:
            usage = Usage(self.price.model, input_tokens, cached_tokens, output_tokens)
            return nanodollars(self.price.dollars(usage))
        return round(self._rates.microdollars(input_tokens, cached_tokens, output_tokens) * 1_000)


def request_text(request: ChatRequest) -> str:
    """All text of a request, by which its tokens are estimated where a server counts none."""
    return "\n".join(text_of(message.get("content")) for message in request.body["messages"])


class ProxyArm:
    """A server that gets the conversation as the application wrote it."""

    def __init__(self, name: str, upstream: Upstream, price: CallPrice | None) -> None:
        self.name, self.upstream = name, upstream
        self.model = upstream.address.name
        self.pricer = Pricer(price)

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """Return the server's completion under the task's name."""
        started = time.perf_counter()
        body = {**request.body, "model": self.upstream.address.model}
        body.pop("stream", None)
        body.pop("stream_options", None)
        return self.whole(request, await self.upstream.complete(body), started)

    def whole(self, request: ChatRequest, completion: dict[str, Any], started: float) -> ArmResponse:
        """Return the response that holds a server's whole completion.

        Args:
            started: `time.perf_counter()` when the server was called.

        Raises:
            ArmFault: the completion reports an error, or is none.

        """
        try:
            read = read_completion(self.model, completion, 0.0)
            choice = completion["choices"][0]
        except ValueError as fault:
            raise ArmFault(str(fault)) from None
        if not isinstance(choice.get("message"), dict) and read.error is None:
            raise ArmFault("the reply is not a chat completion")
        completion["model"] = request.task
        response = ArmResponse(completion, read.text, self.model)
        response.seconds = time.perf_counter() - started
        choices = [choice for choice in completion["choices"] if isinstance(choice, dict)]
        answered = "".join(generated_text(choice.get("message")) for choice in choices)
        self.count(response, completion.get("usage"), request_text(request), answered)
        return response

    def count(self, response: ArmResponse, counts: Any, asked: str, answered: str) -> None:
        """Set the response's tokens and their price.

        Args:
            counts: the server's `usage`; what it does not count is estimated.
            asked: text of the request.
            answered: all text that was generated, thoughts and calls of tools included.

        """
        usage = read_usage(self.model, counts, None, asked, answered)
        tokens = usage.input_tokens, usage.cached_tokens, usage.output_tokens
        response.input_tokens, response.cached_tokens, response.output_tokens = tokens
        response.cost_nanousd = self.pricer.nanodollars(*tokens)

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[bytes | ArmResponse]]:
        """Open the server's events; its usage is always requested, since it is what we are charged for."""
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[bytes | ArmResponse]]:
        started = time.perf_counter()
        body = {**request.body, "model": self.upstream.address.model}

        async def items(chunks: AsyncIterator[bytes | dict[str, Any]]) -> AsyncIterator[bytes | ArmResponse]:
            async for chunk in chunks:
                yield chunk if isinstance(chunk, bytes) else self.whole(request, chunk, started)

        async with self.upstream.stream(body) as chunks:
            yield items(chunks)

    def close(self) -> None:
        """Do nothing: all arms share one session."""


class StudyArm:
    """An arm of a study: it gets the input, and answers as it was measured."""

    def __init__(self, name: str, model: str) -> None:
        self.name, self.model = name, model

    async def reply(self, request: ChatRequest) -> tuple[Reply, float | None]:
        """Return the reply, and the core seconds if it was computed on this machine."""
        raise NotImplementedError

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """Return the parsed answer as the completion's text; the raw text where it cannot be parsed."""
        started = time.perf_counter()
        reply, core_seconds = await self.reply(request)
        if not reply.text and reply.error is not None:
            raise ArmFault(reply.error)
        seconds = time.perf_counter() - started
        text = reply.answer if reply.answer is not None else reply.text
        usage = reply.usage
        return ArmResponse(
            completion=completion(request, text, usage_of(usage.input_tokens, usage.output_tokens)),
            text=text,
            model=self.model,
            answer=reply.answer,
            format_ok=reply.format_ok,
            confidence=reply.confidence,
            input_tokens=usage.input_tokens or None,
            cached_tokens=usage.cached_tokens or None,
            output_tokens=usage.output_tokens or None,
            seconds=seconds,
            core_seconds=core_seconds,
            cost_nanousd=self.cost(usage),
            reply=reply,
        )

    def cost(self, usage: Usage) -> int | None:
        """Billionths of a dollar; None for an arm of this machine."""
        return None

    def stream(self, request: ChatRequest) -> None:
        """Return None: an arm of a study parses its whole answer first."""

    def close(self) -> None:
        """Do nothing; subclasses end their threads."""


class LocalArm(StudyArm):
    """An arm that runs in this process, in batches; a batch per core if it is safe to call from threads."""

    def __init__(self, name: str, fitted: FittedArm, model: str) -> None:
        from tunepoint.arms.contract import Concurrent

        super().__init__(name, model)
        concurrent = isinstance(fitted, Concurrent) and fitted.concurrent
        self.batcher = MicroBatcher(fitted, threads=cores() if concurrent else 1)

    async def reply(self, request: ChatRequest) -> tuple[Reply, float | None]:
        """Return the reply, with its share of the batch's core seconds."""
        try:
            reply, seconds = await self.batcher.answer(request.input)
        except BlockingIOError as error:
            raise ArmFault(f"busy: {error}", status=503) from None
        return reply, seconds

    def close(self) -> None:
        """End the batcher's threads."""
        self.batcher.close()


class RemoteArm(StudyArm):
    """An arm of a study that calls models elsewhere: prompts, chains, repairs, as they were measured."""

    def __init__(
        self, name: str, fitted: FittedArm, model: str, prices: Mapping[str, CallPrice], threads: int
    ) -> None:
        super().__init__(name, model)
        self.fitted, self.prices = fitted, prices
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="calls")

    async def reply(self, request: ChatRequest) -> tuple[Reply, float | None]:
        """Return the reply, from a thread that waits for it."""
        loop = asyncio.get_running_loop()
        try:
            (reply,) = await loop.run_in_executor(self._threads, self.fitted.answer, [request.input])
        except TunepointError as error:
            raise ArmFault(str(error)) from None
        # Seconds of a call elsewhere are no time of this machine's cores.
        return replace(reply, usage=replace(reply.usage, seconds=None)), None

    def cost(self, usage: Usage) -> int | None:
        """Billionths of a dollar for the calls; None where no price is known."""
        price = self.prices.get(usage.model)
        return None if price is None else nanodollars(price.dollars(usage))

    def close(self) -> None:
        """End the threads once their calls are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CascadeArm:
    """A cheap arm first, a strong one if the cheap one is unsure."""

    def __init__(self, name: str, cheap: ServedArm, strong: ServedArm, gate: Gate) -> None:
        self.name, self.cheap, self.strong, self.gate = name, cheap, strong, gate
        self.model = f"{cheap.model}, {strong.model}"

    async def answer(self, request: ChatRequest) -> ArmResponse:
        """Return the cheap arm's answer if the gate accepts it, else the strong one's at the cost of both."""
        cheap = await self.cheap.answer(request)
        if cheap.reply is not None and self.gate.accepts(cheap.reply):
            return cheap
        strong = await self.strong.answer(request)
        strong.seconds += cheap.seconds
        if cheap.core_seconds is not None:
            strong.core_seconds = cheap.core_seconds + (strong.core_seconds or 0.0)
        if cheap.cost_nanousd is not None:
            strong.cost_nanousd = cheap.cost_nanousd + (strong.cost_nanousd or 0)
        return strong

    def stream(self, request: ChatRequest) -> None:
        """Return None: the gate needs the whole answer."""

    def close(self) -> None:
        """Close both arms."""
        self.cheap.close()
        self.strong.close()
