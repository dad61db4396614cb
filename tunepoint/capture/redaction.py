"""Removes personal data from captured texts before anything is written.

`phonenumbers` (Google's libphonenumber) finds phone numbers, `python-stdnum` verifies the check digits of
cards and bank accounts. Names and postal addresses are not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn


class Redactor(Protocol):
    """Removes personal data from a text."""

    def __call__(self, text: str) -> str:
        """Return the text, each piece of personal data replaced by its kind in angle brackets."""
        ...


# The fewest digits of all that is looked for: most texts have fewer, and are done after this test.
_SEVEN_DIGITS = re.compile(r"\d(?:[^\d\n]{0,3}\d){6}")
# Lengths are bounded: without, a long text took time quadratic in its length.
_EMAIL = re.compile(r"(?<![\w.+'-])[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}\b")
_SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_IP = re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\w|\.\d)")
_SECRET = re.compile(r"\b(?:sk|pk|ghp|gho|xox[bp])[-_][A-Za-z0-9_-]{16,}\b|\bAKIA[0-9A-Z]{16}\b")


class PatternRedactor:
    """Redacts e-mail and IP addresses, phone numbers, cards, bank accounts, US SSNs and API keys."""

    def __init__(self, regions: Sequence[str] = ("US", "GB")) -> None:
        self.regions = tuple(regions)
        """Countries whose phone numbers are found without a country code (ISO 3166)."""

    def __call__(self, text: str) -> str:
        """Return the text, each piece of personal data replaced by its kind in angle brackets."""
        if "@" in text:
            text = _EMAIL.sub("<email>", text)
        text = _SECRET.sub("<secret>", text)
        if not _SEVEN_DIGITS.search(text):
            return text
        # Cards before phone numbers: the digits of a card can be read as one.
        text = _IBAN.sub(_redact_account, text)
        text = _CARD.sub(_redact_if(_is_card, "<card>"), text)
        text = _SSN.sub(_redact_if(ssn.is_valid, "<ssn>"), text)
        text = _IP.sub("<ip>", text)
        return self._redact_phones(text)

    def _redact_phones(self, text: str) -> str:
        for region in (None, *self.regions):
            spans = [(match.start, match.end) for match in phonenumbers.PhoneNumberMatcher(text, region)]
            for start, end in reversed(spans):
                text = f"{text[:start]}<phone>{text[end:]}"
            if spans and not _SEVEN_DIGITS.search(text):
                break
        return text


def _redact_if(valid: Callable[[str], bool], kind: str) -> Callable[[re.Match[str]], str]:
    """A replacement for matches whose check digits are right; others stay."""
    return lambda match: kind if valid(match.group()) else match.group()


def _redact_account(match: re.Match[str]) -> str:
    """Replace the longest start of the match that is an IBAN; words in capitals may follow it."""
    groups = match.group().split(" ")
    for count in range(len(groups), 0, -1):
        if iban.is_valid(" ".join(groups[:count])):
            return " ".join(["<account>", *groups[count:]])
    return match.group()


def _is_card(text: str) -> bool:
    return bool(luhn.is_valid(re.sub(r"\D", "", text)))


def redacted(value: Any, redact: Redactor) -> Any:
    """Redact every string of a JSON value; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(inner, redact) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner, redact) for inner in value]
    return value
