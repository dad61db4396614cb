"""Claude by Anthropic's own API: its OpenAI-compatible layer neither caches prompts nor confines answers."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import anthropic

from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.anthropic_jobs import AnthropicBatches
from tunepoint.models.endpoints import Completion, Request
from tunepoint.models.hosted_endpoint import (
    HostedEndpoint,
)
from tunepoint.models.messages_api import SeenStarts, message_body, read_message
from tunepoint.models.openai import model_names
from tunepoint.models.providers import Address
from tunepoint.models.wire import SdkErrors, Wire

BASE_URL_VARIABLE = "ANTHROPIC_BASE_URL"
"""Environment variable of Anthropic's client with another address, as of a proxy."""


MESSAGES = "/v1/messages"


class AnthropicWire:
    """The format of `/v1/messages`."""

    errors = SdkErrors.of(anthropic, anthropic.AnthropicError)
    abilities = Abilities(logprobs=False, seed=False)
    path = MESSAGES
    address_hint = f"does {BASE_URL_VARIABLE} point at Anthropic's API or a proxy of it, without /v1?"

    def __init__(self, name: str, address: Address, timeout: float, client: Any = None) -> None:
        """Prepare to call.

        Args:
            name: of the model.
            address: of the API.
            timeout: seconds of one call.
            client: one that counts no attempts; that of Anthropic's API if None.

        """
        self.name, self.address, self._timeout = name, address, timeout
        self._starts = SeenStarts()
        # attempts are counted by the endpoint, where rate limits lower the concurrency
        self._client = client or anthropic.AsyncAnthropic(
            api_key=address.key(), base_url=address.url, max_retries=0, timeout=timeout
        )

    async def send(self, request: Request, abilities: Abilities) -> Completion:
        """Call once; see `Wire`."""
        started = time.perf_counter()
        cached = self._starts.cached_messages(request.messages)
        body = message_body(self.address.model, request, abilities, cached)
        reply = await self._client.post(MESSAGES, body=body, cast_to=object)
        return read_message(self.name, reply, time.perf_counter() - started)

    async def models(self) -> list[str]:
        """Return the names of the models that the provider offers."""
        return model_names(await self._client.get("/v1/models", cast_to=object))

    def batches(self) -> AnthropicBatches:
        """Return the batch API."""
        return AnthropicBatches(self.name, self.address, self._timeout)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


class AnthropicEndpoint(HostedEndpoint):
    """One Claude model behind Anthropic's API."""

    def open_wire(self, address: Address, timeout: float) -> Wire:
        """Return the format of `/v1/messages`; see `HostedEndpoint`."""
        # the compatible layer's address ends in /v1, which the client of the API adds by itself
        url = os.environ.get(BASE_URL_VARIABLE) or address.url.removesuffix("/v1")
        return AnthropicWire(self.name, replace(address, url=url), timeout)
