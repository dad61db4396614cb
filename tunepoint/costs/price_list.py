"""Known prices in words: the rates that come with Tunepoint, those of a project, those of a model."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tunepoint.costs.prices import dated_prices
from tunepoint.errors import ModelError
from tunepoint.models.prices import (
    PROJECT_PRICES_FILE,
    UNKNOWN_PRICE,
    CallPrice,
    call_price,
    missing_price,
    project_price,
    project_prices,
    tuned_prices,
)


def known_prices(folder: Path) -> list[str]:
    """Return a line for each rate, each tuned model, and each price of the project's own file."""
    today = datetime.now(UTC).date()
    rates = [
        f"{price.name}: {price.value} ({price.unit}); checked {price.checked}, "
        f"{price.age_days(today)} days ago; {price.source}"
        for price in dated_prices().values()
    ]
    tuned = [
        f"{name}: ${price.input:g} input, ${price.output:g} output per million tokens; checked "
        f"{price.checked}, {(today - price.checked).days} days ago; {price.source}"
        for name, price in tuned_prices().items()
    ]
    own_file = folder / PROJECT_PRICES_FILE
    own = [
        f"{name}: ${price.input:g} input, ${price.output:g} output per million tokens; {own_file}"
        for name, price in project_prices(folder).items()
    ]
    other_models = "For other models of OpenAI, Anthropic, Google and more, run `tunepoint prices MODEL`."
    return [*rates, *tuned, *own, other_models]


def price_of(name: str, folder: Path) -> str:
    """Return the price of one model in words.

    Raises:
        ModelError: the price is unknown; the message says where to declare it. It never counts as 0.

    """
    own = project_prices(folder)
    price: CallPrice | None = call_price(name, project_price(name, own))
    if price is None:
        return f"{name}: runs on your own machine; costs.core_hour_usd prices its seconds"
    if price.source == UNKNOWN_PRICE:
        raise ModelError(missing_price(name, folder / PROJECT_PRICES_FILE, own))
    rates = price.rates()
    source = f"{folder / PROJECT_PRICES_FILE}" if name in own else price.source
    checked = f"; checked {price.checked}" if price.checked else ""
    return (
        f"{name}: ${rates['input']:g} input, ${rates['cached_input']:g} cached input, "
        f"${rates['output']:g} output per million tokens; {source}{checked}"
    )
