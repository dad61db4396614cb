"""Removes personal data from captured texts before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunepoint.data.personal.budget import TimeBudget
from tunepoint.data.personal.finder import DEFAULT_REGIONS, find_personal_data

BUDGET_SECONDS = 0.5
"""Time for one text, or for all texts of one request."""


class Redactor(Protocol):
    """Removes personal data from a text."""

    def __call__(self, text: str) -> str:
        """Return the text, each piece of personal data replaced by its kind in angle brackets."""
        ...


class PatternRedactor:
    """Redacts e-mail and IP addresses, phone numbers, cards, bank accounts, US SSNs and API keys.

    A text that takes longer than its budget loses every number of four digits or more as `<unverified>`.

    Args:
        regions: countries whose phone numbers are found without a country code (ISO 3166).
        seconds: the time budget of each text.

    """

    def __init__(self, regions: Sequence[str] = DEFAULT_REGIONS, seconds: float = BUDGET_SECONDS) -> None:
        self.regions = tuple(regions)
        self.seconds = seconds

    def __call__(self, text: str) -> str:
        """Return the text, each piece of personal data replaced by its kind in angle brackets."""
        return self.within(TimeBudget(self.seconds))(text)

    def within(self, budget: TimeBudget) -> Redactor:
        """Return a redactor whose texts share the budget."""
        return lambda text: _replaced(text, self.regions, budget)


def for_one_request(redact: Redactor) -> Redactor:
    """Return a redactor for the texts of one request: many short texts take no longer than a long one."""
    if isinstance(redact, PatternRedactor):
        return redact.within(TimeBudget(redact.seconds))
    return redact


def _replaced(text: str, regions: Sequence[str], budget: TimeBudget) -> str:
    pieces, position = [], 0
    for finding in find_personal_data(text, regions, budget):
        pieces += [text[position : finding.start], f"<{finding.kind}>"]
        position = finding.end
    return "".join([*pieces, text[position:]]) if pieces else text


def redacted(value: Any, redact: Redactor) -> Any:
    """Redact every string of a JSON value; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(inner, redact) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner, redact) for inner in value]
    return value
