"""Numbers as people write them: signs, separators, percent, currencies and units."""

from __future__ import annotations

import re
import unicodedata

_GROUP = "[,.'’_ \u00a0\u202f]"
_DIGITS = rf"(?:\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)|\d{{1,2}}(?:,\d\d)+,\d{{3}}(?!\d)|\d+)"
_PLAIN = rf"(?:{_DIGITS}(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?"
_MINUS = "-‐‑‒–−﹣－"
_HIGH_OR_BROKEN = "¹²³¼-¾⁰-⁹₀-₉⅐-⅞"
"""Exponents, indices and fractions: 10² is no 10, and 5½ no 5."""
_CODES = (
    "AED|ARS|AUD|BDT|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|HKD|HUF|IDR|ILS|INR|ISK|JPY|KES|KRW|KZT"
    "|LKR|MAD|MXN|MYR|NGN|NOK|NZD|PEN|PHP|PKR|PLN|QAR|RMB|RON|RSD|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|UYU|VND|ZAR"
)
"""The currencies of ISO 4217 that are traded or held most; other capitals may be part of a name: LH400."""
_CURRENCY = rf"(?:(?:R|US|A|C|NZ|HK|S)?[$€£¥₹₩₽₺₴₫฿¢]|(?:{_CODES})|kr\.?)"
_UNIT = r"[°µ]?[^\W\d_]{1,12}[²³]?(?:/[^\W\d_]{1,8}[²³]?)?"
_SCALES = {
    **dict.fromkeys(("k", "K", "thousand"), 3),
    **dict.fromkeys(("M", "m", "mn", "mio", "million", "millions"), 6),
    **dict.fromkeys(("B", "b", "bn", "billion", "billions"), 9),
    **dict.fromkeys(("tn", "trillion", "trillions"), 12),
}
"""Word -> power of ten. Single letters may be units, as in 300 K and 5 m: after a currency they are none."""
_WORDS = r"\s?(?i:mn|mio|bn|tn|thousand|millions?|billions?|trillions?)"
_SCALE = rf"(?P<scale>[kKM]|{_WORDS}|(?(currency)\s?[kKmMbB]|(?!)))(?![^\W_])"
_WHOLE = re.compile(
    rf"(?P<open>\(\s?)?(?:(?P<sign>[{_MINUS}+])\s?)?(?:(?P<currency>{_CURRENCY})\s?)?(?P<inner>[{_MINUS}+])?"
    rf"(?P<number>{_PLAIN})(?:{_SCALE})?\s?(?:(?P<percent>[%٪])|{_CURRENCY}|(?P<unit>{_UNIT}))?(?(open)\s?\))\.?"
)
_IN_TEXT = re.compile(
    rf"(?:(?<![\w)])(?P<sign>[{_MINUS}+])\s?|(?<![\w.,]))(?P<currency>{_CURRENCY}\s?)?"
    rf"(?:(?P<number>{_PLAIN})(?![{_MINUS}.,/]?\d|\s?[{_HIGH_OR_BROKEN}])(?:{_SCALE})?\s?(?P<percent>[%٪])?"
    rf"|\d+(?:[{_MINUS}.,/]\d+)*\s?[{_HIGH_OR_BROKEN}]?)"  # a date, a version, a list, a range, a power
)
_OTHER_POINTS = str.maketrans("٫٬", ".,")


def plain_number(text: str) -> str | None:
    """Return a text that is one number in plain digits: `-1234.50`, with `%` if it has one.

    A comma before three digits groups thousands, `12,50` has a decimal comma, `(12)` is negative,
    `1.5 million` is `1.5e6`; a currency or a unit is left out. None if the text is anything else.
    """
    match = _WHOLE.fullmatch(_normalized(text).strip())
    if match is None or not _is_unit(match["unit"] or ""):
        return None
    signs = (match["sign"] or "") + (match["inner"] or "")
    return _written(match, negative=signs.strip("+") != "" or match["open"] is not None)


def last_number(text: str) -> str | None:
    """Return the last number in a text as `plain_number` does: before it stands the working.

    None if there is none, or if what stands last is a row of digits and points that is no number: a
    date, a version, a list.
    """
    whole = plain_number(text)
    if whole is not None:
        return whole
    matches = list(_IN_TEXT.finditer(_normalized(text)))
    if not matches or matches[-1]["number"] is None:
        return None
    return _written(matches[-1], negative=(matches[-1]["sign"] or "+") != "+")


def _normalized(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_OTHER_POINTS)


def _is_unit(text: str) -> bool:
    """Whether it is made of letters: `²` counts as a word's character, and so does `½`."""
    return not text.startswith(("²", "³")) and all(c.isalpha() or c in "°/²³" for c in text)


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


def _written(match: re.Match[str], *, negative: bool) -> str | None:
    """Write what was matched in plain digits; None if it has an exponent and a scale."""
    mantissa, exponent = re.fullmatch(r"(.*?)([eE][-+]?\d+)?", match["number"]).groups()  # type: ignore[union-attr]
    if match["scale"]:
        if exponent:
            return None
        scale = match["scale"].strip()
        exponent = f"e{_SCALES.get(scale) or _SCALES[scale.casefold()]}"
    digits = _without_groups(mantissa)
    ascii_digits = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in digits)
    return f"{'-' if negative else ''}{ascii_digits}{exponent or ''}{'%' if match['percent'] else ''}"


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
