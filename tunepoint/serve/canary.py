"""A challenger gets a share of the users, and more while nothing speaks against it.

Champion and challenger are compared by confidence sequences that hold however often one looks
(`stats/sequential.py`): a challenger that is no worse is rolled back with a probability of 5% at most
over its whole life, on all measures together. Users are what is dealt out, so each has one voice on each
measure: the first one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from tunepoint.stats.intervals import Interval
from tunepoint.stats.sequential import betting_interval

Measure = Literal["answered", "readable", "feedback", "fast", "cheap"]
MEASURES: tuple[Measure, ...] = ("answered", "readable", "feedback", "fast", "cheap")
"""Shares and means in 0..1, more is better: replies that came, answers that could be read, what people
said, replies within the limit, and what is left of the most that an answer may cost."""
ERROR = 0.05
Move = Literal["raise", "promote", "roll back"]


@dataclass(frozen=True)
class Canary:
    """What is being tried."""

    arm: str
    steps: tuple[float, ...] = (0.05, 0.2, 0.5)
    """Shares of the users, in the order in which they are taken."""
    step: int = 0
    requests: int = 200
    """Answers of the challenger before the next step."""
    margin: float = 0.02
    """How much worse it may be on any measure."""
    since: float = 0.0
    """Seconds since 1970 when it began."""
    at_step: int = 0
    """Answers of the challenger when this step began."""
    seconds: float | None = None
    """A reply is fast within so many; not looked at if None."""
    usd: float | None = None
    """The most that an answer may cost; not looked at if None."""
    ask: bool = False
    """Whether a person says yes to the promotion."""

    @property
    def share(self) -> float:
        """Of the users that it answers now."""
        return self.steps[self.step]

    def raised(self, answered: int) -> Canary:
        """At its next step."""
        return replace(self, step=self.step + 1, at_step=answered)

    def document(self) -> dict[str, Any]:
        """As the store keeps it."""
        return {**asdict(self), "steps": list(self.steps)}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Canary:
        """As the store kept it."""
        return cls(**{**content, "steps": tuple(content["steps"])})


@dataclass
class Outcomes:
    """What became of the answers of one arm since the canary began."""

    values: dict[Measure, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: int = 0
    """Replies, failed ones among them."""
    _heard: set[tuple[Measure, str]] = field(default_factory=set)

    def _add(self, measure: Measure, value: float, user: str | None) -> None:
        if user is not None:
            if (measure, user) in self._heard:
                return
            self._heard.add((measure, user))
        self.values[measure].append(value)

    def note(
        self,
        canary: Canary,
        *,
        user: str | None = None,
        answered: bool,
        readable: bool | None = None,
        seconds: float | None = None,
        usd: float | None = None,
    ) -> None:
        """Add one reply."""
        self.answers += 1
        self._add("answered", float(answered), user)
        if not answered:
            return
        if readable is not None:
            self._add("readable", float(readable), user)
        if canary.seconds is not None and seconds is not None:
            self._add("fast", float(seconds <= canary.seconds), user)
        if canary.usd is not None and usd is not None:
            self._add("cheap", max(0.0, 1 - usd / canary.usd), user)

    def said(self, score: float, user: str | None = None) -> None:
        """Add what somebody said of an answer."""
        self._add("feedback", score, user)

    def copy(self) -> Outcomes:
        """As they are now."""
        copied: dict[Measure, list[float]] = defaultdict(list)
        copied.update({name: list(values) for name, values in self.values.items()})
        return Outcomes(copied, self.answers)


@dataclass(frozen=True)
class CanaryDecision:
    """What to do next, and why."""

    move: Move | None
    why: str
    intervals: Mapping[str, tuple[Interval, Interval]]
    """Measure -> champion's and challenger's mean, all of them true at once with 95%."""


def decide_canary(canary: Canary, champion: Outcomes, challenger: Outcomes) -> CanaryDecision:
    """Look at what came in; may be asked as often as one likes."""
    intervals = _intervals(champion, challenger)
    for name, (ours, theirs) in intervals.items():
        if theirs.high < ours.low - canary.margin:
            why = (
                f"{name}: {canary.arm} {theirs.estimate:.3f} ({theirs.low:.3f} to {theirs.high:.3f}) against "
                f"{ours.estimate:.3f} ({ours.low:.3f} to {ours.high:.3f})"
            )
            return CanaryDecision("roll back", why, intervals)
    answered = challenger.answers
    enough = answered - canary.at_step >= canary.requests
    if not enough:
        left = canary.requests - (answered - canary.at_step)
        return CanaryDecision(
            None, f"{left} more answers of {canary.arm} at {canary.share:.0%} of the users", intervals
        )
    if canary.step + 1 < len(canary.steps):
        return CanaryDecision("raise", f"{canary.requests} answers and nothing against it", intervals)
    open_ = [name for name, (ours, theirs) in intervals.items() if theirs.low < ours.high - canary.margin]
    if "feedback" in open_ or ("feedback" not in intervals and open_):
        return CanaryDecision(None, f"not shown to be no worse yet: {', '.join(open_)}", intervals)
    return CanaryDecision(
        "promote", f"no worse by more than {canary.margin:g} on what was said of it", intervals
    )


def _intervals(champion: Outcomes, challenger: Outcomes) -> dict[str, tuple[Interval, Interval]]:
    """Of every measure that both arms have, at a level at which all of them hold together."""
    both = [name for name in MEASURES if champion.values[name] and challenger.values[name]]
    level = 1 - ERROR / (2 * len(MEASURES))

    def interval(values: Sequence[float]) -> Interval:
        return betting_interval(np.array(values), level=level, low=0.0, high=1.0)

    return {name: (interval(champion.values[name]), interval(challenger.values[name])) for name in both}
