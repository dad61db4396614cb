"""What is known of prices, in words: rates of ours, of a project, of a model."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tunepoint.costs.prices import dated_prices
from tunepoint.errors import ModelError
from tunepoint.models.prices import (
    OWN_PRICES,
    UNKNOWN,
    CallPrice,
    call_price,
    no_price,
    own_price,
    own_prices,
    tuned_prices,
)


def known_prices(folder: Path) -> list[str]:
    """Rates that come along, tuned models, and those of a project's own file, a line each."""
    today = datetime.now(UTC).date()
    lines = [
        f"{price.name}: {price.value} ({price.unit}); checked {price.checked}, "
        f"{price.age_days(today)} days ago; {price.source}"
        for price in dated_prices().values()
    ]
    lines += [
        f"{name}: ${price.input:g} input, ${price.output:g} output per million tokens; checked "
        f"{price.checked}, {(today - price.checked).days} days ago; {price.source}"
        for name, price in tuned_prices().items()
    ]
    lines += [
        f"{name}: ${price.input:g} input, ${price.output:g} output per million tokens; {folder / OWN_PRICES}"
        for name, price in own_prices(folder).items()
    ]
    return [*lines, "Other models of OpenAI, Anthropic, Google and more: `tunepoint prices MODEL`."]


def price_of(name: str, folder: Path) -> str:
    """The price of one model.

    Raises:
        ModelError: nobody knows it; says where to put it. It never counts as 0.

    """
    own = own_prices(folder)
    price: CallPrice | None = call_price(name, own_price(name, own))
    if price is None:
        return f"{name}: runs on your own machine; its seconds are priced by costs.core_hour_usd"
    if price.source == UNKNOWN:
        raise ModelError(no_price(name, folder / OWN_PRICES, own))
    rates = price.rates()
    source = f"{folder / OWN_PRICES}" if name in own else price.source
    checked = f"; checked {price.checked}" if price.checked else ""
    return (
        f"{name}: ${rates['input']:g} input, ${rates['cached_input']:g} cached input, "
        f"${rates['output']:g} output per million tokens; {source}{checked}"
    )
