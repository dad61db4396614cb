"""The faults of the clouds' clients in one form: each client has another."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

from tunepoint.models.wire import SdkErrors

CREDENTIAL_PACKAGES = ("botocore", "google.auth")
"""Packages whose errors are about credentials, where they are not about a reply."""


class CloudError(Exception):
    """A refusal, in the cloud's own words."""

    def __init__(
        self, words: str, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(words)
        self.message, self.status_code = words, status
        self.body = {"message": words}
        self.response = SimpleNamespace(headers=headers or {}, text=words)


class CloudRateLimit(CloudError):
    """Too many calls."""


class CloudServerError(CloudError):
    """The cloud is at fault."""


class CloudConnectionError(CloudError):
    """No reply came."""


class CloudTimeout(CloudConnectionError):
    """No reply came in time."""


class CloudReplyError(CloudError):
    """The reply cannot be read."""


CLOUD_ERRORS = SdkErrors(
    any=CloudError,
    rate_limit=CloudRateLimit,
    server=CloudServerError,
    connection=CloudConnectionError,
    timeout=CloudTimeout,
    status=CloudError,
    validation=CloudReplyError,
)


def refusal(words: str, status: int, headers: Mapping[str, str] | None = None) -> CloudError:
    """Return the error for an HTTP status."""
    if status == 429:
        return CloudRateLimit(words, status, headers)
    kind = CloudServerError if status >= 500 else CloudError
    return kind(words, status, headers)
