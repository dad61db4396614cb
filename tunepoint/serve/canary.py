"""Decides on a canary: a challenger answers a share of the users, and a larger one as long as it holds up.

Champion and challenger are compared by confidence sequences, which stay valid however often one looks
(`stats/sequential.py`): over its whole life, and on all measures together, a challenger that is no worse
is rolled back with a probability of at most 5%. Users are assigned, not requests, so each user counts
once on each measure, with the first value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tunepoint.stats.intervals import Interval

Measure = Literal["answered", "readable", "feedback", "fast", "cheap"]
MEASURES: tuple[Measure, ...] = ("answered", "readable", "feedback", "fast", "cheap")
"""Shares and means in 0..1, higher is better: requests that were answered, answers that could be parsed,
feedback, answers within the time limit, and the unspent part of an answer's cost limit."""
FALSE_ROLLBACK_RATE = 0.05
Move = Literal["raise", "promote", "roll back"]


@dataclass(frozen=True)
class Canary:
    """A challenger, and the terms on which it is tried."""

    arm: str
    steps: tuple[float, ...] = (0.05, 0.2, 0.5)
    """Shares of the users, rising."""
    step: int = 0
    requests: int = 200
    """Answers of the challenger before the next step."""
    margin: float = 0.02
    """How much worse it may be on any measure, 0 to 1."""
    since: float = 0.0
    """Seconds since 1970 when it began."""
    at_step: int = 0
    """Answers of the challenger when this step began."""
    seconds: float | None = None
    """Time limit of an answer; speed is not compared if None."""
    usd: float | None = None
    """Cost limit of an answer; costs are not compared if None."""
    ask: bool = False
    """Whether a person has to approve the promotion."""

    @property
    def share(self) -> float:
        """Share of the users that it answers now."""
        return self.steps[self.step]

    def raised(self, answered: int) -> Canary:
        """Return the canary at its next step."""
        return replace(self, step=self.step + 1, at_step=answered)

    def document(self) -> dict[str, Any]:
        """The canary as the store keeps it."""
        return {**asdict(self), "steps": list(self.steps)}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Canary:
        """Read a canary that the store has kept."""
        return cls(**{**content, "steps": tuple(content["steps"])})


def measured(
    canary: Canary,
    *,
    answered: bool,
    readable: bool | None = None,
    seconds: float | None = None,
    usd: float | None = None,
) -> Iterator[tuple[Measure, float]]:
    """Yield what one answer counts on each measure.

    Args:
        canary: its limits.
        answered: whether an answer came; without one nothing else is counted.
        readable: whether it could be parsed; None where nobody tried.
        seconds: how long it took.
        usd: what it cost.

    """
    yield "answered", float(answered)
    if not answered:
        return
    if readable is not None:
        yield "readable", float(readable)
    if canary.seconds is not None and seconds is not None:
        yield "fast", float(seconds <= canary.seconds)
    if canary.usd is not None and usd is not None:
        yield "cheap", max(0.0, 1 - usd / canary.usd)


@dataclass
class Outcomes:
    """Outcomes of one arm's answers since the canary began."""

    values: dict[Measure, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: int = 0
    """All of them, failed ones included."""
    _counted: set[tuple[Measure, str]] = field(default_factory=set)
    """Measures on which a user has been counted."""

    def _add(self, measure: Measure, value: float, user: str | None) -> None:
        if user is not None:
            if (measure, user) in self._counted:
                return
            self._counted.add((measure, user))
        self.values[measure].append(value)

    def record(
        self,
        canary: Canary,
        *,
        user: str | None = None,
        answered: bool,
        readable: bool | None = None,
        seconds: float | None = None,
        usd: float | None = None,
    ) -> None:
        """Add one answer, as `measured` counts it; a user counts once on each measure, None every time."""
        self.answers += 1
        for measure, value in measured(
            canary, answered=answered, readable=readable, seconds=seconds, usd=usd
        ):
            self._add(measure, value, user)

    def record_feedback(self, score: float, user: str | None = None) -> None:
        """Add the score, 0 to 1, of somebody's feedback."""
        self._add("feedback", score, user)


@dataclass(frozen=True)
class CanaryDecision:
    """The next move of a canary, and its reason."""

    move: Move | None
    why: str
    intervals: Mapping[str, tuple[Interval, Interval]]
    """Measure -> means of champion and challenger; all of them cover at once with 95% confidence."""
    unclear: tuple[str, ...] = ()
    """Measures that a promotion waits for, at the last step and with answers enough; empty otherwise."""


def decide_canary(canary: Canary, champion: Outcomes, challenger: Outcomes) -> CanaryDecision:
    """Decide on the outcomes so far; may be called as often as one likes.

    A challenger is rolled back once it is worse than the champion by more than the margin on any
    measure. At its last step it is promoted once it is no worse by more than the margin: on feedback where
    there is any, since that is what people think of the answers; otherwise on every measure.
    """
    intervals = _intervals(champion, challenger)
    for measure, (champion_mean, challenger_mean) in intervals.items():
        if challenger_mean.high < champion_mean.low - canary.margin:
            reason = (
                f"{measure}: {canary.arm} {_in_words(challenger_mean)} against {_in_words(champion_mean)}"
            )
            return CanaryDecision("roll back", reason, intervals)
    missing = canary.requests - (challenger.answers - canary.at_step)
    if missing > 0:
        reason = f"{missing} more answers of {canary.arm} needed at {canary.share:.0%} of the users"
        return CanaryDecision(None, reason, intervals)
    if canary.step + 1 < len(canary.steps):
        return CanaryDecision("raise", f"{canary.requests} answers and nothing against it", intervals)
    unclear = [
        measure
        for measure, (champion_mean, challenger_mean) in intervals.items()
        if challenger_mean.low < champion_mean.high - canary.margin
    ]
    if "feedback" in unclear or ("feedback" not in intervals and unclear):
        reason = f"could still be worse on: {', '.join(unclear)}"
        return CanaryDecision(None, reason, intervals, tuple(unclear))
    basis = "feedback" if "feedback" in intervals else "every measure"
    return CanaryDecision("promote", f"no worse by more than {canary.margin:g} on {basis}", intervals)


def _in_words(interval: Interval) -> str:
    return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _intervals(champion: Outcomes, challenger: Outcomes) -> dict[str, tuple[Interval, Interval]]:
    """Means of every measure that both arms have, at a level at which all intervals cover together."""
    shared = [measure for measure in MEASURES if champion.values[measure] and challenger.values[measure]]
    # Here, so that a gateway that only relays does not load numpy before its first canary.
    import numpy as np

    from tunepoint.stats.sequential import betting_interval

    # Bonferroni: two arms on each measure, counted whether or not a measure is there.
    level = 1 - FALSE_ROLLBACK_RATE / (2 * len(MEASURES))

    def interval(values: Sequence[float]) -> Interval:
        return betting_interval(np.array(values), level=level, low=0.0, high=1.0)

    return {
        measure: (interval(champion.values[measure]), interval(challenger.values[measure]))
        for measure in shared
    }
