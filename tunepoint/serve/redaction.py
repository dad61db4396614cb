"""Keys of ours in what servers answer: some servers repeat the headers of a request to whoever asks."""

from __future__ import annotations

MIN_SECRET_CHARACTERS = 8
"""Of a key that is looked for; shorter ones, as `none`, are words like others."""
REPLACEMENT = b"[key]"


class SecretFilter:
    """Replaces a key in bytes that come in chunks, which may begin and end anywhere."""

    def __init__(self, key: str) -> None:
        self._secret = key.encode() if len(key) >= MIN_SECRET_CHARACTERS else b""
        self._held = b""
        """The end of the last chunk, if the key may begin there."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what is certain to hold no part of the key."""
        if not self._secret:
            return chunk
        if self._held:
            chunk, self._held = self._held + chunk, b""
        if self._secret in chunk:
            chunk = chunk.replace(self._secret, REPLACEMENT)
        begins = _begins_at(chunk, self._secret)
        self._held = chunk[begins:]
        return chunk[:begins]

    def rest(self) -> bytes:
        """Return what was held back, at the end."""
        held, self._held = self._held, b""
        return held


def without_key(raw: bytes, key: str) -> bytes:
    """Return a whole body without a key."""
    secret = SecretFilter(key)
    return secret.feed(raw) + secret.rest()


def _begins_at(chunk: bytes, secret: bytes) -> int:
    """Where the longest start of the secret begins that the chunk ends in; the chunk's length if none."""
    at = max(0, len(chunk) - len(secret) + 1)
    while (at := chunk.find(secret[:1], at)) >= 0:
        if secret.startswith(chunk[at:]):
            return at
        at += 1
    return len(chunk)
