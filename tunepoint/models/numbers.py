"""Numbers as people write them: signs, separators, percent, currencies and units."""

from __future__ import annotations

import re
import unicodedata

_GROUP = "[,.'’_ \u00a0\u202f]"
_DIGITS = rf"(?:\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)|\d{{1,2}}(?:,\d\d)+,\d{{3}}(?!\d)|\d+)"
_PLAIN = rf"(?:{_DIGITS}(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?"
_MINUS = "-‐‑‒–−﹣－"
_CURRENCY = r"[$€£¥₹₩₽₺₴₫฿¢]|[A-Z]{2,3}\$?|R\$|kr\.?"
_UNIT = r"[°µ]?[^\W\d_]{1,12}[²³]?(?:/[^\W\d_]{1,8}[²³]?)?"
_WHOLE = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[{_MINUS}+])?\s*(?:{_CURRENCY})?\s*(?P<inner>[{_MINUS}+])?"
    rf"(?P<number>{_PLAIN})\s*(?:(?P<percent>[%٪])|{_CURRENCY}|{_UNIT})?\s*(?(open)\))\.?"
)
_IN_TEXT = re.compile(
    rf"(?:(?<![\w)])(?P<sign>[{_MINUS}+])\s?(?:{_CURRENCY})?|(?<![\w.,]))(?P<number>{_PLAIN})\s?(?P<percent>[%٪])?"
)


def plain_number(text: str) -> str | None:
    """Return a text that is one number in plain digits: `-1234.50`, with `%` if it has one.

    A comma before three digits groups thousands, `12,50` has a decimal comma, `(12)` is negative;
    a currency or a unit is left out. None if the text is anything else.
    """
    match = _WHOLE.fullmatch(unicodedata.normalize("NFC", text).strip())
    if match is None:
        return None
    signs = (match["sign"] or "") + (match["inner"] or "")
    negative = (signs.strip("+") != "") != (match["open"] is not None)
    return _written(match["number"], negative, match["percent"])


def last_number(text: str) -> str | None:
    """Return the last number in a text as `plain_number` does: before it stands the working."""
    whole = plain_number(text)
    if whole is not None:
        return whole
    matches = list(_IN_TEXT.finditer(text))
    if not matches:
        return None
    last = matches[-1]
    return _written(last["number"], (last["sign"] or "+") != "+", last["percent"])


def equal_numbers(first: str, second: str, tolerance: float) -> bool:
    """Whether two plain numbers differ by at most a tolerance, absolutely or relatively.

    `5%` equals both 5 and 0.05: people leave the sign out in either way.
    """
    percent = first.endswith("%"), second.endswith("%")
    a, b = (float(number.rstrip("%")) for number in (first, second))
    readings = [(a, b)]
    if percent == (True, False):
        readings.append((a / 100, b))
    elif percent == (False, True):
        readings.append((a, b / 100))
    return any(_close(x, y, tolerance) for x, y in readings)


def _close(a: float, b: float, tolerance: float) -> bool:
    # math.isclose, but for two infinities, which are numbers too large to be compared
    return a == b or abs(a - b) <= max(tolerance * max(abs(a), abs(b)), tolerance)


def _written(number: str, negative: bool, percent: str | None) -> str:
    mantissa, exponent = re.fullmatch(r"(.*?)([eE][-+]?\d+)?", number).groups()  # type: ignore[union-attr]
    digits = _without_groups(mantissa)
    ascii_digits = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in digits)
    return f"{'-' if negative else ''}{ascii_digits}{exponent or ''}{'%' if percent else ''}"


def _without_groups(number: str) -> str:
    """Return digits with a decimal point at most."""
    number = re.sub("['’_ \u00a0\u202f]", "", number)
    commas, points = number.count(","), number.count(".")
    if commas and points:
        decimal = max(",.", key=number.rfind)
    elif commas > 1 or points > 1:
        decimal = ""  # what stands more than once groups thousands
    elif commas and re.fullmatch(r"[1-9]\d{0,2},\d{3}", number):
        decimal = ""
    else:
        decimal = "," if commas else "."
    whole, _, decimals = number.rpartition(decimal) if decimal and decimal in number else (number, "", "")
    whole = re.sub("[,.]", "", whole) or "0"
    return f"{whole}.{decimals}" if decimals else whole
