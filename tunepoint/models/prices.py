"""Prices of calls: the user's own, else those of the genai-prices data, else of fine-tuned models."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources
from pathlib import Path
from urllib.parse import urlparse

from pydantic import ValidationError

from tunepoint.errors import ModelError
from tunepoint.files.amounts import Dollars, TokenPrice
from tunepoint.files.currencies import RATES_KEY, in_dollars
from tunepoint.files.toml import parse_toml
from tunepoint.models.batch.terms import batch_discount
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Request
from tunepoint.models.providers import HERE_PREFIXES, PROVIDERS, VERTEX_PREFIX, VLLM_PREFIX

PROJECT_PRICES_FILE = "prices.toml"
"""Beside task.toml: prices that override the known ones."""
NAMES_IN_PRICES = {"bedrock": "aws", "vertex": "google", "azure": "openai"}
"""Provider -> its name in the genai-prices data, where it is another."""
TUNED_GEMINI = "vertex/ft:"
"""Begins the name of a Gemini model that was tuned at Google Cloud."""
MIN_SIMILARITY = 0.7
"""Likeness from which a model's name counts as a misspelling of another."""
TOKENS_PER_SAMPLE_CALL = 1_000
"""Tokens of the call by which rates are read off; long contexts may have dearer rates of their own."""


def project_prices(folder: Path) -> dict[str, TokenPrice]:
    """Return the prices of a project by model; none if it has no prices.toml.

    Raises:
        ModelError: the file is not TOML, or an entry is not a price.

    """
    path = folder / PROJECT_PRICES_FILE
    if not path.exists():
        return {}
    try:
        content = in_dollars(parse_toml(path, ModelError), money=lambda path: True)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    prices = {}
    for name, entry in content.items():
        if name == RATES_KEY:
            continue
        try:
            prices[name] = TokenPrice.model_validate(entry)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            raise ModelError(
                f"{path}: [{name!r}] {key}: {fault['msg'][:1].lower()}{fault['msg'][1:]}; give "
                "input, output and, if known, cached_input in dollars per million tokens"
            ) from None
    return prices


class TunedPrice(TokenPrice):
    """Dollars per million tokens of a fine-tuned model."""

    training: Dollars | None = None
    """Dollars per million tokens trained on, each epoch counted; None if the provider does not publish it."""
    checked: date
    source: str


TOKENS_PER_MESSAGE = 8
"""Tokens that a chat template adds to each message, at most."""


@dataclass(frozen=True)
class CallPrice:
    """The price of a model's calls, and where it comes from."""

    model: str
    dollars: Callable[[Usage], float]
    """Of a call that is asked at once."""
    source: str
    checked: date | None = None
    """Day on which the price was looked up; None for a declared price, and for data without dates."""

    def age_days(self, today: date) -> int | None:
        """Return the days since the price was looked up."""
        return None if self.checked is None else (today - self.checked).days

    def rates(self) -> dict[str, float]:
        """Return the fields of `TokenPrice` in dollars per million tokens of a short call."""
        some = TOKENS_PER_SAMPLE_CALL
        calls = {
            "input": Usage(self.model, some),
            "cached_input": Usage(self.model, some, cached_tokens=some),
            "cache_write": Usage(self.model, some, written_tokens=some),
            "output": Usage(self.model, output_tokens=some),
        }
        return {name: round(self.dollars(usage) * 1e6 / some, 9) for name, usage in calls.items()}

    def in_batch(self, dollars: float) -> float:
        """Return what calls cost by batch that cost so many dollars at once."""
        return dollars * (1 - batch_discount(self.model))

    def paid(self, usage: Usage) -> float:
        """Return the dollars that were paid for a call: fewer if it went by batch."""
        dollars = self.dollars(usage)
        return self.in_batch(dollars) if usage.batched else dollars

    def max_dollars(self, request: Request) -> float:
        """Return the dollars that a call cannot exceed: a token is at least one byte."""
        size = sum(len(message.content.encode()) + TOKENS_PER_MESSAGE for message in request.messages)
        whole = Usage(self.model, input_tokens=size, output_tokens=request.max_output_tokens)
        # writing into a cache may cost more than plain input
        return max(self.dollars(whole), self.dollars(replace(whole, written_tokens=size)))


def call_price(name: str, own: TokenPrice | None = None) -> CallPrice | None:
    """Return the price of a model's calls; None for one that runs on the user's own machine.

    A hosted model of unknown price has the source `UNKNOWN_PRICE`: `run` and `quote` reject it.

    Args:
        name: of the model, as in `openai/gpt-6-luna`.
        own: the user's price, which overrides every other.

    """
    if own is not None:
        return CallPrice(name, lambda usage: _dollars(own, usage), "declared in the task")
    published = _published(priced_as(name))
    if published is not None:
        return published
    tuned = tuned_price(name)
    if tuned is not None:
        return CallPrice(name, lambda usage: _dollars(tuned, usage), tuned.source, tuned.checked)
    if is_local(name):
        return None
    return CallPrice(name, lambda usage: 0.0, UNKNOWN_PRICE)


def priced_as(name: str) -> str:
    """Return the name by which a model's calls are priced: Google bills a tuned Gemini like its base."""
    model = name.removeprefix(TUNED_GEMINI)
    return name if model == name else f"{VERTEX_PREFIX}{model.partition(':')[0]}"


UNKNOWN_PRICE = "no price is known; give [[models]] price = { input, output }"


def tuned_price(name: str) -> TunedPrice | None:
    """Return the price of a fine-tuned model, as in `openai/ft:gpt-4.1-mini-2025-04-14:org::id`."""
    return tuned_prices().get(":".join(name.split(":")[:2]))


def tuned_prices() -> dict[str, TunedPrice]:
    """Return the prices of fine-tuned models that Tunepoint brings along, by `provider/ft:BASE`."""
    text = resources.files("tunepoint.models").joinpath("prices.toml").read_text(encoding="utf-8")
    return {name: TunedPrice.model_validate(entry) for name, entry in tomllib.loads(text)["tuned"].items()}


def _dollars(price: TokenPrice, usage: Usage) -> float:
    return price.dollars(usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.written_tokens)


def _published(name: str) -> CallPrice | None:
    """Return the price in the genai-prices data, if the provider and the model are in it."""
    provider = name.partition("/")[0]
    if name.startswith("http") or provider not in PROVIDERS:
        return None
    import genai_prices

    model, provider = name.partition("/")[2], NAMES_IN_PRICES.get(provider, provider)

    def dollars(usage: Usage) -> float:
        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.written_tokens,
            output_tokens=usage.output_tokens,
        )
        return float(genai_prices.calc_price(tokens, model, provider_id=provider).total_price)

    try:
        dollars(Usage(name, 1, 0, 1))  # the data says only by an error that it lacks a model
    except LookupError:
        return None
    return CallPrice(name, dollars, f"genai-prices {genai_prices.__version__}")


def project_price(name: str, own: Mapping[str, TokenPrice]) -> TokenPrice | None:
    """Return a project's price of a model; a tuned one may be listed by its base, as in `openai/ft:BASE`."""
    return own.get(name) or own.get(":".join(name.split(":")[:2]))


def missing_price(name: str, path: Path = Path(PROJECT_PRICES_FILE), own: Iterable[str] = ()) -> str:
    """Return the message for a model of unknown price.

    Args:
        name: of the model.
        path: of the file for the project's prices.
        own: names of the models in that file.

    """
    close = difflib.get_close_matches(name, [*own, *tuned_prices()], n=1, cutoff=MIN_SIMILARITY)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return (
        f"the price of {name!r} is unknown{hint}. Add it to "
        f'{path} as ["{name}"] input = DOLLARS, output = DOLLARS (per million tokens), '
        "or give [[models]] price = { input = DOLLARS, output = DOLLARS }"
    )


def is_local(name: str) -> bool:
    """Return whether a model runs on this machine."""
    if not name.startswith("http"):
        return name.startswith(("ollama/", VLLM_PREFIX, *HERE_PREFIXES))
    return urlparse(name).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def unpriced(prices: Sequence[CallPrice | None]) -> list[str]:
    """Return the models whose price is unknown."""
    return [price.model for price in prices if price is not None and price.source == UNKNOWN_PRICE]
