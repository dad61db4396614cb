"""What calls cost: the user's own prices, else those of the genai-prices data."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from urllib.parse import urlparse

from pydantic import ValidationError

from tunepoint.errors import ModelError
from tunepoint.files.amounts import Dollars, TokenPrice
from tunepoint.files.currencies import RATES_KEY, in_dollars
from tunepoint.files.text import text_of
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Request
from tunepoint.models.providers import PROVIDERS, parse_model_name

PROJECT_PRICES_FILE = "prices.toml"
"""Beside task.toml: prices that rule over what is known."""


def project_prices(folder: Path) -> dict[str, TokenPrice]:
    """The prices of a project, by the names of models; none if it has no such file.

    Raises:
        ModelError: the file is not TOML, or a price is none; names the file and the model.

    """
    path = folder / PROJECT_PRICES_FILE
    if not path.exists():
        return {}
    try:
        content = tomllib.loads(text_of(path, ModelError))
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{path}: not valid TOML: {error}") from None
    try:
        content = in_dollars(content, money=lambda path: True)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    found = {}
    for name, entry in content.items():
        if name == RATES_KEY:
            continue
        try:
            found[name] = TokenPrice.model_validate(entry)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            raise ModelError(
                f"{path}: [{name!r}] {key}: {fault['msg'][:1].lower()}{fault['msg'][1:]}; a price is "
                "input, output and perhaps cached_input, in dollars per million tokens"
            ) from None
    return found


class TunedPrice(TokenPrice):
    """Dollars per million tokens of a fine-tuned model."""

    training: Dollars | None = None
    """Dollars per million tokens trained on, epochs counted; None where nobody told us."""
    checked: date
    source: str


TOKENS_PER_MESSAGE = 8
"""Tokens that a chat template puts around each message, at most."""


@dataclass(frozen=True)
class CallPrice:
    """The price of a model's calls, and where it comes from."""

    model: str
    dollars: Callable[[Usage], float]
    source: str
    checked: date | None = None
    """The day the price was looked up; None where it is declared, or nobody wrote the day down."""

    def age_days(self, today: date) -> int | None:
        """Days since the price was looked up."""
        return None if self.checked is None else (today - self.checked).days

    def rates(self) -> dict[str, float]:
        """Dollars per million tokens, `input`, `cached_input`, `output`, as a short call pays them.

        A long context may have a dearer price of its own, so a thousand tokens are asked for.
        """
        some = 1_000
        asked = {"input": (some, 0, 0), "cached_input": (some, some, 0), "output": (0, 0, some)}
        return {
            name: round(self.dollars(Usage(self.model, given, cached, output)) * 1e6 / some, 9)
            for name, (given, cached, output) in asked.items()
        }

    def max_dollars(self, request: Request) -> float:
        """Dollars that a call cannot exceed: a token is at least one byte."""
        size = sum(len(turn.content.encode()) + TOKENS_PER_MESSAGE for turn in request.messages)
        return self.dollars(Usage(self.model, input_tokens=size, output_tokens=request.max_output_tokens))


def call_price(name: str, own: TokenPrice | None = None) -> CallPrice | None:
    """The price of a model's calls; None for one that runs on the user's own machine.

    Args:
        name: of the model, as in `openai/gpt-5-mini`.
        own: the user's price, which rules where it is given.

    A hosted model whose price nobody knows has `UNKNOWN_PRICE` for a source: `run` and `quote` refuse it.

    """
    if own is not None:
        return CallPrice(name, lambda usage: _dollars(own, usage), "declared in the task")
    found = _published(name)
    if found is not None:
        return found
    tuned = tuned_price(name)
    if tuned is not None:
        return CallPrice(name, lambda usage: _dollars(tuned, usage), tuned.source, tuned.checked)
    if is_local(name):
        return None
    return CallPrice(name, lambda usage: 0.0, UNKNOWN_PRICE)


UNKNOWN_PRICE = "no price is known: its calls count as free; give [[models]] price = { input, output }"


def tuned_price(name: str) -> TunedPrice | None:
    """The price of a fine-tuned model, as in `openai/ft:gpt-4.1-mini-2025-04-14:org::id`."""
    return tuned_prices().get(":".join(name.split(":")[:2]))


def tuned_prices() -> dict[str, TunedPrice]:
    """The prices of fine-tuned models that come along, by provider and base."""
    text = resources.files("tunepoint.models").joinpath("prices.toml").read_text(encoding="utf-8")
    return {name: TunedPrice.model_validate(entry) for name, entry in tomllib.loads(text)["tuned"].items()}


def _dollars(price: TokenPrice, usage: Usage) -> float:
    return price.dollars(usage.input_tokens, usage.cached_tokens, usage.output_tokens)


def _published(name: str) -> CallPrice | None:
    """The price in the genai-prices data, if the provider and the model are in it."""
    provider = name.partition("/")[0]
    if name.startswith("http") or provider not in PROVIDERS:
        return None
    import genai_prices

    model = parse_model_name(name).model

    def dollars(usage: Usage) -> float:
        counted = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
        )
        return float(genai_prices.calc_price(counted, model, provider_id=provider).total_price)

    try:
        dollars(Usage(name, 1, 0, 1))
    except LookupError:
        return None
    return CallPrice(name, dollars, f"genai-prices {genai_prices.__version__}")


def project_price(name: str, own: Mapping[str, TokenPrice]) -> TokenPrice | None:
    """A project's own price of a model; a tuned one may stand under its base, as in `openai/ft:BASE`."""
    return own.get(name) or own.get(":".join(name.split(":")[:2]))


def missing_price(name: str, where: Path = Path(PROJECT_PRICES_FILE), own: Iterable[str] = ()) -> str:
    """What to do about a model whose price nobody knows; `own` are those that the project has."""
    near = difflib.get_close_matches(name, [*own, *tuned_prices()], n=1, cutoff=0.7)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return (
        f"no price of {name!r} is known{hint}. Put it into "
        f'{where} as ["{name}"] input = DOLLARS, output = DOLLARS (per million tokens), '
        "or say [[models]] price = { input = DOLLARS, output = DOLLARS }"
    )


def is_local(name: str) -> bool:
    """Whether a model answers on this machine."""
    if not name.startswith("http"):
        return name.startswith(("ollama/", "local:"))
    return urlparse(name).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def unpriced(prices: Sequence[CallPrice | None]) -> list[str]:
    """Models of which nobody knows the price."""
    return [price.model for price in prices if price is not None and price.source == UNKNOWN_PRICE]
