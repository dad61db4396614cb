"""Dated prices, with their sources."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib import resources

OLD_DAYS = 90
"""Age of a price from which the report warns."""


def money(dollars: float) -> Decimal:
    """Return dollars as an exact decimal with millionths: the form in which money is written out."""
    # repr gives the shortest decimal that reads back as the float, so 0.1 becomes 0.100000 exactly.
    return Decimal(repr(float(dollars))).quantize(Decimal("0.000001"))


@dataclass(frozen=True)
class DatedPrice:
    """A price with its source and the day on which it was checked."""

    name: str
    value: Decimal
    unit: str
    checked: date
    source: str

    def age_days(self, today: date) -> int:
        """Return the days since the price was checked."""
        return (today - self.checked).days


def dated_prices() -> dict[str, DatedPrice]:
    """Return the rates that come with Tunepoint, by name."""
    text = resources.files("tunepoint.costs").joinpath("prices.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text, parse_float=Decimal)
    return {name: DatedPrice(name, **entry) for name, entry in entries.items()}
