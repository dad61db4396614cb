"""Dated prices, with their sources."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib import resources

OLD_DAYS = 90


def money(dollars: float) -> Decimal:
    """Dollars as an exact decimal with millionths: the form in which money leaves us."""
    return Decimal(repr(float(dollars))).quantize(Decimal("0.000001"))


@dataclass(frozen=True)
class DatedPrice:
    """A price with the day it was checked and where."""

    name: str
    value: Decimal
    unit: str
    checked: date
    source: str

    def age_days(self, today: date) -> int:
        """Days since the price was checked."""
        return (today - self.checked).days


def dated_prices() -> dict[str, DatedPrice]:
    """The rates that Tunepoint brings along."""
    text = resources.files("tunepoint.costs").joinpath("prices.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text, parse_float=Decimal)
    return {name: DatedPrice(name, **entry) for name, entry in entries.items()}
