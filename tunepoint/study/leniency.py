"""The verdict under a score that forgives how answers are written, beside the strict one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.data.examples import Example
from tunepoint.decision.guards import capped
from tunepoint.decision.numbers import percent
from tunepoint.decision.verdict import Decision, decide
from tunepoint.errors import EvidenceError
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.task import Task
from tunepoint.trials.conventions import LENIENT
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import Trial

MIN_GAIN = 0.01
"""Gain in the mean score of an arm from which the lenient scores are told."""
FORGIVEN = "case, articles, punctuation, numbers in words and the form of dates"


@dataclass(frozen=True)
class Leniency:
    """What the study says if only the content of an answer counts."""

    scores: Mapping[str, float]
    """Name of an arm -> its mean lenient score."""
    verdict: str
    winner: str
    form_shown: tuple[float, float] | None = None
    """Scores on the validation set of the best prompt that shows how answers are written, and of the best
    that shows neither this nor examples; None where they were not tried."""

    def content(self) -> dict[str, Any]:
        """Return the `lenient` of decision.json."""
        scores = {arm: round(score, 6) for arm, score in self.scores.items()}
        return {"scores": scores, "verdict": self.verdict, "winner": self.winner}

    def caveats(self, decision: Decision) -> list[str]:
        """Return a caveat if the choice rests on how answers are written."""
        title = decision.titles[self.winner]
        if self.winner == decision.winner or self.winner in decision.equals:
            return []
        gain = self.scores[self.winner] - decision.finalist(self.winner).score.estimate
        return [
            f"The choice rests on how answers are written: without {FORGIVEN}, {title} gains "
            f"{100 * gain:.1f} points and is the best. What was tuned has learned your conventions along "
            f"with the task. {self._advice()}"
        ]

    def _advice(self) -> str:
        """What a prompt that shows the form of answers does, or that it was not tried."""
        if self.form_shown is None:
            return (
                "A line in the prompt about the form of an answer, with three right answers as examples, "
                "gets most of that: try it as one of [[prompts]]"
            )
        shown, plain = self.form_shown
        return (
            f"A prompt that shows three right answers for their form scored {percent(shown)} on the "
            f"validation set, against {percent(plain)} without them"
        )


def leniency(
    trials: Sequence[Trial],
    test: Sequence[Example],
    arms: Sequence[str],
    costs: Sequence[ArmCost],
    task: Task,
    seed: int,
    *,
    pooled: bool = False,
) -> Leniency | None:
    """Decide by a lenient score; None where the metric has none, or it changes next to nothing.

    Args:
        trials: that the decision counts on.
        test: the examples that they answer.
        arms: names of the finalists.
        costs: of the finalists, in the same order.
        task: its metric, limits and rates.
        seed: of the study.
        pooled: whether labels outside the test set count for the verdict, which only the metric scores.

    """
    score = LENIENT.get(task.score.metric)
    if score is None or task.answer.kind == "label":  # a label is read as one of the labels
        return None
    examples = {example.id: example for example in test}
    lenient = [_rescored(trial, score(trial.answer or "", examples[trial.item])) for trial in trials]
    table, strict = tabulate(lenient, arms), tabulate(trials, arms)
    scores = {arm.arm: float(arm.scores.mean()) for arm in table.arms}
    gains = [scores[arm.arm] - float(arm.scores.mean()) for arm in strict.arms]
    if max(gains) < MIN_GAIN:
        return None
    try:
        # the same draws as the decision itself, so that only the scores can make a difference
        decision = decide(table, costs, task, stream(seed, Stream.DECISION))
        if pooled and decision.winner == decide(strict, costs, task, stream(seed, Stream.DECISION)).winner:
            return None  # the pool has turned the verdict, not how answers are written
    except EvidenceError:
        return None
    return Leniency(scores, decision.verdict, decision.winner)


def without_conventions(decision: Decision, lenient: Leniency | None) -> Decision:
    """Return the decision, not confident where it rests on how answers are written."""
    doubts = [] if lenient is None else lenient.caveats(decision)
    caveats = (*doubts, *decision.caveats)
    return replace(decision, strength=capped(decision.strength, doubts), caveats=caveats)


def _rescored(trial: Trial, score: float) -> Trial:
    """A trial with the better of two scores, if its answer could be read."""
    return trial.model_copy(update={"score": max(trial.score, score)}) if trial.format_ok else trial
