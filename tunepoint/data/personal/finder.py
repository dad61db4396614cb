"""Finds all kinds of personal data in a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunepoint.data.personal.addresses import find_emails, find_ips
from tunepoint.data.personal.budget import TimeBudget
from tunepoint.data.personal.keys import find_keys
from tunepoint.data.personal.numbers import find_accounts, find_cards, find_ssns
from tunepoint.data.personal.page import Finding, Page, compiled
from tunepoint.data.personal.phones import PhoneFinder

DEFAULT_REGIONS = ("US", "GB")
"""Countries whose phone numbers are found without a country code (ISO 3166)."""

MIN_CHARACTERS = 6
"""Of the shortest personal data that is found, such as `a@b.cc`."""

# The fewest digits of a phone number, a card, an account or an address: most texts have fewer.
_SEVEN_DIGITS = compiled(rb"[0-9](?:[^0-9\n]{0,3}[0-9]){6}")
_NUMBER = compiled(rb"[0-9](?:[^0-9\n]{0,3}[0-9]){3,}")
"""What counts once the budget is spent: four digits or more that stand close together."""


def find_personal_data(
    text: str, regions: Sequence[str] = DEFAULT_REGIONS, budget: TimeBudget | None = None
) -> list[Finding]:
    """Return the personal data of a text in its order; no two findings overlap.

    Names and postal addresses are not found.

    Args:
        text: any text.
        regions: countries whose phone numbers are found without a country code (ISO 3166).
        budget: of time; None gives the text its own. Numbers that could not be verified within it are found
            as `unverified`.

    """
    if len(text) < MIN_CHARACTERS:
        return []
    page, all_findings = Page(text), list[Finding]()
    for search in _searches(page, regions, budget or TimeBudget()):
        findings = list(search)
        page.blank(findings)
        all_findings += findings
    return sorted(all_findings, key=lambda finding: finding.start)


def _searches(page: Page, regions: Sequence[str], budget: TimeBudget) -> Iterator[Iterator[Finding]]:
    """Each kind in turn; what one has found, the next do not see."""
    yield find_keys(page)
    yield find_emails(page)
    yield find_ips(page, budget)
    if _SEVEN_DIGITS.search(page.folded):
        yield find_accounts(page, budget)
        # Cards before phone numbers: the digits of a card can be read as one.
        yield find_cards(page, budget)
        yield find_ssns(page, budget)
        yield PhoneFinder(regions).find(page, budget)
    if budget.spent:
        yield _find_unverified(page)


def _find_unverified(page: Page) -> Iterator[Finding]:
    for match in _NUMBER.finditer(page.folded):
        yield Finding(match.start(), match.end(), "unverified")
