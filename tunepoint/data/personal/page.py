"""A text as the searches see it: one byte for each character, and what was found is blanked."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import re2

LETTER, UNSPACED, OTHER = 0xE9, 0xA6, 0xA7
"""What stands for letters beyond ASCII, for those of scripts without capitals, and for other signs.

Chinese, Japanese and Thai put no space between a word and a number: such a letter is no part of the number.
"""
CHUNK = 1 << 15
"""Characters that are folded at once; other threads run between two chunks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of personal data: the characters from `start` to before `end`."""

    start: int
    end: int
    kind: str
    """email, secret, account, card, ssn, ip, phone or unverified."""


class Page:
    """A text with its folded form.

    Folding keeps every position. Digits of all scripts, full-width signs, dashes and spaces become their
    equals in ASCII, so that `０３−１２３４` is read like `03-1234`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.folded = _folded(text)

    def ascii(self, start: int, end: int) -> str:
        """Return the folded characters from `start` to before `end`."""
        return self.folded[max(0, start) : end].decode("latin-1")

    def blank(self, findings: Iterable[Finding]) -> None:
        """Hide findings from the searches that follow."""
        rest = bytearray(self.folded)
        for finding in findings:
            rest[finding.start : finding.end] = bytes([OTHER]) * (finding.end - finding.start)
        self.folded = bytes(rest)


def compiled(pattern: bytes) -> Any:
    """Compile a pattern of folded bytes; RE2 matches it in time linear in the text, and without the GIL."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(pattern, options)


class _Folding(dict[int, int]):
    """Code point -> the one byte that stands for it, worked out when first met."""

    def __missing__(self, code: int) -> int:
        self[code] = folded = code if code < 0x80 else _stand_in(chr(code))
        return folded


def _stand_in(character: str) -> int:
    category = unicodedata.category(character)
    if category == "Nd":
        return ord(str(unicodedata.decimal(character)))
    if category == "Pd" or character == "\N{MINUS SIGN}":
        return ord("-")
    if category in ("Zs", "Cf"):
        return ord(" ")
    plain = unicodedata.normalize("NFKC", character)
    if len(plain) == 1 and plain.isascii():
        return ord(plain)
    if category == "Lo":
        return UNSPACED
    return LETTER if category[0] in "LM" else OTHER


_FOLDING = _Folding()


def _folded(text: str) -> bytes:
    if text.isascii():
        return text.encode("ascii")
    chunks = (text[start : start + CHUNK] for start in range(0, len(text), CHUNK))
    return b"".join(chunk.translate(_FOLDING).encode("latin-1") for chunk in chunks)
