"""Money in another currency than US dollars, at a rate that the file declares."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_MONEY = re.compile(
    r"\s*(?P<number>-?(?:\d+(?:_\d+)*)?(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?P<code>[A-Z]{3})\s*", re.ASCII
)
RATES_KEY = "currencies"
"""The table of rates: dollars of one unit, by the currency's code."""


def is_money(path: tuple[str, ...]) -> bool:
    """Whether a key of task.toml or arms.toml is an amount of money: `..._usd...`, or part of a `price`."""
    return "usd" in path[-1].split("_") or "price" in path[:-1]


def in_dollars(
    content: Mapping[str, Any], money: Callable[[tuple[str, ...]], bool] = is_money
) -> dict[str, Any]:
    """The content of a file with every amount like `"80 EUR"` in US dollars.

    Args:
        content: with the rates of other currencies under `currencies`, as in `EUR = 1.08`.
        money: says of a key, given with those around it, whether it is an amount.

    Raises:
        ValueError: an amount in a currency without a rate, or a rate that is none.

    """
    rates = _rates(content.get(RATES_KEY, {}))

    def convert(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(inner, (*path, str(key))) for key, inner in value.items()}
        if isinstance(value, list):
            return [convert(inner, path) for inner in value]
        found = _MONEY.fullmatch(value) if isinstance(value, str) and path and money(path) else None
        if found is None:
            return value
        if not any(character.isdigit() for character in found["number"]):
            return value
        code = found["code"]
        if code not in rates:
            raise ValueError(
                f"{'.'.join(path)}: {value.strip()!r}: no rate of {code} is declared; give [{RATES_KEY}] "
                f"{code} = DOLLARS OF ONE {code}, or the amount in US dollars"
            )
        return float(found["number"].replace("_", "")) * rates[code]

    return {key: value if key == RATES_KEY else convert(value, (key,)) for key, value in content.items()}


def _rates(given: Any) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{RATES_KEY}: a table is expected, as in [{RATES_KEY}] EUR = 1.08")
    found = {"USD": 1.0}
    for code, rate in given.items():
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not re.fullmatch("[A-Z]{3}", code) or not number or not 0 < rate < 1e9:
            raise ValueError(
                f"{RATES_KEY}.{code}: {rate!r}: a currency is three capital letters, and its rate the US dollars "
                "of one unit, above 0"
            )
        if code == "USD" and rate != 1:
            raise ValueError(f"{RATES_KEY}.USD: one US dollar is 1 US dollar, got {rate:g}")
        found[code] = float(rate)
    return found
