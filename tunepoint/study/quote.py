"""What a study will ask of chat models, before it asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tunepoint.arms.catalog import CandidateArms
from tunepoint.data.split import Split
from tunepoint.models.batch.terms import BATCH_WAIT, batch_discount, batch_terms
from tunepoint.models.chat import Usage
from tunepoint.models.prices import CallPrice
from tunepoint.stats.ranges import Range
from tunepoint.study.expected_calls import (
    ExpectedCalls,
    batch_waits,
    calls_of,
    families,
    study_calls,
)
from tunepoint.task.task import Task

SECONDS_PER_CALL = (0.4, 1.5, 5.0)
"""Low, likely and high."""


@dataclass(frozen=True)
class BatchQuote:
    """What a study costs whose calls go by batch."""

    usd: Range
    waits: int
    """Batches, or groups of them, that are waited for one after the other."""


@dataclass(frozen=True)
class Quote:
    """Calls, tokens, dollars and minutes of a study; recorded calls cost nothing again."""

    calls: Range
    input_tokens: Range
    output_tokens: Range
    usd: Range
    minutes: Range
    """Without the waits for batches."""
    by_batch: BatchQuote | None = None
    """What changes, or would change, with the calls that can go by batch; None where none can."""
    goes_by_batch: bool = False
    """Whether they will."""

    @property
    def planned_usd(self) -> Range:
        """Dollars, calls by batch at their price."""
        return self.by_batch.usd if self.by_batch is not None and self.goes_by_batch else self.usd

    def line(self) -> str:
        """Return the quote in one line, likely and at most."""
        return (
            f"about {self.calls.likely:,.0f} calls (at most {self.calls.high:,.0f}), "
            f"{self.input_tokens.likely:,.0f} input and {self.output_tokens.likely:,.0f} output tokens, "
            f"{_usd(self.planned_usd)}, "
            f"{self.minutes.likely:,.0f} minutes ({self.minutes.low:,.0f} to {self.minutes.high:,.0f})"
            f"{self._batch_words()}"
        )

    def _batch_words(self) -> str:
        if self.by_batch is None:
            return ""
        waits = f"about {self.by_batch.waits} waits for a batch ({BATCH_WAIT}, each)"
        if self.goes_by_batch:
            return f" and {waits}; asked at once {_usd(self.usd)}"
        return f"; with --batch {_usd(self.by_batch.usd)} and {waits}"

    def cap_words(self, max_usd: float) -> str | None:
        """Return what a spending cap means for the study; None where it does not matter."""
        usd = self.planned_usd
        if max_usd >= usd.high:
            return None
        if max_usd >= usd.low:
            return (
                f"The cap of ${max_usd:,.2f} may be reached before the verdict: the study then stops, keeps "
                "every answer, and goes on from there with a higher --max-usd."
            )
        bought = self.calls.likely * max_usd / usd.likely
        return (
            f"The cap of ${max_usd:,.2f} is less than the study costs at best (${usd.low:,.2f}): it "
            f"buys about {bought:,.0f} of {self.calls.likely:,.0f} calls, and no verdict. Raise --max-usd, "
            "or name fewer [[models]] or styles."
        )


def quote(
    task: Task,
    candidates: CandidateArms,
    split: Split,
    prices: Mapping[str, CallPrice],
    concurrency: int,
    timed: Mapping[str, float] = MappingProxyType({}),
) -> Quote | None:
    """Return what the calls of a study will take; None if it calls no chat model.

    Args:
        task: of the study.
        candidates: its arms.
        split: its examples.
        prices: of the models whose calls cost money, by name.
        concurrency: calls at the same time.
        timed: family -> seconds of an answer, where some were timed.

    """
    read = task.replies()  # from files, at once
    calls = [part for part in study_calls(task, candidates, split, timed) if part.model not in read]
    if not calls:
        return None
    quoted = _total(calls, prices, concurrency)
    models = (*task.models, *([task.score.judge] if task.score.judge else []))
    asked = {model.name for model in models if model.batch} or {
        model.name for model in models if batch_terms(model.name) is not None
    }
    if not asked & {part.model for part in calls}:
        return quoted
    goes_by_batch = any(model.batch for model in models)
    batched = BatchQuote(_dollars(calls, prices, asked), batch_waits(task, candidates, split))
    return replace(quoted, by_batch=batched, goes_by_batch=goes_by_batch)


def _usd(usd: Range) -> str:
    return f"${usd.likely:,.2f} (${usd.low:,.2f} to ${usd.high:,.2f})"


def _dollars(
    calls: Sequence[ExpectedCalls], prices: Mapping[str, CallPrice], by_batch: Collection[str] = ()
) -> Range:
    """Dollars of calls, those of some models by batch as far as a study sends them so."""

    def dollars(part: ExpectedCalls, i: int) -> float:
        price = prices.get(part.model)
        if price is None:
            return 0.0
        usage = Usage(part.model, round(part.input_tokens[i]), 0, round(part.output_tokens[i]))
        at_once = price.dollars(usage)
        share = part.share_by_batch(i) if part.model in by_batch else 0.0
        return part.calls[i] * (share * price.in_batch(at_once) + (1 - share) * at_once)

    return Range(*(sum(dollars(part, i) for part in calls) for i in range(3)))


def _total(calls: Sequence[ExpectedCalls], prices: Mapping[str, CallPrice], concurrency: int) -> Quote:
    def total(of: Callable[[ExpectedCalls, int], float]) -> Range:
        return Range(*(sum(of(part, i) for part in calls) for i in range(3)))

    return Quote(
        total(lambda part, i: part.calls[i]),
        total(lambda part, i: part.calls[i] * part.input_tokens[i]),
        total(lambda part, i: part.calls[i] * part.output_tokens[i]),
        _dollars(calls, prices),
        total(lambda part, i: _seconds(part, i, concurrency) / 60),
    )


def _seconds(part: ExpectedCalls, i: int, concurrency: int) -> float:
    if part.answer_seconds is not None:
        return part.answers[i] * part.answer_seconds[i]
    return part.calls[i] * SECONDS_PER_CALL[i] / concurrency


def monthly_serving(
    task: Task, candidates: CandidateArms, split: Split, prices: Mapping[str, CallPrice]
) -> list[tuple[str, Range]]:
    """Return dollars a month at the task's traffic, for each way of prompting a chat model."""
    volume = task.traffic.queries_per_month
    serving = []
    for arms in families(candidates):
        calls = calls_of(task, arms[0], split, (1.0, 1.0, 1.0))
        factor = 1 - task.traffic.batch_share * batch_discount(calls.model)
        usd = _total([calls], prices, 1).usd
        volumes = (volume.low, volume.likely, volume.high)
        dollars = zip((usd.low, usd.likely, usd.high), volumes, strict=True)
        month = Range(*(factor * price * queries for price, queries in dollars))
        serving.append((arms[0].label, month))
    return serving
