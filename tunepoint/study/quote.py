"""What a study will ask of chat models, before it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tunepoint.arms.catalog import CandidateArms
from tunepoint.data.split import Split
from tunepoint.models.chat import Usage
from tunepoint.models.prices import CallPrice
from tunepoint.stats.ranges import Range
from tunepoint.study.expected_calls import ExpectedCalls, calls_of, families, study_calls
from tunepoint.task.task import Task

SECONDS_PER_CALL = (0.4, 1.5, 5.0)
"""Low, likely and high."""


@dataclass(frozen=True)
class Quote:
    """Calls, tokens, dollars and minutes of a study; recorded calls cost nothing again."""

    calls: Range
    input_tokens: Range
    output_tokens: Range
    usd: Range
    minutes: Range

    def line(self) -> str:
        """Return the quote in one line, likely and at most."""
        return (
            f"about {self.calls.likely:,.0f} calls (at most {self.calls.high:,.0f}), "
            f"{self.input_tokens.likely:,.0f} input and {self.output_tokens.likely:,.0f} output tokens, "
            f"${self.usd.likely:,.2f} (${self.usd.low:,.2f} to ${self.usd.high:,.2f}), "
            f"{self.minutes.likely:,.0f} minutes ({self.minutes.low:,.0f} to {self.minutes.high:,.0f})"
        )

    def cap_words(self, max_usd: float) -> str | None:
        """Return what a spending cap means for the study; None where it does not matter."""
        if max_usd >= self.usd.high:
            return None
        if max_usd >= self.usd.low:
            return (
                f"The cap of ${max_usd:,.2f} may be reached before the verdict: the study then stops, keeps "
                "every answer, and goes on from there with a higher --max-usd."
            )
        bought = self.calls.likely * max_usd / self.usd.likely
        return (
            f"The cap of ${max_usd:,.2f} is less than the study costs at best (${self.usd.low:,.2f}): it "
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
    return _total(calls, prices, concurrency) if calls else None


def _total(calls: Sequence[ExpectedCalls], prices: Mapping[str, CallPrice], concurrency: int) -> Quote:
    def total(of: Callable[[ExpectedCalls, int], float]) -> Range:
        return Range(*(sum(of(part, i) for part in calls) for i in range(3)))

    def dollars(part: ExpectedCalls, i: int) -> float:
        price = prices.get(part.model)
        usage = Usage(part.model, round(part.input_tokens[i]), 0, round(part.output_tokens[i]))
        return 0.0 if price is None else part.calls[i] * price.dollars(usage)

    return Quote(
        total(lambda part, i: part.calls[i]),
        total(lambda part, i: part.calls[i] * part.input_tokens[i]),
        total(lambda part, i: part.calls[i] * part.output_tokens[i]),
        total(dollars),
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
        usd = _total([calls_of(task, arms[0], split, (1.0, 1.0, 1.0))], prices, 1).usd
        month = Range(usd.low * volume.low, usd.likely * volume.likely, usd.high * volume.high)
        serving.append((arms[0].label, month))
    return serving
