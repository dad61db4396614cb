"""One server that answers: requests go to the address of the settings and nowhere else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import orjson
from yarl import URL

from tunepoint.models.abilities import Abilities, is_bad_key, refusal_words
from tunepoint.models.providers import Address
from tunepoint.serve.protocol import read_json
from tunepoint.serve.redaction import SecretFilter, without_key

MAX_REPLY_BYTES = 16 * 2**20
MAX_REFUSAL_BYTES = 64 * 2**10
"""Of the body in which a server refuses a request; more of it is not read."""
READ_BUFFER_BYTES, RECEIVE_BUFFER_BYTES = 16 * 2**10, 32 * 2**10
"""Of one server's connection, here and in the kernel; what a slow client has not read stays at the server."""
MAX_QUOTED_CHARACTERS = 300
"""Of a server's words in an error."""
MAX_WAIT_SECONDS = 86_400.0
"""Of a server's retry-after, taken at most."""
BAD_REQUEST = (400, 413, 422)
"""HTTP statuses by which a server calls the request wrong; another server would too."""
REASONS = {
    401: "rejected our API key",
    402: "has no credit left for us",
    403: "does not allow the call",
    404: "does not have the model, or has another address",
    429: "limits our rate",
}


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

    @property
    def words(self) -> str:
        """What the server says, whatever the shape of its body."""
        try:
            return refusal_words(read_json(self.body))
        except ValueError:
            return refusal_words(self.body.decode("utf-8", "replace"))


@dataclass
class Upstream:
    """An OpenAI-compatible server."""

    address: Address
    session: aiohttp.ClientSession
    timeout: float = 60.0
    """Seconds until the first byte, and between two of a stream."""
    headers: dict[str, str] = field(init=False, repr=False)
    abilities: Abilities = field(init=False, default=Abilities())
    """What the server can be asked for, as far as its refusals have shown."""

    def __post_init__(self) -> None:
        self._key = key = self.address.key()
        self.headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if self.address.query:
            self.headers["api-key"] = key  # Azure's own header
        self._url = URL(f"{self.address.url}/chat/completions").update_query(self.address.query)
        self._has_streamed = False

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's completion.

        Raises:
            ArmFault: the server does not answer, or answers that it cannot.
            BadRequestFault: it says that the request is wrong.

        """
        async with self._post(body) as response:
            raw = await self._read(response)
        return _completion_in(raw)

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[bytes | dict[str, Any]]]:
        """Open the server's stream of events, as bytes in which events may begin and end anywhere.

        A server that cannot stream answers with a whole completion, which is then the only item.

        Args:
            body: of the request, without `stream_options` of ours: they are added for servers that take them.

        Raises:
            ArmFault: as `complete`; also in the middle, where the server breaks off.
            BadRequestFault: as `complete`.

        """
        options = {**(body.get("stream_options") or {}), "include_usage": True}
        plain = {key: value for key, value in body.items() if key != "stream_options"}
        if not self.abilities.stream_options:
            async with self._post(plain) as response:
                yield self._chunks(response)
            return
        try:
            async with self._post({**plain, "stream_options": options}) as response:
                self._has_streamed = True
                yield self._chunks(response)
            return
        except BadRequestFault as fault:
            without = self._without_options(fault)
            if without is None:
                raise
        # Learned only if the server takes the request without them: a refusal may quote the caller's words.
        async with self._post(plain) as response:
            self.abilities = without
            yield self._chunks(response)

    def _without_options(self, fault: BadRequestFault) -> Abilities | None:
        """What the server may be able to do if it has refused what the gateway added; None if it has not.

        A refusal that names nothing counts too, until the server has streamed with the options once.
        """
        named = self.abilities.without(fault.words)
        if (named is not None and not named.stream_options) or not self._has_streamed:
            return replace(self.abilities, stream_options=False)
        return None

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes | dict[str, Any]]:
        begun, secret = False, SecretFilter(self._key)
        try:
            async for chunk in response.content.iter_chunked(READ_BUFFER_BYTES):
                if not begun and chunk.strip():
                    begun = True
                    if chunk.lstrip()[:1] in (b"{", b"["):
                        yield _completion_in(await self._read(response, start=chunk))
                        return
                yield secret.feed(chunk)
            yield secret.rest()
        except TimeoutError:
            raise ArmFault(f"no event within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError, EOFError) as error:
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
                self._url,
                data=data,
                headers=self.headers,
                timeout=limits,
                allow_redirects=False,  # a redirect would take the request, and our key, elsewhere
            )
        except TimeoutError:
            raise ArmFault(f"no reply within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError, EOFError) as error:
            raise ArmFault(f"no connection ({_reason(error)})") from None
        try:
            if response.status != 200:
                await self._raise_for_status(response)
            yield response
        finally:
            # A connection can be used again only when its reply was read to the end.
            response.release() if response.content.at_eof() else response.close()

    async def _raise_for_status(self, response: aiohttp.ClientResponse) -> None:
        status, reason = response.status, None
        if status in BAD_REQUEST:
            fault = BadRequestFault(status, await self._read(response, enough=MAX_REFUSAL_BYTES))
            if not is_bad_key(fault.words):  # some servers answer 400 to a wrong key
                raise fault
            reason = REASONS[401]
        raise ArmFault(
            f"the server {reason or REASONS.get(status, 'cannot answer')} (HTTP {status})",
            status=429 if status == 429 else 502,
            wait=_retry_after(response.headers.get("retry-after", "")),
        )

    async def _read(
        self, response: aiohttp.ClientResponse, *, start: bytes = b"", enough: int | None = None
    ) -> bytes:
        """Read a reply without our key.

        Args:
            start: of the reply, read before.
            enough: bytes that suffice; the whole reply is read if None.

        Raises:
            ArmFault: it is too long, or does not come to its end.

        """
        parts, size = [start], len(start)
        try:
            async for chunk in response.content.iter_any():
                parts.append(chunk)
                size += len(chunk)
                if enough is not None and size > enough:
                    break
                if size > MAX_REPLY_BYTES:
                    raise ArmFault(f"the reply is over {MAX_REPLY_BYTES // 2**20} MiB")
        except TimeoutError:
            raise ArmFault(f"the reply did not end within {self.timeout:g} s", status=504) from None
        except (aiohttp.ClientError, OSError, EOFError) as error:
            raise ArmFault(f"the reply was interrupted ({_reason(error)})") from None
        return without_key(b"".join(parts), self._key)


def _completion_in(raw: bytes) -> dict[str, Any]:
    """Read a whole completion.

    Raises:
        ArmFault: it is none, or an error inside HTTP 200.

    """
    try:
        completion = read_json(raw)
    except ValueError:
        raise ArmFault("the reply is not JSON") from None
    if isinstance(completion, dict) and completion.get("choices"):
        return completion
    error = completion.get("error") if isinstance(completion, dict) else completion
    words = refusal_words(error)
    reason = f"error in a reply: {words}" if words else "the reply has no choices"
    raise ArmFault(reason[:MAX_QUOTED_CHARACTERS])


def _retry_after(header: str) -> float | None:
    """Seconds of a retry-after; None where it is missing or a date."""
    digits = header.replace(".", "", 1)
    if len(header) >= 12 or not (digits.isascii() and digits.isdigit()):
        return None
    return min(float(header), MAX_WAIT_SECONDS)


def _reason(error: BaseException) -> str:
    """What went wrong, without its text: that may hold addresses that a client must not see."""
    return type(error).__name__


def open_session() -> aiohttp.ClientSession:
    """Connections that are kept and shared; no cookies, no proxies, no limit of ours."""
    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=60, ttl_dns_cache=60, socket_factory=_narrow_socket
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
        raise_for_status=False,
        read_bufsize=READ_BUFFER_BYTES,
    )


def _narrow_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket for which the kernel holds little: all that it holds comes in one read.

    The size is set before the connection is made. Set later, it left a server waiting for room that
    it had been promised, and a stream took 100 times as long.
    """
    family, kind, protocol, _, _ = address
    raw = socket.socket(family, kind, protocol)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return raw
