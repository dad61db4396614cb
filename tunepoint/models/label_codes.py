"""Short codes for labels: a letter each, or a number where there are more labels than letters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

_AROUND = re.compile(r"^[\s(\[*\"']*([A-Za-z]?\d+|[A-Za-z])[\s)\].:*\"']*$")
"""A code alone, perhaps with the signs that models put around it, as in `(B).`"""


def codes_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a code for each label, in order; none of them is a label itself."""
    taken = {label.strip().casefold() for label in labels}
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    schemes = [list(ascii_uppercase[: len(labels)]), numbers, [f"Q{number}" for number in numbers]]
    for codes in schemes:
        if len(codes) == len(labels) and not taken & {code.casefold() for code in codes}:
            return tuple(codes)
    return tuple(f"CODE{number}" for number in numbers)


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """Return the label whose code a text is; None if it is no code."""
    match = _AROUND.match(text)
    if match is None:
        return None
    codes = [code.casefold() for code in codes_of(labels)]
    code = match.group(1).casefold()
    return labels[codes.index(code)] if code in codes else None
