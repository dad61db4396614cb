"""Bank accounts, payment cards and social security numbers, by their check digits and number ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from stdnum import iban, luhn, numdb
from stdnum.us import ssn

from tunepoint.data.personal.budget import TimeBudget
from tunepoint.data.personal.page import Finding, Page, compiled

CARD_RANGES = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", (14, 16, 17, 18, 19)),
    ("309", "309", (14, 16, 17, 18, 19)),
    ("36", "36", (14, 15, 16, 17, 18, 19)),
    ("38", "39", (14, 16, 17, 18, 19)),
    ("3528", "3589", (16, 17, 18, 19)),
    ("6011", "6011", (16, 17, 18, 19)),
    ("644", "659", (16, 17, 18, 19)),
    ("62", "62", (16, 17, 18, 19)),
    ("60", "60", (16,)),
    ("81", "82", (16,)),
    ("5018", "5018", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5020", "5020", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("6304", "6304", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("6759", "6763", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("2200", "2205", (16, 17, 18, 19)),
    ("5067", "5067", (16,)),
    ("6362", "6363", (16,)),
    ("9792", "9792", (16,)),
)
"""First and last prefix, and numbers of digits, of the card networks (ISO/IEC 7812 issuer ranges)."""

_IBAN_START = compiled(rb"(?:^|[^A-Za-z0-9\xe9])([A-Za-z]{2}[0-9]{2})")
# One digit more than a card has, so that the end of a longer number is seen.
_CARD = compiled(rb"[0-9]{4}(?:[ -]?[0-9]){8,16}")
_SSN = compiled(rb"[0-9]{3}-[0-9]{2}-[0-9]{4}")
_BBAN_PART = re.compile(r"(\d+)!")
_GROUP = re.compile(r"\d+")
_IBAN_ROOM = 80
"""Characters in which the longest IBAN ends, with a separator between its groups."""


def find_accounts(page: Page, budget: TimeBudget) -> Iterator[Finding]:
    """Find IBANs. The country says how many characters one has; words may follow it."""
    for match in _IBAN_START.finditer(page.folded):
        if budget.spent:
            return
        start = match.start(1)
        length = _iban_length(match.group(1)[:2].decode().upper())
        end = _end_of_iban(page.ascii(start, start + _IBAN_ROOM), length) if length else 0
        if end and iban.is_valid(page.ascii(start, start + end), check_country=False):
            yield Finding(start, start + end, "account")


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int:
    """Characters of a country's IBANs, 0 if it has none."""
    _, properties = numdb.get("iban").info(f"{country}00")[0]
    parts = _BBAN_PART.findall(properties.get("bban", ""))
    return 4 + sum(map(int, parts)) if parts else 0


def _end_of_iban(text: str, length: int) -> int:
    """Where the first `length` letters and digits of the text end, 0 if they are no group of their own."""
    seen = 0
    for position, character in enumerate(text):
        if character.isascii() and character.isalnum():
            seen += 1
        elif character not in " .-" or not text[position - 1].isalnum():
            return 0
        if seen == length:
            return 0 if text[position + 1 : position + 2].isalnum() else position + 1
    return 0


def find_cards(page: Page, budget: TimeBudget) -> Iterator[Finding]:
    """Find card numbers: a network's range and length, and the check digit (ISO/IEC 7812-1, annex B)."""
    position = 0
    while not budget.spent and (match := _CARD.search(page.folded, position)):
        start, text = match.start(), match.group().decode()
        end = None if _continues_before(page, start) else _end_of_card(page, start, text)
        if end:
            yield Finding(start, end, "card")
        # After the first group, so that a number before a card does not hide it.
        first = _GROUP.match(text)
        position = end or start + (first.end() if first else 1)


def _end_of_card(page: Page, start: int, text: str) -> int | None:
    """Return where the card ends that the text begins with; other numbers may follow it."""
    groups = [group.span() for group in _GROUP.finditer(text)]
    for last in range(len(groups), 0, -1):
        sizes, end = [stop - begin for begin, stop in groups[:last]], groups[last - 1][1]
        plain = re.sub(r"\D", "", text[:end])
        if (
            _grouped_as_card(sizes)
            and _in_card_range(plain)
            and not _continues_after(page, start + end)
            and luhn.is_valid(plain)
        ):
            return start + end
    return None


def _grouped_as_card(sizes: list[int]) -> bool:
    """Whether cards are printed or typed in such groups: all at once, or in fours to sixes."""
    return len(sizes) == 1 or (min(sizes[:-1]) >= 4 and max(sizes) <= 8)


def _in_card_range(plain: str) -> bool:
    return any(
        len(plain) in lengths and first <= plain[: len(first)] <= last for first, last, lengths in CARD_RANGES
    )


def find_ssns(page: Page, budget: TimeBudget) -> Iterator[Finding]:
    """Find US social security numbers with their hyphens."""
    for match in _SSN.finditer(page.folded):
        if budget.spent:
            return
        touched = _continues_before(page, match.start()) or _continues_after(page, match.end())
        if not touched and ssn.is_valid(match.group().decode()):
            yield Finding(match.start(), match.end(), "ssn")


def _continues_before(page: Page, start: int) -> bool:
    """Whether a letter, a digit or a hyphen touches the number, or it is the fraction of a decimal."""
    before = page.ascii(start - 2, start)
    fraction = len(before) == 2 and before[0].isdigit() and before[1] in ".,"
    return before[-1:].isalnum() or before[-1:] in ("_", "-") or fraction


def _continues_after(page: Page, end: int) -> bool:
    after = page.ascii(end, end + 2)
    decimals = after[:1] in (".", ",") and after[1:].isdigit()
    return after[:1].isalnum() or after[:1] in ("_", "-") or decimals
