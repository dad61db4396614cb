"""One server that answers: requests go to the address of the configuration and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tunepoint.models.providers import Address

MOST_REPLY = 32 * 2**20
"""Bytes of a reply that are read at most."""


class ArmFault(Exception):
    """An arm that did not answer; another may."""

    def __init__(self, why: str, *, status: int = 502, wait: float | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.wait = wait
        """Seconds that the server asked to wait."""


class CallersFault(Exception):
    """The server says that the request is wrong: no other arm is tried, and the caller reads why."""

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
        """The server's completion.

        Raises:
            ArmFault: it does not answer, or answers that it cannot.
            CallersFault: it says that the request is wrong.

        """
        async with self._posted(body) as response:
            raw = await self._read(response)
        try:
            found = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise ArmFault("the reply is not JSON") from None
        if not isinstance(found, dict) or not found.get("choices"):
            raise ArmFault("the reply has no choices")
        return found

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The server's events, as bytes in which events may begin and end anywhere.

        Raises:
            ArmFault: as `complete`; also in the middle, where the server breaks off.
            CallersFault: as `complete`.

        """
        async with self._posted(body) as response:
            yield self._chunks(response)

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except TimeoutError:
            raise ArmFault(f"no event within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ArmFault(f"the stream broke off ({_said(error)})") from None

    @asynccontextmanager
    async def _posted(self, body: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=min(10.0, self.timeout), sock_read=self.timeout
        )
        try:
            data = orjson.dumps(body)
        except TypeError:  # it reads deeper nests than it writes
            raise CallersFault(400, b'{"error": {"message": "the request is nested too deep"}}') from None
        try:
            response = await self.session.post(
                f"{self.address.url}/chat/completions",
                data=data,
                headers=self.headers,
                timeout=limits,
                allow_redirects=False,
            )
        except TimeoutError:
            raise ArmFault(f"no reply within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ArmFault(f"no connection ({_said(error)})") from None
        try:
            if response.status != 200:
                await self._refused(response)
            yield response
        finally:
            response.release() if response.content.at_eof() else response.close()

    async def _refused(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in (400, 413, 422):
            raise CallersFault(status, await self._read(response))
        wait = response.headers.get("retry-after", "")
        seconds = (
            min(float(wait), 86_400.0) if len(wait) < 12 and wait.replace(".", "", 1).isdigit() else None
        )
        said = {401: "refuses our key", 403: "refuses our key", 404: "does not have the model"}
        why = said.get(status, "limits our rate" if status == 429 else "cannot answer")
        raise ArmFault(
            f"the server {why} (HTTP {status})", status=429 if status == 429 else 502, wait=seconds
        )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        try:
            async for chunk in response.content.iter_any():
                parts.append(chunk)
                size += len(chunk)
                if size > MOST_REPLY:
                    raise ArmFault(f"the reply is over {MOST_REPLY // 2**20} MiB")
        except TimeoutError:
            raise ArmFault(f"no whole reply within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ArmFault(f"the reply broke off ({_said(error)})") from None
        return b"".join(parts)


def _said(error: BaseException) -> str:
    """What went wrong, without addresses: they may hold names that a client must not see."""
    return type(error).__name__


def session() -> aiohttp.ClientSession:
    """Connections that are kept and shared; no cookies, no proxies, no limit of ours."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=60)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True, raise_for_status=False
    )
