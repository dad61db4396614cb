"""The base of a vLLM server, or one of its adapters, as an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunepoint.models.endpoints import Allow, Done, Request
from tunepoint.models.hosted_endpoint import TIMEOUT_SECONDS
from tunepoint.models.openai import OpenAIEndpoint, OpenAIWire
from tunepoint.models.providers import VLLM_PREFIX
from tunepoint.models.vllm import VllmServer, VllmServers


class VllmEndpoint(OpenAIEndpoint):
    """An endpoint whose server is reached or started by its first request, and anew after it was stopped."""

    def __init__(
        self,
        servers: VllmServers,
        base: str,
        folder: Path = Path(),
        adapter: Path | None = None,
        **settings: Any,
    ) -> None:
        """Prepare to ask.

        Args:
            servers: of the study.
            base: a directory, or a name on the hub.
            folder: where a relative directory starts.
            adapter: folder of the adapter that is asked; the base is if None.
            settings: those of `HostedEndpoint`.

        """
        super().__init__(VLLM_PREFIX + base, **settings)
        self._servers, self._base, self._folder, self._adapter = servers, base, folder, adapter
        self._server: VllmServer | None = None

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests; see `Endpoint`."""
        if not requests:
            return
        server = self._servers.of(self._base, self._folder)
        if self._adapter is not None:
            server.load(self._adapter)
        if server is not self._server:
            self._ask(server)
        super().complete(requests, done, allow)

    def _ask(self, server: VllmServer) -> None:
        """Ask another server from now on."""
        asyncio.run_coroutine_threadsafe(self.wire.close(), self._loop).result()
        served_as = self._base if self._adapter is None else self._adapter.name
        self.address = replace(server.address, name=self.name, model=served_as)
        self.wire = OpenAIWire(self.name, self.address, TIMEOUT_SECONDS)
        self._server = server
