"""What a fine-tuning job is expected to cost, before anything is uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from tunepoint.arms.hosted.providers import Hosting, TuningProvider, notices
from tunepoint.arms.hosted.rows import BYTES_PER_TOKEN, Row, bytes_of, tokens_of
from tunepoint.models.prices import TOKENS_PER_MESSAGE, TunedPrice, tuned_price
from tunepoint.stats.ranges import Range


@dataclass(frozen=True)
class HostedQuote:
    """What a job is expected to take, before anything is uploaded."""

    provider: str
    base: str
    examples: int
    epochs: int
    tokens: int
    """Estimated tokens of one pass over the rows."""
    dollars: Range | None
    """Of training, all epochs; None where no price is known."""
    price: TunedPrice | None
    """Of the tuned model's answers, and of training where it is known; None where neither is."""
    hosting: Hosting | None
    retires: date | None
    """The day the tuned model is shut down together with its base; None where none is announced."""
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        work = f"{self.examples} examples, about {self.tokens:,} tokens, {self.epochs} epochs"
        if self.dollars is None:
            cost = "no price of training is known: see the provider's price list"
        else:
            cost = f"${self.dollars.likely:.2f} (${self.dollars.low:.2f} to ${self.dollars.high:.2f})"
        return f"{self.provider}/{self.base}: {work}: {cost}"


def quote(
    rows: Sequence[Row], provider: TuningProvider, base: str, epochs: int, *, today: date | None = None
) -> HostedQuote:
    """Return what training on rows is expected to cost.

    Tokens are estimated as UTF-8 bytes / 4. The range goes from 5 bytes a token, plain English
    words, to 2, other scripts and code, with what a chat template puts around each message.
    """
    size = sum(map(bytes_of, rows))
    price = tuned_price(f"{provider.name}/ft:{base}")
    dollars = None
    if price is not None and price.training is not None:
        rate = price.training * epochs / 1e6
        template = TOKENS_PER_MESSAGE * sum(len(row["messages"]) for row in rows)
        dollars = Range(size / 5 * rate, size / BYTES_PER_TOKEN * rate, (size / 2 + template) * rate)
    retirement = provider.retirement(base)
    return HostedQuote(
        provider.name,
        base,
        len(rows),
        epochs,
        sum(map(tokens_of, rows)),
        dollars,
        price,
        provider.hosting,
        retirement.on if retirement else None,
        tuple(notices(provider, today or date.today(), base=base)),
    )
