"""When two texts are copies: they differ only in case, spaces and the punctuation of prose."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_ENDING = ".,;:!?\u2026。।¿¡"
"""Punctuation that says nothing at the end of a text or behind other signs."""
_QUOTES = "\"'`´‘’‚“”„«»‹›"
_PROSE = frozenset(_ENDING + _QUOTES + "、")
"""Signs that make no difference between words; all others do, as in '2 + 2', ':)' and 'c#'."""
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−", "-"))
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufe0e\ufe0f\ufeff]")
_KEPT_FORMS = ("<super>", "<sub>", "<fraction>")
"""Decompositions of Unicode that change what a text says: 10² is not 102."""
_TOKEN = re.compile(r"\w+(?:(?<=\d)[.,:](?=\d)\w+)*|(?<!\w)[.,](?=\d)\w+|[^\w\s]+")
"""A word, a number with its separators, or a run of signs."""


def copy_key(text: str) -> str:
    """Return what copies of a text have in common; a text of punctuation alone, such as '?!', as it is."""
    folded = _folded(text)
    plain = folded.rstrip(_ENDING + " \t\r\n")
    return " ".join(_tokens(plain)) or folded.strip()


def _folded(text: str) -> str:
    """Return a text without case and without differences in spelling that no reader would notice."""
    if text.isascii():
        return text.casefold()
    parts = (
        part if part and _keeps_form(part[0]) else unicodedata.normalize("NFKC", part)
        for part in _split_forms(text)
    )
    return _INVISIBLE.sub(" ", "".join(parts)).casefold().translate(_DASHES)


def _split_forms(text: str) -> Iterator[str]:
    """Yield the text in pieces, each character that keeps its form by itself."""
    start = 0
    for position, character in enumerate(text):
        if _keeps_form(character):
            yield text[start:position]
            yield character
            start = position + 1
    yield text[start:]


def _keeps_form(character: str) -> bool:
    return character > "\x7f" and unicodedata.decomposition(character).startswith(_KEPT_FORMS)


def _tokens(text: str) -> Iterator[str]:
    """Yield the words of a text, and the signs that tell it from others."""
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token[-1].isalnum() or token[-1] == "_":
            yield token
        elif signs := _telling_signs(
            token, text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 2]
        ):
            yield signs


def _telling_signs(signs: str, before: str, after: str) -> str:
    """Return the part of a run of signs that is more than punctuation of prose.

    Args:
        signs: without a word or a space in them.
        before: up to two characters in front of them.
        after: up to two characters behind them.

    """
    if set(signs) <= _PROSE:
        # '5! + 3' is not '5 + 3', nor is 5" the same as 5'; a comma or full stop may follow any number.
        of_number = before[-1:].isdigit() and not set(signs) <= set(".,")
        return signs if of_number else ""
    if signs == "-" and before[-1:].isalpha() and after[:1].isalpha() and (before + after).isalpha():
        return (
            "" if len(before) == len(after) == 2 else signs
        )  # 'well-known' is 'well known', 'a-b' is not 'a b'
    return signs.strip(_QUOTES).rstrip(_ENDING) or signs
