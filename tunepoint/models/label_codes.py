"""Short codes for labels: a letter each, or a number where there are more labels than letters."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

AROUND = " \t\n()[].:*\"'"
"""Signs that models put around a code, as in `(B).`"""


def codes_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a code for each label, in order; none of them is a label itself, or a label but for signs."""
    taken = {_bare(label) for label in labels}
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    schemes = [list(ascii_uppercase[: len(labels)]), numbers]
    for codes in schemes:
        if len(codes) == len(labels) and not taken & {code.casefold() for code in codes}:
            return tuple(codes)
    prefix = "N"
    while any(label.startswith(prefix.casefold()) for label in taken):
        prefix += "N"
    return tuple(f"{prefix}{number}" for number in numbers)


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """Return the label whose code a text is, perhaps with signs around it; None if it is no code."""
    codes = [code.casefold() for code in codes_of(labels)]
    return labels[codes.index(_bare(text))] if _bare(text) in codes else None


def _bare(text: str) -> str:
    return text.strip(AROUND).casefold()
