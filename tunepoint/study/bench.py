"""Every arm on the same examples: fit, ask, score, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.arms.contract import Arm, FittedArm, Resamplable
from tunepoint.data.examples import Example
from tunepoint.data.prepare import Prepared
from tunepoint.models.budget import Budget
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.opening import ChatModels
from tunepoint.models.prices import CallPrice
from tunepoint.stats.streams import Stream
from tunepoint.study.directory import Study
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task
from tunepoint.trials.judge import Judge
from tunepoint.trials.scorers import BatchScorer, Grading, grade_replies, task_scorer
from tunepoint.trials.trial import Trial, TrialLog

TIMED = 50
"""Test items that are asked one at a time, so that their seconds are those of a request."""


def shuffled_dev(runner: Runner) -> list[Example]:
    """The dev items in an order that only the seed decides, items of a cluster side by side."""
    return shuffled(runner, runner.prepared.split.dev, Stream.DEV_ORDER)


def shuffled(runner: Runner, examples: Sequence[Example], purpose: Stream) -> list[Example]:
    """Examples in an order that only the seed and a number decide, items of a cluster side by side."""
    clusters = runner.prepared.split.clusters
    rng = runner.study.rng(purpose)
    shuffled = [examples[i] for i in rng.permutation(len(examples)).tolist()]
    places: dict[str, int] = {}
    for example in shuffled:
        places.setdefault(clusters[example.id], len(places))
    return sorted(shuffled, key=lambda example: places[clusters[example.id]])


BATCH = 64
MANY = 2_000
"""Inputs that a chat model gets at once; it sends as many calls as its server allows."""
Progress = Callable[[str, float, float], None]
"""(what, seconds of work done, seconds of work planned); the planned seconds are estimates."""


def silent(what: str, done: float, planned: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class _Run:
    """One training run of an arm, answering for one time."""

    arm: str
    """As what its trials are recorded."""
    number: int
    trained: bool
    """Whether it is one of several training runs."""
    times: int
    """Answers that were given before."""

    @property
    def seed(self) -> str | None:
        """What its trials carry."""
        return str(self.number) if self.trained else None

    @property
    def decode(self) -> str | None:
        """What its trials carry; the first answer is any other arm's only one."""
        return str(self.times) if self.times else None


_Answered = tuple[Example, Reply, float | None]
"""What was asked, what came, and its seconds where they were taken one by one."""


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


class Runner:
    """Fits arms and records their trials; what is recorded already is not done again."""

    def __init__(
        self, study: Study, task: Task, prepared: Prepared, budget: Budget, progress: Progress
    ) -> None:
        self.study = study
        self.task = task
        self.prepared = prepared
        self.meter = budget
        self.progress = progress
        self.done_seconds = 0.0
        self.planned_seconds = 0.0
        self.prices: dict[str, CallPrice] = {}
        """By the name of the model, those whose calls cost money."""
        self.scoring: BatchScorer | None = None
        if task.score.metric != JUDGE:
            self.scoring = task_scorer(task)

    def use(self, models: ChatModels) -> None:
        """Take the prices of the open models, and the judge if answers are graded."""
        self.prices = models.prices
        if models.judge is not None:
            self.scoring = Judge(models.judge, self.task)

    def grade(self, replies: Sequence[Reply], examples: Sequence[Example]) -> list[Grading]:
        """A grading of each reply; one that could not be read is worth 0, and no judge sees it."""
        assert self.scoring is not None, "a judge is opened with the models"
        return grade_replies(self.scoring, replies, examples)

    def plan(self, seconds: float) -> None:
        """Announce work, in estimated seconds, for the progress and the spending cap."""
        self.planned_seconds += seconds

    def measure(
        self,
        arm: Arm,
        log: TrialLog,
        examples: Sequence[Example],
        train: Sequence[Example],
        *,
        name: str | None = None,
        one_by_one: bool = False,
        seeds: int | None = None,
        expected: float = 0.0,
    ) -> None:
        """Record every missing trial of an arm on these examples, for all its seeds.

        Args:
            name: as what the trials are recorded; the arm's own name if None.
            one_by_one: ask one input at a time and note `seconds`, what a request takes.
            seeds: only the first so many training seeds; all of them if None.
            expected: seconds that were planned for what is missing; runs that lack some share it equally.

        """
        name = name or arm.name
        runs = [
            _Run(name, number, arm.seeds > 1, decode)
            for number in range(seeds or arm.seeds)
            for decode in range(self._decodes(arm, log))
        ]
        missing = [
            [e for e in examples if (name, e.id, run.seed, run.decode) not in log.done] for run in runs
        ]
        share = expected / max(1, sum(map(bool, missing)))
        for run, left in zip(runs, missing, strict=True):
            if left:
                asked = arm.decoded(run.times) if isinstance(arm, Resamplable) else arm
                self._measure(asked, run, log, left, train, share, one_by_one)
                self.done_seconds += share
        if not any(missing):
            self.done_seconds += expected
        self.progress(name, self.done_seconds, self.planned_seconds)

    def _decodes(self, arm: Arm, log: TrialLog) -> int:
        """How often an item is answered by each seed: once on dev, which only chooses."""
        return arm.decodes if isinstance(arm, Resamplable) and log is self.study.test else 1

    def _measure(
        self,
        arm: Arm,
        run: _Run,
        log: TrialLog,
        missing: Sequence[Example],
        train: Sequence[Example],
        share: float,
        one_by_one: bool,
    ) -> None:
        """Record the missing trials of one run, within the meter."""
        if not arm.remote:
            self.meter.allow(share, self.planned_seconds - self.done_seconds)
        self.progress(run.arm, self.done_seconds, self.planned_seconds)
        started = time.perf_counter()
        here = 0.0 if arm.remote else share
        self._spend(here)  # a killed step counts as what it was expected to take
        fitted = self.fit(arm, train, run.number, run.arm)
        size = MANY if arm.remote else 1 if one_by_one else BATCH
        try:
            self._record(fitted, run, log, missing, size)
        finally:
            self._spend(0.0 if arm.remote else time.perf_counter() - started - here)

    def _spend(self, seconds: float) -> None:
        self.meter.charge(seconds)
        self.study.manifest["spent_usd"] = round(self.meter.spent_usd, 9)
        self.study.save()

    def fit(self, arm: Arm, train: Sequence[Example], number: int, name: str) -> FittedArm:
        """Fit an arm with its training seed, and note what that took."""
        rng = np.random.default_rng([int(self.study.manifest["seed"]), number])
        fitted = arm.fit(self.task, train, rng)
        facts = self.study.manifest["arms"].setdefault(
            name, {"kind": arm.kind, "family": arm.family, "fits": {}}
        )
        if str(number) not in facts["fits"]:
            self.meter.spent_usd += fitted.built.usd
            facts["fits"][str(number)] = {
                "examples": fitted.built.examples,
                "seconds": round(fitted.built.seconds, 3),
                "usd": fitted.built.usd + fitted.built.teacher_usd,
                "warnings": list(fitted.built.warnings),
            }
        self.study.save()
        return fitted

    def _record(
        self,
        fitted: FittedArm,
        run: _Run,
        log: TrialLog,
        examples: Sequence[Example],
        size: int,
    ) -> None:
        if size == 1:
            fitted.answer([examples[0].input])  # the first answer of a process is slower
        waiting: list[_Answered] = []
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            started = time.perf_counter()
            replies = fitted.answer([example.input for example in batch])
            seconds = time.perf_counter() - started if size == 1 else None
            waiting += [(example, reply, seconds) for example, reply in zip(batch, replies, strict=True)]
            if len(waiting) >= BATCH:
                self._write(run, log, waiting)
                waiting = []
        self._write(run, log, waiting)

    def _write(self, run: _Run, log: TrialLog, answered: Sequence[_Answered]) -> None:
        """Score answers and record them; one that the judge gave no grade is no trial, and is said."""
        gradings = self.grade([reply for _, reply, _ in answered], [example for example, _, _ in answered])
        trials = []
        before = self.study.manifest.get("ungraded", {}).get(run.arm, {})
        ungraded = dict(before)
        for (example, reply, seconds), grading in zip(answered, gradings, strict=True):
            if grading.score is None:
                ungraded[example.id] = grading.why
            else:
                ungraded.pop(example.id, None)
                trials.append(self._trial(run, example, reply, seconds, grading))
        log.append(trials)
        self._note_models(run.arm, (reply.usage.model for _, reply, _ in answered))
        if ungraded != before:
            self.study.manifest.setdefault("ungraded", {})[run.arm] = ungraded
            self.study.save()

    def _note_models(self, arm: str, models: Iterable[str]) -> None:
        """Write down who answers for an arm and at what rates: others can be put in their place later."""
        known = self.study.manifest["arms"][arm].setdefault("models", {})
        fresh = sorted(set(models) - known.keys())
        if fresh:
            prices = {name: self.prices.get(name) for name in fresh}
            known.update({name: price.rates() if price else None for name, price in prices.items()})
            self.study.save()

    def _dollars(self, usage: Usage) -> float | None:
        price = self.prices.get(usage.model)
        return None if price is None else round(price.dollars(usage), 12)

    def _trial(
        self,
        run: _Run,
        example: Example,
        reply: Reply,
        seconds: float | None,
        grading: Grading,
    ) -> Trial:
        return Trial(
            arm=run.arm,
            item=example.id,
            score=grading.score,
            cluster=self.prepared.split.clusters.get(example.id),
            seed=run.seed,
            decode=run.decode,
            slice=example.slice,
            format_ok=reply.format_ok,
            input_tokens=reply.usage.input_tokens or None,
            cached_tokens=reply.usage.cached_tokens or None,
            output_tokens=reply.usage.output_tokens or None,
            seconds=_rounded(seconds if reply.usage.seconds is None else reply.usage.seconds),
            cost_usd=self._dollars(reply.usage),
            repaired=reply.repaired or None,
            answer=reply.answer if reply.answer is not None else reply.text,
            confidence=None if reply.confidence is None else round(min(1.0, reply.confidence), 6),
            error=reply.error,
            grades=grading.grades or None,
        )
