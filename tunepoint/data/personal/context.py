"""What the words near a number say that it is: a phone number, or something else."""

from __future__ import annotations

import re

from tunepoint.data.personal.page import Page

BEFORE, AFTER = 40, 24
"""Characters near a number in which a word counts. The nearest word decides."""

_PHONE_WORDS = (
    r"(?:tele)?phone[sd]?|phoning|tele?|fon|call(?:s|ed|ing)?|ring|rang|dial(?:l?ed|l?ing)?|mobiles?|mob|"
    r"cell(?:phone)?|fax|whats\s?app|sms|landline|hotline|(?:text|reach|contact) (?:me|us|him|her|them)|"
    r"contact(?=\s?:| no| number)|wa\.me|my (?:number|digits)|"
    r"t[ée]l[ée]phon\w*|t[ée]l|portable|appel\w*|telef\w*|tlf|"
    r"m[óo]vil|celular|cellulare|handy\w*|mobil\w*|rufnummer|anruf\w*|durchwahl|gsm|тел\w*"
)
_OTHER_WORDS = (
    r"orders?|invoices?|tickets?|cases?|ref(?:erence)?s?|ids?|tracking|parcels?|shipments?|serials?|s/?n|sku|"
    r"isbn|issn|ean|upc|gtin|asin|barcodes?|items?|articles?|parts?|models?|versions?|builds?|releases?|"
    r"accounts?|acct|customers?|members?|polic(?:y|ies)|transactions?|bookings?|confirmation|receipts?|batch|"
    r"lots?|licen[sc]es?|vin|imei|codes?|hash(?:es)?|commits?|timestamps?|epoch|unix|prices?|totals?|amounts?|"
    r"sum|costs?|paid|pay|usd|eur|gbp|chf|kg|ms|bytes|tokens|rows|values?|ratios?|scores?|lat(?:itude)?|"
    r"lon(?:gitude)?|lng|pi|ports?|sizes?|sensors?|devices?|products?|claims?|dates?|seed|bestell\w*|"
    r"rechnung\w*|auftrag\w*|kunden\w*|vertrag\w*|commande|facture|pedido|factura|ordine|fattura|po|"
    r"about|regarding|concerning|doi|pmid|issues?|patents?|uuid|request|number of"
)
_PHONE_SIGNS = "電話|电话|手机|전화|携帯|\N{BLACK TELEPHONE}|\N{TELEPHONE RECEIVER}"
_WORD = re.compile(
    rf"(?P<phone>(?<![^\W_])(?:{_PHONE_WORDS})(?![^\W_])|{_PHONE_SIGNS})"
    rf"|(?P<other>(?<![^\W_])(?:{_OTHER_WORDS})(?![^\W_])|[#$€£¥№])",
    re.IGNORECASE,
)
# A word that introduces the next number says nothing about the one before it.
_INTRODUCES = re.compile(r"[^\w\n]{0,4}(?:(?:is|no|at|on|number)\b[^\w\n]{0,3})?[\d+(]", re.IGNORECASE)


def said_to_be_phone(page: Page, start: int, end: int) -> bool:
    """Whether the nearest telling word says that the number is a phone number."""
    return _nearest(page.text, start, end) == "phone"


def said_to_be_other(page: Page, start: int, end: int) -> bool:
    """Whether the nearest telling word says that the number is an order, an amount or the like."""
    return _nearest(page.text, start, end) == "other"


def _nearest(text: str, start: int, end: int) -> str | None:
    window = text[max(0, start - BEFORE) : start]
    before = None
    for match in _WORD.finditer(window):
        before = match
    following = text[end : end + AFTER].partition("\n")[0]
    after = next(
        (match for match in _WORD.finditer(following) if not _introduces(text, end + match.end())), None
    )
    if before is None or (after is not None and after.start() < len(window) - before.end()):
        return after.lastgroup if after else None
    return before.lastgroup


def _introduces(text: str, position: int) -> bool:
    return bool(_INTRODUCES.match(text[position : position + 16]))
