"""Amazon's client: its region, its credentials, and its faults in our form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
)

from tunepoint.models.clouds.errors import CloudConnectionError, CloudError, CloudTimeout, refusal

T = TypeVar("T")

THROTTLED = ("ThrottlingException", "TooManyRequestsException", "SlowDown", "ServiceQuotaExceededException")
"""Codes of errors that mean HTTP 429, whatever the status of the reply."""
NOT_READY = ("ModelNotReadyException", "ModelTimeoutException", "ServiceUnavailableException")
"""Codes of errors that pass."""


def open_service(service: str, region: str, *, timeout: float, connections: int = 10) -> Any:
    """Return Amazon's client of a service, which counts no attempts.

    Args:
        service: as Amazon calls it, such as `bedrock-runtime`.
        region: where.
        timeout: seconds of one call.
        connections: at once, at most.

    """
    config = Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        max_pool_connections=connections,
        retries={"total_max_attempts": 1},
    )
    return boto3.client(service, region_name=region, config=config)


def called(call: Callable[[], T]) -> T:
    """Call Amazon, and raise its faults in our form.

    Raises:
        CloudError: the refusal, or that no reply came.

    """
    try:
        return call()
    except ClientError as error:
        raise _refusal(error) from None
    except ReadTimeoutError as error:
        raise CloudTimeout(str(error)) from None
    except NoCredentialsError as error:
        raise CloudError(f"no credentials: {error}", 401) from None
    except (ConnectionError, HTTPClientError) as error:
        raise CloudConnectionError(str(error)) from None
    except BotoCoreError as error:
        raise CloudError(str(error)) from None


def _refusal(error: ClientError) -> CloudError:
    reply: Any = error.response
    code, words = reply["Error"].get("Code", ""), reply["Error"].get("Message") or str(error)
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    if code in THROTTLED:
        status = 429
    elif code in NOT_READY:
        status = 503
    elif code == "ExpiredTokenException" or code == "UnrecognizedClientException":
        status = 401
    return refusal(words, status, reply.get("ResponseMetadata", {}).get("HTTPHeaders"))
