"""Claude on Amazon Bedrock and on Google Cloud: the same messages, by another address and other keys."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import Any

import anthropic

from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.abilities import Abilities
from tunepoint.models.anthropic import AnthropicEndpoint, AnthropicWire
from tunepoint.models.batch.anthropic_jobs import AnthropicBatches
from tunepoint.models.clouds.errors import CREDENTIAL_PACKAGES
from tunepoint.models.clouds.regions import aws_region
from tunepoint.models.endpoints import Completion, Request
from tunepoint.models.providers import NO_KEY, Address
from tunepoint.models.wire import Wire

VERTEX_REGION, VERTEX_PROJECT = "CLOUD_ML_REGION", "ANTHROPIC_VERTEX_PROJECT_ID"
"""Environment variables of Anthropic's client."""


class _CloudWire(AnthropicWire):
    """The format of `/v1/messages`, which the client turns into that of the cloud."""

    def __init__(self, name: str, address: Address, timeout: float, client: Any) -> None:
        """Take a client whose calls go to the cloud; the address is then the client's."""
        super().__init__(name, replace(address, url=str(client.base_url).rstrip("/")), timeout, client)

    async def send(self, request: Request, abilities: Abilities) -> Completion:
        """Call once; see `Wire`.

        Raises:
            ModelError: no credentials are found, or they have run out.

        """
        try:
            return await super().send(request, abilities)
        except Exception as error:
            # the clients raise what the clouds' own packages raise
            if isinstance(error, RuntimeError) or type(error).__module__.startswith(CREDENTIAL_PACKAGES):
                raise ModelError(
                    f"{self.name}: no valid credentials: {error}; {self.address.key_hint}"
                ) from None
            raise

    async def models(self) -> list[str]:
        """Raise: the cloud lists its models by another API."""
        raise ValueError("no list of models")

    def batches(self) -> AnthropicBatches:
        """Raise: the cloud takes batches from a bucket only."""
        raise ModelError(f"{self.name}: no batch API is known for it")


class BedrockWire(_CloudWire):
    """Claude on Amazon Bedrock."""

    path = "/model/MODEL/invoke"
    address_hint = "is the model offered in this region (AWS_REGION), by this name?"


class VertexWire(_CloudWire):
    """Claude on Google Cloud."""

    path = ":rawPredict"
    address_hint = f"is the model enabled in this project and region ({VERTEX_PROJECT}, {VERTEX_REGION})?"


class BedrockEndpoint(AnthropicEndpoint):
    """One Claude model on Amazon Bedrock, with a Bedrock key or the credentials of an AWS profile."""

    def open_wire(self, address: Address, timeout: float) -> Wire:
        """Return the format of Bedrock; see `HostedEndpoint`."""
        region = aws_region(self.name)
        key = address.key()
        if key == NO_KEY and not _is_installed("boto3"):
            raise MissingExtra(f"{self.name} without {address.key_name} needs boto3", "bedrock")
        client = anthropic.AsyncAnthropicBedrock(
            api_key=None if key == NO_KEY else key, aws_region=region, max_retries=0, timeout=timeout
        )
        return BedrockWire(self.name, address, timeout, client)


class VertexEndpoint(AnthropicEndpoint):
    """One Claude model on Google Cloud, with an access token or the machine's own credentials."""

    def open_wire(self, address: Address, timeout: float) -> Wire:
        """Return the format of Google Cloud; see `HostedEndpoint`."""
        missing = [name for name in (VERTEX_PROJECT, VERTEX_REGION) if not os.environ.get(name)]
        if missing:
            raise ModelError(f"{self.name} needs a project and a region: set {' and '.join(missing)}")
        key = address.key()
        if key == NO_KEY and not _is_installed("google.auth"):
            raise MissingExtra(f"{self.name} without {address.key_name} needs google-auth", "vertex")
        client = anthropic.AsyncAnthropicVertex(
            access_token=None if key == NO_KEY else key, max_retries=0, timeout=timeout
        )
        return VertexWire(self.name, address, timeout, client)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
