"""One server that answers: requests go to the address of the settings and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tunepoint.models.providers import Address

MAX_REPLY_BYTES = 32 * 2**20
MAX_WAIT_SECONDS = 86_400.0
"""Of a server's retry-after, taken at most."""
BAD_REQUEST = (400, 413, 422)
"""HTTP statuses by which a server calls the request wrong; another server would too."""


class ArmFault(Exception):
    """An arm that did not answer; another may.

    Args:
        status: HTTP status for the client, if no other arm answers.
        wait: seconds that the server asks to wait.

    """

    def __init__(self, reason: str, *, status: int = 502, wait: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.wait = wait


class BadRequestFault(Exception):
    """The server says that the request is wrong: no other arm is tried, and the client reads why."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.body = status, body


@dataclass
class Upstream:
    """An OpenAI-compatible server."""

    address: Address
    session: aiohttp.ClientSession
    timeout: float = 60.0
    """Seconds until the first byte, and between two of a stream."""
    headers: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.headers = {
            "authorization": f"Bearer {self.address.key()}",
            "content-type": "application/json",
        }

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's completion.

        Raises:
            ArmFault: the server does not answer, or answers that it cannot.
            BadRequestFault: it says that the request is wrong.

        """
        async with self._post(body) as response:
            raw = await self._read(response)
        try:
            completion = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise ArmFault("the reply is not JSON") from None
        if not isinstance(completion, dict) or not completion.get("choices"):
            raise ArmFault("the reply has no choices")
        return completion

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the server's stream of events, as bytes in which events may begin and end anywhere.

        Raises:
            ArmFault: as `complete`; also in the middle, where the server breaks off.
            BadRequestFault: as `complete`.

        """
        async with self._post(body) as response:
            yield self._chunks(response)

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except TimeoutError:
            raise ArmFault(f"no event within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ArmFault(f"the stream was interrupted ({_reason(error)})") from None

    @asynccontextmanager
    async def _post(self, body: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=min(10.0, self.timeout), sock_read=self.timeout
        )
        try:
            data = orjson.dumps(body)
        except TypeError:  # orjson reads deeper nesting than it writes
            raise BadRequestFault(400, b'{"error": {"message": "the request is nested too deep"}}') from None
        try:
            response = await self.session.post(
                f"{self.address.url}/chat/completions",
                data=data,
                headers=self.headers,
                timeout=limits,
                allow_redirects=False,  # a redirect would take the request, and our key, elsewhere
            )
        except TimeoutError:
            raise ArmFault(f"no reply within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ArmFault(f"no connection ({_reason(error)})") from None
        try:
            if response.status != 200:
                await self._raise_for_status(response)
            yield response
        finally:
            # A connection can be used again only when its reply was read to the end.
            response.release() if response.content.at_eof() else response.close()

    async def _raise_for_status(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in BAD_REQUEST:
            raise BadRequestFault(status, await self._read(response))
        reasons = {
            401: "rejected our API key",
            403: "rejected our API key",
            404: "does not have the model",
            429: "limits our rate",
        }
        raise ArmFault(
            f"the server {reasons.get(status, 'cannot answer')} (HTTP {status})",
            status=429 if status == 429 else 502,
            wait=_retry_after(response.headers.get("retry-after", "")),
        )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        try:
            async for chunk in response.content.iter_any():
                parts.append(chunk)
                size += len(chunk)
                if size > MAX_REPLY_BYTES:
                    raise ArmFault(f"the reply is over {MAX_REPLY_BYTES // 2**20} MiB")
        except TimeoutError:
            raise ArmFault(f"the reply did not end within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ArmFault(f"the reply was interrupted ({_reason(error)})") from None
        return b"".join(parts)


def _retry_after(header: str) -> float | None:
    """Seconds of a retry-after; None where it is missing or a date."""
    if len(header) >= 12 or not header.replace(".", "", 1).isdigit():
        return None
    return min(float(header), MAX_WAIT_SECONDS)


def _reason(error: BaseException) -> str:
    """What went wrong, without its text: that may hold addresses that a client must not see."""
    return type(error).__name__


def open_session() -> aiohttp.ClientSession:
    """Connections that are kept and shared; no cookies, no proxies, no limit of ours."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=60)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True, raise_for_status=False
    )
