"""Gemini on Google Cloud, as it is and as it was tuned there, by Google's own client."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from google.genai import types
from pydantic import ValidationError

from tunepoint.errors import ModelError
from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.jobs import BatchJobs
from tunepoint.models.chat import Usage
from tunepoint.models.chat_completions import FILTERED
from tunepoint.models.clouds.errors import CLOUD_ERRORS, CloudError
from tunepoint.models.clouds.google import GoogleCloud, faults_in_our_form
from tunepoint.models.endpoints import CUT_OFF, Completion, Request
from tunepoint.models.hosted_endpoint import HostedEndpoint
from tunepoint.models.messages_api import REASONING_EFFORT
from tunepoint.models.providers import NO_KEY, Address
from tunepoint.models.wire import Wire

TUNED_MARK = "ft:"
"""Begins the name of a tuned model: `ft:BASE:ENDPOINT`, so that its base and its price are known."""
NO_THOUGHTS = "none"
"""Reasoning effort that switches thinking off."""
FILTERS = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
"""Reasons for which a reply was stopped."""


class GeminiWire:
    """The format of `:generateContent`."""

    errors = CLOUD_ERRORS
    abilities = Abilities(logprobs=False)
    path = ":generateContent"
    address_hint = "is the model offered in this project and region (GOOGLE_CLOUD_LOCATION), by this name?"

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        """Prepare to call.

        Args:
            name: of the model.
            address: of it.
            timeout: seconds of one call.

        Raises:
            ModelError: no project, region or credentials.

        """
        self.name = name
        key = address.key()
        cloud = GoogleCloud.from_environment(name, None if key == NO_KEY else key)
        self._client = cloud.open(timeout)
        self._model = served_name(address.model)
        self.address = replace(address, url=f"{address.url}/{cloud.project}/{cloud.location}")

    async def send(self, request: Request, abilities: Abilities) -> Completion:
        """Call once; see `Wire`."""
        started = time.perf_counter()
        config = generation_config(request, abilities)
        contents: list[types.ContentUnion] = [
            types.Content(
                role="model" if message.role == "assistant" else "user",
                parts=[types.Part(text=message.content)],
            )
            for message in request.messages
            if message.role != "system"
        ]
        with faults_in_our_form():
            reply = await self._client.aio.models.generate_content(
                model=self._model, contents=contents, config=config
            )
        return read_content(self.name, reply, time.perf_counter() - started)

    async def models(self) -> list[str]:
        """Raise: the cloud lists its models by another API."""
        raise ValueError("no list of models")

    def batches(self) -> BatchJobs:
        """Raise: the cloud takes batches from a bucket only."""
        raise ModelError(f"{self.name}: no batch API is known for it")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aio.aclose()


class GeminiEndpoint(HostedEndpoint):
    """One Gemini model on Google Cloud, with an access token or the machine's own credentials."""

    def open_wire(self, address: Address, timeout: float) -> Wire:
        """Return the format of Gemini; see `HostedEndpoint`."""
        return GeminiWire(self.name, address, timeout)


def served_name(model: str) -> str:
    """Return what the cloud calls a model: the endpoint, for a tuned one."""
    return model.split(":", 2)[2] if model.startswith(TUNED_MARK) and model.count(":") > 1 else model


def generation_config(request: Request, abilities: Abilities) -> types.GenerateContentConfig:
    """Return how a reply is to be generated; what the model refused is left out.

    Raises:
        CloudError: a parameter that the API does not have.

    """
    own: dict[str, Any] = {name: value for name, value in request.parameters if name not in abilities.refused}
    config: dict[str, Any] = {"max_output_tokens": request.max_output_tokens}
    system = "\n\n".join(message.content for message in request.messages if message.role == "system")
    if system:
        config["system_instruction"] = system
    if abilities.temperature:
        config["temperature"] = request.temperature
    if abilities.seed:
        config["seed"] = request.sample
    if abilities.schema and request.schema is not None:
        config |= {"response_mime_type": "application/json", "response_json_schema": dict(request.schema)}
    effort = own.pop(REASONING_EFFORT, None)
    if effort is not None:
        config["thinking_config"] = (
            {"thinking_budget": 0} if effort == NO_THOUGHTS else {"thinking_level": str(effort).upper()}
        )
    try:
        return types.GenerateContentConfig(**{**config, **own})
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise CloudError(f"{place}: {fault['msg']}", 400) from None


def read_content(name: str, reply: types.GenerateContentResponse, seconds: float) -> Completion:
    """Return the completion in a reply.

    Args:
        name: of the model, for the usage.
        reply: of Google's client.
        seconds: that the call took.

    Raises:
        ValueError: the reply holds no answer and says of no filter, or does not count its tokens.

    """
    counts = reply.usage_metadata
    if counts is None or counts.prompt_token_count is None:
        raise ValueError("it does not count its tokens")
    thoughts = counts.thoughts_token_count or 0
    usage = Usage(
        name,
        input_tokens=counts.prompt_token_count,
        cached_tokens=counts.cached_content_token_count or 0,
        output_tokens=(counts.candidates_token_count or 0) + thoughts,
        reasoning_tokens=thoughts,
        seconds=seconds,
    )
    if not reply.candidates:
        if reply.prompt_feedback is not None and reply.prompt_feedback.block_reason is not None:
            return Completion("", usage, error=FILTERED)
        raise ValueError("it has no candidates")
    candidate = reply.candidates[0]
    parts = (candidate.content.parts or []) if candidate.content else []
    text = "".join(part.text or "" for part in parts if not part.thought)
    reason = candidate.finish_reason.value if candidate.finish_reason else None
    if reason in FILTERS:
        return Completion("", usage, error=FILTERED)
    if reason == "MAX_TOKENS" and not text:
        return Completion("", usage, error=CUT_OFF)
    return Completion(text, usage)


def tuned_name(base: str, endpoint: str) -> str:
    """Return the name of a tuned model: its base, and the endpoint that serves it."""
    return f"{TUNED_MARK}{base}:{endpoint}"
