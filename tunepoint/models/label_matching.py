"""Which label a text names: exactly first, then without case, then loosely where that is unique."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

_WRAPPING = " \t\r\n\"'`*“”‘’„«»"
"""What models put around a label."""
_ENDING = ".,;:!"
"""What may follow a label at the end of a reply, where no label ends in it."""

_SEPARATORS = re.compile(r"(?<=[^\s_-])[\s_-]+(?=[^\s_-])")
"""Between two words of a label; the sign of '-1' is none."""
_JOINTS = "-−+.,"
"""Signs that make one number, range or sum of digits on both sides."""
_WHOLE_NUMBER = re.compile(r"^([-+]?\d+)\.0+$")


def exact_key(text: str) -> str:
    """Return a text in one Unicode form (NFC) without outer spaces."""
    return unicodedata.normalize("NFC", text).strip()


def caseless_key(text: str) -> str:
    """Return `exact_key` without case."""
    return exact_key(exact_key(text).casefold())


def loose_key(text: str) -> str:
    """Return `caseless_key` with single spaces for spaces, `_` and `-` between words; other signs stay."""
    return " ".join(_SEPARATORS.sub(" ", caseless_key(text)).split())


def _bare_key(text: str) -> str:
    """Return `loose_key` without signs at the end and without the `.0` of a whole number."""
    loose = loose_key(text)
    return _WHOLE_NUMBER.sub(r"\1", loose.rstrip(_ENDING) or loose)


_KEYS: tuple[Callable[[str], str], ...] = (exact_key, caseless_key, loose_key, _bare_key)


def same_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that a text is; None if it is none, or several alike."""
    unwrapped = text.strip(_WRAPPING)
    spellings = dict.fromkeys((text, unwrapped, unwrapped.rstrip(_ENDING).strip(_WRAPPING)))
    for key in _KEYS:
        index = _index(labels, key)
        for spelling in spellings:
            alike = index.get(key(spelling), []) if spelling else []
            if len(alike) == 1:
                return alike[0]
    return None


def named_labels(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that stand in a text as whole words."""
    text = exact_key(text)
    spans = [
        (match.start(), match.end(), label)
        for label, pattern in _patterns(labels)
        for match in pattern.finditer(text)
        if _is_whole(text, match.start(), match.end())
    ]
    # A label inside a longer one is no second answer: 'card' in 'card arrival'.
    outer: dict[str, None] = {}
    reached = 0
    for _, end, label in sorted(spans, key=lambda span: (span[0], -span[1])):
        if end > reached:
            outer[label] = None
            reached = end
    return list(outer)


def _patterns(labels: Sequence[str]) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield each label and what finds it: as loosely as it is still the only one."""
    caseless, loose = _index(labels, caseless_key), _index(labels, loose_key)
    for label in labels:
        exact = exact_key(label)
        if not exact:
            continue
        # A single letter in prose may be another word: the article 'a', the pronoun 'I'.
        any_case = len(exact) > 1 and len(caseless[caseless_key(label)]) == 1
        words = _SEPARATORS.split(exact) if len(loose[loose_key(label)]) == 1 else [exact]
        pattern = r"[\s_-]+".join(map(re.escape, words))
        yield label, re.compile(pattern, re.IGNORECASE if any_case else 0)


def _index(labels: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Key -> the labels that have it."""
    index: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        index[key(label)].append(label)
    return index


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether what stands at these places is no part of a longer word or number."""
    before, after = text[start - 1 : start], text[end : end + 1]
    first, last = text[start], text[end - 1]
    inside_a_word = (_in_word(last) and _in_word(after)) or (_in_word(first) and _in_word(before))
    inside_a_row = (not _in_word(last) and after == last) or (not _in_word(first) and before == first)
    if inside_a_word or inside_a_row:
        return False
    if _is_mark(after):
        return False
    if first in "-−+" and before.isdigit():
        return False  # in 2-1, the sign is no sign of 1
    further = text[start - 2 : start - 1] if start > 1 else ""
    if first.isdigit() and before and before in _JOINTS and (further.isdigit() or not _in_word(further)):
        return False  # neither -1 is 1, nor 2.1, nor 2-1
    next_one = text[end + 1 : end + 2]
    return not (last.isdigit() and after and after in _JOINTS and next_one.isdigit())


def _in_word(character: str) -> bool:
    """Whether it is a letter, a digit or a mark; no character is none."""
    return character == "_" or character.isalnum() or _is_mark(character)


def _is_mark(character: str) -> bool:
    """Whether it is a combining mark, as the vowel signs of Devanagari are."""
    return bool(character) and unicodedata.category(character).startswith("M")
