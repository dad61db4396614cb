"""Models on Amazon Bedrock other than Claude, by its Converse API: Nova, Llama, what was tuned there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from tunepoint.errors import ModelError
from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.jobs import BatchJobs
from tunepoint.models.chat import Usage
from tunepoint.models.chat_completions import FILTERED, token_count
from tunepoint.models.clouds.amazon import called, open_service
from tunepoint.models.clouds.errors import CLOUD_ERRORS
from tunepoint.models.clouds.regions import aws_region
from tunepoint.models.endpoints import CUT_OFF, Completion, Request
from tunepoint.models.hosted_endpoint import MAX_CONCURRENCY, HostedEndpoint
from tunepoint.models.messages_api import REASONING_EFFORT, TOO_LONG, SeenStarts
from tunepoint.models.providers import Address
from tunepoint.models.wire import Wire

BEDROCK_KEY = "AWS_BEARER_TOKEN_BEDROCK"
"""Environment variable with a Bedrock key, which Amazon's client reads by itself."""
FILTERS = ("guardrail_intervened", "content_filtered")
"""Reasons for which a reply was stopped."""
IN_CONFIG = {"top_p": "topP", "stop": "stopSequences"}
"""Parameter -> its name among those that every model takes."""


class ConverseWire:
    """The format of Bedrock's Converse API."""

    errors = CLOUD_ERRORS
    abilities = Abilities(logprobs=False, seed=False)
    path = "/model/MODEL/converse"
    address_hint = "is the model offered in this region (AWS_REGION), by this name?"

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        """Prepare to call.

        Args:
            name: of the model.
            address: of it.
            timeout: seconds of one call.

        Raises:
            ModelError: no region is set, or another variable holds the key.

        """
        if address.key_name != BEDROCK_KEY:
            raise ModelError(
                f"{name}: Amazon's client reads {BEDROCK_KEY}, or your AWS profile; leave key_env out"
            )
        self.name = name
        self._starts = SeenStarts()
        self._client = open_service(
            "bedrock-runtime", aws_region(name), timeout=timeout, connections=MAX_CONCURRENCY
        )
        self.address = replace(address, url=self._client.meta.endpoint_url)
        # Amazon's client blocks, so every call has a thread
        self._threads = ThreadPoolExecutor(MAX_CONCURRENCY, thread_name_prefix="Bedrock")

    async def send(self, request: Request, abilities: Abilities) -> Completion:
        """Call once; see `Wire`."""
        started = time.perf_counter()
        cached = self._starts.cached_messages(request.messages) if "nova" in self.address.model else 0
        body = converse_body(self.address.model, request, abilities, cached)
        call = partial(called, partial(self._client.converse, **body))
        reply = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        return read_converse(self.name, reply, time.perf_counter() - started)

    async def models(self) -> list[str]:
        """Raise: Bedrock lists its models by another API."""
        raise ValueError("no list of models")

    def batches(self) -> BatchJobs:
        """Raise: the cloud takes batches from a bucket only."""
        raise ModelError(f"{self.name}: no batch API is known for it")

    async def close(self) -> None:
        """Close its connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


class ConverseEndpoint(HostedEndpoint):
    """One model on Amazon Bedrock, with a Bedrock key or the credentials of an AWS profile."""

    def open_wire(self, address: Address, timeout: float) -> Wire:
        """Return the format of Converse; see `HostedEndpoint`."""
        return ConverseWire(self.name, address, timeout)


def converse_body(model: str, request: Request, abilities: Abilities, cached: int) -> dict[str, Any]:
    """Return the arguments of a call.

    Args:
        model: as Bedrock calls it, or the ARN of a deployment.
        request: what to complete.
        abilities: of the model; what it refused is left out.
        cached: number of the first messages up to which the prompt is cached; 0 for none.

    """
    mark = {"cachePoint": {"type": "default"}}
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for position, message in enumerate(request.messages, start=1):
        blocks: list[dict[str, Any]] = [{"text": message.content}, *([mark] if position == cached else [])]
        if message.role == "system":
            system += blocks
        else:
            messages.append({"role": message.role, "content": blocks})
    config: dict[str, Any] = {"maxTokens": request.max_output_tokens}
    if abilities.temperature:
        config["temperature"] = request.temperature
    own = {name: value for name, value in request.parameters if name not in abilities.refused}
    config |= {IN_CONFIG[name]: own.pop(name) for name in IN_CONFIG if name in own}
    body: dict[str, Any] = {"modelId": model, "messages": messages, "inferenceConfig": config}
    if system:
        body["system"] = system
    output: dict[str, Any] = {}
    if abilities.schema and request.schema is not None:
        schema = {"name": "answer", "schema": json.dumps(request.schema)}
        output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    effort = own.pop(REASONING_EFFORT, None)
    if effort is not None:
        output["effort"] = effort
    if output:
        body["outputConfig"] = output
    if own:
        body["additionalModelRequestFields"] = own
    return body


def read_converse(name: str, reply: Mapping[str, Any], seconds: float) -> Completion:
    """Return the completion in a reply.

    Args:
        name: of the model, for the usage.
        reply: of Amazon's client.
        seconds: that the call took.

    Raises:
        ValueError: the reply is no message, or does not count its tokens.

    """
    message = (reply.get("output") or {}).get("message")
    if not isinstance(message, Mapping):
        raise ValueError("it has no message")
    text = "".join(str(block["text"]) for block in message.get("content") or () if "text" in block)
    counts = reply.get("usage") or {}
    fresh, output = token_count(counts.get("inputTokens")), token_count(counts.get("outputTokens"))
    if fresh is None or output is None:
        raise ValueError("it does not count its tokens")
    read = token_count(counts.get("cacheReadInputTokens")) or 0
    written = token_count(counts.get("cacheWriteInputTokens")) or 0
    usage = Usage(
        name,
        input_tokens=fresh + read + written,
        cached_tokens=read,
        written_tokens=written,
        output_tokens=output,
        seconds=seconds,
    )
    reason = reply.get("stopReason")
    if reason in FILTERS:
        return Completion("", usage, error=FILTERED)
    if reason == "model_context_window_exceeded" and not text:
        return Completion("", usage, error=TOO_LONG)
    if reason == "max_tokens" and not text:
        return Completion("", usage, error=CUT_OFF)
    return Completion(text, usage)
