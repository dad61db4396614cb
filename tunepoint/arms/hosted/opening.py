"""The client of a provider, by the form of its API."""

from __future__ import annotations

import time
from collections.abc import Callable

from tunepoint.arms.hosted.client import TuningClient
from tunepoint.arms.hosted.openai_style import OpenAIStyleClient
from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.errors import MissingExtra, ModelError


def open_client(
    provider: TuningProvider, *, url: str | None = None, sleep: Callable[[float], None] = time.sleep
) -> TuningClient:
    """Return a client of a provider's files and jobs.

    Args:
        provider: who tunes.
        url: where it listens, if not at its own address; only for an API in OpenAI's style.
        sleep: waits for some seconds.

    Raises:
        MissingExtra: the client that the provider keeps is not installed.
        ModelError: an address, a key or a setting is missing.

    """
    if provider.form == "openai":
        return OpenAIStyleClient(provider, url=url, sleep=sleep)
    if url is not None:
        raise ModelError(f"{provider.name} has an API of its own: leave the address out")
    try:
        if provider.form == "fireworks":
            from tunepoint.arms.hosted.fireworks import FireworksClient

            return FireworksClient(provider, sleep=sleep)
        if provider.form == "vertex":
            from tunepoint.arms.hosted.vertex import VertexClient

            return VertexClient(provider, sleep=sleep)
        from tunepoint.arms.hosted.bedrock import BedrockClient
    except ImportError as error:
        raise MissingExtra(f"tuning at {provider.name} needs {error.name}", provider.form) from None
    return BedrockClient(provider, sleep=sleep)
