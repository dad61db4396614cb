"""Personal data is taken out before anything is written.

`phonenumbers` (Google's libphonenumber) finds numbers, `python-stdnum` checks the digits of cards and
bank accounts; names and addresses of people are found by neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn


class Redactor(Protocol):
    """Takes personal data out of a text."""

    def __call__(self, text: str) -> str:
        """The text with every find replaced by its kind in angle brackets."""
        ...


_DIGITS = re.compile(r"\d(?:[^\d\n]{0,3}\d){6}")
_EMAIL = re.compile(r"(?<![\w.+'-])[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}\b")
_SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_IP = re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\w|\.\d)")
_SECRET = re.compile(r"\b(?:sk|pk|ghp|gho|xox[bp])[-_][A-Za-z0-9_-]{16,}\b|\bAKIA[0-9A-Z]{16}\b")


class PatternRedactor:
    """E-mail and IP addresses, phone numbers, cards, bank accounts, US social security numbers, API keys."""

    def __init__(self, regions: Sequence[str] = ("US", "GB")) -> None:
        self.regions = tuple(regions)
        """Countries whose phone numbers are found without a country code (ISO 3166)."""

    def __call__(self, text: str) -> str:
        """The text with every find replaced by its kind in angle brackets."""
        if "@" in text:
            text = _EMAIL.sub("<email>", text)
        text = _SECRET.sub("<secret>", text)
        if not _DIGITS.search(text):
            return text
        text = _IBAN.sub(_account, text)
        text = _CARD.sub(_if(_is_card, "<card>"), text)
        text = _SSN.sub(_if(ssn.is_valid, "<ssn>"), text)
        text = _IP.sub("<ip>", text)
        return self._without_phones(text)

    def _without_phones(self, text: str) -> str:
        for region in (None, *self.regions):
            found = [(match.start, match.end) for match in phonenumbers.PhoneNumberMatcher(text, region)]
            for start, end in reversed(found):
                text = f"{text[:start]}<phone>{text[end:]}"
            if found and not _DIGITS.search(text):
                break
        return text


def _if(valid: Callable[[str], bool], kind: str) -> Callable[[re.Match[str]], str]:
    return lambda match: kind if valid(match.group()) else match.group()


def _account(match: re.Match[str]) -> str:
    """The longest start of the groups that is an account; capitals may follow it."""
    groups = match.group().split(" ")
    for count in range(len(groups), 0, -1):
        if iban.is_valid(" ".join(groups[:count])):
            return " ".join(["<account>", *groups[count:]])
    return match.group()


def _is_card(text: str) -> bool:
    return bool(luhn.is_valid(re.sub(r"\D", "", text)))


def redacted(value: Any, redact: Redactor) -> Any:
    """A JSON value with every text in it redacted; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(inner, redact) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner, redact) for inner in value]
    return value
