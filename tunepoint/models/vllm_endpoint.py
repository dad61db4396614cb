"""The base of a vLLM server, or one of its adapters, as an endpoint."""

from __future__ import annotations

from typing import Any

from tunepoint.models.openai import OpenAIEndpoint, OpenAIWire
from tunepoint.models.providers import Address


class VllmEndpoint(OpenAIEndpoint):
    """An OpenAI-compatible endpoint at an address that its name does not tell."""

    def __init__(self, name: str, served_at: Address, **settings: Any) -> None:
        """Start the thread that makes the calls; `settings` are those of `HostedEndpoint`."""
        self._served_at = served_at
        super().__init__(name, **settings)

    def open_wire(self, address: Address, timeout: float) -> OpenAIWire:
        """Return the wire to the server, which need not be where the name says."""
        return OpenAIWire(self.name, self._served_at, timeout)
