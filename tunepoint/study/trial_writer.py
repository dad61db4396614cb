"""Replies of an arm, graded and recorded as trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunepoint.data.examples import Example
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.prices import CallPrice
from tunepoint.study.directory import Study
from tunepoint.trials.grading import BatchScorer, Grading, grade_replies
from tunepoint.trials.trial import Trial, TrialLog

MAX_REASON = 2_000
"""Characters of a judge's explanation that are kept."""


@dataclass(frozen=True)
class ArmRun:
    """The answers of one training run of an arm, for the first time or once more."""

    arm: str
    """Name under which its trials are recorded."""
    seed_number: int
    trained: bool
    """Whether it is one of several training runs."""
    decode_number: int
    """How often its model answered the same items before."""

    @property
    def seed(self) -> str | None:
        """The seed that its trials carry; None for an arm that is the same with every seed."""
        return str(self.seed_number) if self.trained else None

    @property
    def decode(self) -> str | None:
        """The decode that its trials carry; None for the first, as for an arm that answers once."""
        return str(self.decode_number) if self.decode_number else None


@dataclass(frozen=True)
class Answered:
    """An example and the reply to it."""

    example: Example
    reply: Reply
    seconds: float | None
    """Duration of the request; None where a batch was sent."""


class TrialWriter:
    """Grades replies and appends them to a log of the study."""

    def __init__(
        self,
        study: Study,
        clusters: Mapping[str, str],
        scorer: BatchScorer,
        prices: Mapping[str, CallPrice],
    ) -> None:
        self.study = study
        self.clusters = clusters
        self.scorer = scorer
        self.prices = prices

    def write(self, run: ArmRun, log: TrialLog, answers: Sequence[Answered]) -> None:
        """Record the answers; one without a grade is no trial, but an entry of the manifest."""
        gradings = grade_replies(
            self.scorer, [answer.reply for answer in answers], [answer.example for answer in answers]
        )
        trials = []
        before = self.study.manifest.ungraded.get(run.arm, {})
        ungraded = dict(before)
        for answer, grading in zip(answers, gradings, strict=True):
            if grading.score is None:
                ungraded[answer.example.id] = grading.why
            else:
                ungraded.pop(answer.example.id, None)
                trials.append(self._trial(run, answer, grading, grading.score))
        # trials first: a process that is killed here asks no answer again, and loses only the reasons
        log.append(trials)
        self._note_models(run.arm, (answer.reply.usage.model for answer in answers))
        if ungraded != before:
            self.study.update(ungraded={**self.study.manifest.ungraded, run.arm: ungraded})

    def _note_models(self, name: str, models: Iterable[str]) -> None:
        """Record which models answer for an arm, and at what rates, for `whatif` to replace."""
        arm = self.study.manifest.arms[name]
        news = sorted(set(models) - arm.models.keys())
        if news:
            prices = {model: self.prices.get(model) for model in news}
            rates = {model: price.rates() if price else None for model, price in prices.items()}
            arm = arm.model_copy(update={"models": {**arm.models, **rates}})
            self.study.update(arms={**self.study.manifest.arms, name: arm})

    def _usd(self, usage: Usage) -> float | None:
        price = self.prices.get(usage.model)
        return None if price is None else round(price.dollars(usage), 12)

    def _trial(self, run: ArmRun, answer: Answered, grading: Grading, score: float) -> Trial:
        example, reply = answer.example, answer.reply
        # a model's own clock leaves out what this process waits for its turn
        seconds = answer.seconds if reply.usage.seconds is None else reply.usage.seconds
        return Trial(
            arm=run.arm,
            item=example.id,
            score=score,
            cluster=self.clusters.get(example.id),
            seed=run.seed,
            decode=run.decode,
            slice=example.slice,
            format_ok=reply.format_ok,
            input_tokens=reply.usage.input_tokens or None,
            cached_tokens=reply.usage.cached_tokens or None,
            written_tokens=reply.usage.written_tokens or None,
            cacheable_tokens=reply.usage.cacheable_tokens,
            output_tokens=reply.usage.output_tokens or None,
            seconds=_rounded(seconds),
            core_seconds=_rounded(reply.usage.core_seconds),
            cost_usd=self._usd(reply.usage),
            repaired=reply.repaired or None,
            answer=reply.answer if reply.answer is not None else reply.text,
            confidence=None if reply.confidence is None else round(min(1.0, reply.confidence), 6),
            error=reply.error,
            grades=grading.grades or None,
            why=grading.why[:MAX_REASON] or None,
        )


def _rounded(seconds: float | None) -> float | None:
    """Seconds to the microsecond, as they are recorded."""
    return None if seconds is None else round(seconds, 6)
