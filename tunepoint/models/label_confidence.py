"""How sure a model is of a label: its probability among the labels, from log-probabilities of tokens.

Servers report probabilities before they confine the answer to the labels, and of all that they write
around it. The probability among the labels is that of each token of the label, divided by that of all
tokens that could have begun or continued a label at that place.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_ALTERNATIVES = 5
"""Tokens that hosted servers are asked to report beside the chosen one; some refuse to tell more."""
_QUOTE = b'"'
_Token = tuple[bytes, float, list[tuple[bytes, float]]]
"""Bytes, log-probability, and the alternatives with theirs."""


def label_probability(tokens: Any, labels: Sequence[str]) -> float | None:
    """Return the probability of the label that was written among all labels.

    None where no label was written, or the server does not tell what else could have been.

    Args:
        tokens: `logprobs.content` of a reply, whatever it is.
        labels: all that could have been written, alone or inside JSON.

    """
    if not isinstance(tokens, Sequence) or isinstance(tokens, str):
        return None
    read = [token for token in map(_token, tokens) if token is not None]
    if len(read) != len(tokens) or not any(alternatives for _, _, alternatives in read):
        return None
    text = b"".join(piece for piece, _, _ in read)
    place = _find(text, labels)
    return None if place is None else _probability(read, text, place)


@dataclass(frozen=True)
class _Place:
    """Where the label stands in a text."""

    start: int
    label: bytes
    """With what ends it."""
    rivals: tuple[bytes, ...]
    """All labels in the form of this one."""
    end: bytes


def _find(text: bytes, labels: Sequence[str]) -> _Place | None:
    """Find the label that is the whole text, or the last that stands in quotation marks."""
    plain = tuple(label.encode() for label in labels)
    if text.strip() in plain:
        return _Place(text.find(text.strip()), text.strip(), plain, b"")
    quoted = tuple(json.dumps(label, ensure_ascii=False).encode()[1:] for label in labels)
    starts = {label: text.rfind(_QUOTE + label) for label in quoted}
    label = max(quoted, key=lambda label: starts[label], default=b"")
    return _Place(starts[label] + 1, label, quoted, _QUOTE) if starts.get(label, -1) >= 0 else None


def _probability(read: Sequence[_Token], text: bytes, place: _Place) -> float:
    start, total, position = place.start, 0.0, 0
    finish = start + len(place.label) - len(place.end)
    for piece, logprob, alternatives in read:
        at, position = position, position + len(piece)
        if at < start and position <= start:
            continue  # before the label
        if at > finish:
            break  # behind it; the token at its end may have gone on to a longer label
        # A token may begin with what stands before the label, such as a quotation mark.
        head, before = piece[: max(0, start - at)], text[start : max(start, at)]
        others = [
            (before + other[len(head) :], other == b"", math.exp(value))
            for other, value in alternatives
            if other != piece and other.startswith(head)
        ]
        chosen = math.exp(logprob)
        same = chosen + sum(p for written, _, p in others if place.end and written.startswith(place.label))
        allowed = chosen + sum(p for written, ends, p in others if _leads_on(written, ends, place))
        total += math.log(max(same, sys.float_info.min)) - math.log(max(allowed, sys.float_info.min))
    return math.exp(min(0.0, total))


def _leads_on(written: bytes, ends: bool, place: _Place) -> bool:
    """Whether a text begins a label, or is a whole one; one that ends there must be whole."""
    if ends:
        return written in place.rivals
    return any(
        rival.startswith(written) or (place.end and written.startswith(rival)) for rival in place.rivals
    )


def _token(token: Any) -> _Token | None:
    """Return the bytes of a token, its log-probability, and the alternatives; None where one is missing."""
    if not isinstance(token, Mapping):
        return None
    piece, logprob = _bytes(token), _number(token.get("logprob"))
    if piece is None or logprob is None:
        return None
    return piece, logprob, list(_alternatives(token.get("top_logprobs")))


def _alternatives(listed: Any) -> Iterator[tuple[bytes, float]]:
    for other in listed if isinstance(listed, list) else []:
        if isinstance(other, Mapping):
            piece, logprob = _bytes(other), _number(other.get("logprob"))
            if piece is not None and logprob is not None:
                yield piece, logprob


def _bytes(token: Mapping[str, Any]) -> bytes | None:
    """Return the bytes of a token: part of a character has no text of its own."""
    values = token.get("bytes")
    if isinstance(values, list):
        try:
            return bytes(values)
        except (ValueError, TypeError):
            return None
    text = token.get("token")
    return text.encode() if isinstance(text, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return min(0.0, max(float(value), -1e3))  # rounding on the server can make it positive
