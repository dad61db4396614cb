"""What an endpoint asks of a provider's wire format and client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.jobs import BatchJobs
from tunepoint.models.endpoints import Completion, Request
from tunepoint.models.providers import Address


@dataclass(frozen=True)
class SdkErrors:
    """The exceptions of a provider's client; those of OpenAI and of Anthropic have the same attributes."""

    any: type[Exception]
    rate_limit: type[Exception]
    server: type[Exception]
    connection: type[Exception]
    timeout: type[Exception]
    status: type[Exception]
    validation: type[Exception]

    @classmethod
    def of(cls, sdk: Any, base: type[Exception]) -> SdkErrors:
        """Return those of a client's module, with the class that all of them share."""
        return cls(
            any=base,
            rate_limit=sdk.RateLimitError,
            server=sdk.InternalServerError,
            connection=sdk.APIConnectionError,
            timeout=sdk.APITimeoutError,
            status=sdk.APIStatusError,
            validation=sdk.APIResponseValidationError,
        )


class Wire(Protocol):
    """A provider's format and client."""

    address: Address
    errors: SdkErrors
    abilities: Abilities
    """What is tried at first."""
    path: str
    """Of its calls."""
    address_hint: str
    """A question about the address, for HTTP 404."""

    async def send(self, request: Request, abilities: Abilities) -> Completion:
        """Call once.

        Raises:
            TransientFault: the reply says that something broke.
            ValueError: the reply is no completion.

        """
        ...

    async def models(self) -> list[str]:
        """Return the names of the models that the server offers."""
        ...

    def batches(self) -> BatchJobs:
        """Return the batch API of the provider, with a client of its own."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
