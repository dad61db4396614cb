"""Amounts in other currencies than US dollars, converted at the rates that their file declares."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_MONEY = re.compile(
    r"\s*(?P<number>-?(?:\d+(?:_\d+)*)?(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?P<code>[A-Z]{3})\s*", re.ASCII
)
RATES_KEY = "currencies"
"""The table of a file that holds the rates: US dollars for one unit, by the currency's code."""


def is_money(path: tuple[str, ...]) -> bool:
    """Whether a key of task.toml or arms.toml holds money: `usd` in its name, or a `price` around it."""
    return "usd" in path[-1].split("_") or "price" in path[:-1]


def in_dollars(
    content: Mapping[str, Any], money: Callable[[tuple[str, ...]], bool] = is_money
) -> dict[str, Any]:
    """Return the content of a file with every amount such as `"80 EUR"` in US dollars.

    Args:
        content: may hold rates of other currencies under `currencies`, as in `EUR = 1.08`.
        money: whether a key holds money; it takes the key and the keys around it, outermost first.

    Raises:
        ValueError: an amount in a currency without a rate, or a rate that is not a positive number.

    """
    rates = _rates(content.get(RATES_KEY, {}))

    def convert(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(inner, (*path, str(key))) for key, inner in value.items()}
        if isinstance(value, list):
            return [convert(inner, path) for inner in value]
        if not (isinstance(value, str) and path and money(path)):
            return value
        amount = _MONEY.fullmatch(value)
        # Every part of the number is optional in the pattern, so that "EUR" alone matches as well.
        if amount is None or not any(character.isdigit() for character in amount["number"]):
            return value
        code = amount["code"]
        if code not in rates:
            raise ValueError(
                f"{'.'.join(path)}: {value.strip()!r}: the file has no rate for {code}; add "
                f"{code} = US_DOLLARS_PER_{code} under [{RATES_KEY}], or give the amount in US dollars"
            )
        return float(amount["number"].replace("_", "")) * rates[code]

    return {key: value if key == RATES_KEY else convert(value, (key,)) for key, value in content.items()}


def _rates(table: Any) -> dict[str, float]:
    """Return US dollars for one unit of each currency, the dollar's included."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{RATES_KEY}: expected a table, as in [{RATES_KEY}] EUR = 1.08; got {table!r}")
    rates = {"USD": 1.0}
    for code, rate in table.items():
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not re.fullmatch("[A-Z]{3}", code) or not number or not 0 < rate < 1e9:
            raise ValueError(
                f"{RATES_KEY}.{code}: {rate!r}: expected three capital letters and, above 0, the US dollars "
                "for one unit"
            )
        if code == "USD" and rate != 1:
            raise ValueError(f"{RATES_KEY}.USD: must be 1, got {rate:g}; leave it out")
        rates[code] = float(rate)
    return rates
