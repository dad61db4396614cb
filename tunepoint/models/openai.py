"""Any OpenAI-compatible endpoint, hosted or on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import openai

from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.openai_jobs import OpenAIBatches
from tunepoint.models.chat_completions import read_completion, request_body
from tunepoint.models.endpoints import Completion, Request
from tunepoint.models.hosted_endpoint import (
    HostedEndpoint,
)
from tunepoint.models.providers import Address
from tunepoint.models.wire import SdkErrors


class OpenAIWire:
    """The format of `/v1/chat/completions`."""

    errors = SdkErrors.of(openai, openai.OpenAIError)
    abilities = Abilities()
    path = "/chat/completions"
    address_hint = "does the address end in /v1? Write it as http://HOST/v1#MODEL"

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        self.name, self.address, self._timeout = name, address, timeout
        key = address.key()
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=address.url,
            default_query=dict(address.query),
            default_headers={"api-key": key} if address.query else None,  # Azure's own header
            max_retries=0,  # the endpoint counts attempts, and rate limits lower its concurrency
            timeout=timeout,
            http_client=openai.DefaultAioHttpClient(timeout=timeout),
        )

    async def send(self, request: Request, abilities: Abilities) -> Completion:
        """Call once; see `Wire`."""
        started = time.perf_counter()
        # The client's documented way to any path. `create` walks the types of all parameters
        # and of the reply, half of a call's time; ours are plain, and we read five fields.
        body = request_body(self.address.model, request, abilities)
        reply = await self._client.post(self.path, body=body, cast_to=object)
        return read_completion(self.name, reply, time.perf_counter() - started, request)

    async def models(self) -> list[str]:
        """Return the names of the models that the server offers."""
        return model_names(await self._client.get("/models", cast_to=object))

    def batches(self) -> OpenAIBatches:
        """Return the batch API."""
        return OpenAIBatches(self.name, self.address, self._timeout)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


class OpenAIEndpoint(HostedEndpoint):
    """One model behind `/v1/chat/completions`."""

    def open_wire(self, address: Address, timeout: float) -> OpenAIWire:
        """Return the format of `/v1/chat/completions`; see `HostedEndpoint`."""
        return OpenAIWire(self.name, address, timeout)


def model_names(listed: Any) -> list[str]:
    """Return the sorted names in the reply to `/v1/models`.

    Servers send `{"data": [...]}`, `{"models": [...]}` or a bare list.
    """
    if isinstance(listed, str):
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError):
            return []
    if isinstance(listed, Mapping):
        listed = listed.get("data") or listed.get("models")
    if not isinstance(listed, list):
        return []
    names = (
        next((entry[key] for key in ("id", "name", "model") if isinstance(entry.get(key), str)), None)
        if isinstance(entry, Mapping)
        else entry
        for entry in listed
    )
    return sorted({name for name in names if isinstance(name, str) and name})
