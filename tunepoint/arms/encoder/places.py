"""Where a value stands in a text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

Place = tuple[int, int]
"""Where a value starts and ends in its input, in characters."""
SPACED_SCRIPTS = (
    "ARABIC",
    "HEBREW",
    "DEVANAGARI",
    "BENGALI",
    "TAMIL",
    "TELUGU",
    "HANGUL",
    "ETHIOPIC",
    "GEORGIAN",
)
"""Scripts whose letters have no case, and whose words stand between spaces."""


def find_places(text: str, value: str) -> list[Place]:
    """Return where a value stands in a text as whole words.

    Any white space may separate its words. If it stands nowhere as it is, its case is ignored.
    """
    words = value.split()
    if not words:
        return []
    start, end = words[0][0], words[-1][-1]
    pattern = r"\s+".join(map(re.escape, words))
    pattern = pattern if _without_spaces(start) else r"(?<!\w)" + pattern
    pattern = pattern if _without_spaces(end) else pattern + r"(?!\w)"
    exact = [match.span() for match in re.finditer(pattern, text)]
    return exact or [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]


def overlaps(place: Place, others: Sequence[Place]) -> bool:
    """Whether a place shares a character with one of the others."""
    return any(place[0] < end and start < place[1] for start, end in others)


def _without_spaces(letter: str) -> bool:
    """Whether the words of its script stand without spaces between them, as in Chinese, Japanese or Thai."""
    # "Lo" is a letter without case. Python knows a letter's script by the start of its name alone.
    caseless = unicodedata.category(letter) == "Lo"
    return caseless and not unicodedata.name(letter, "").startswith(SPACED_SCRIPTS)
