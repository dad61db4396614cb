"""Every arm on the same examples: fit, ask, score, record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from tunepoint.arms.contract import Arm, FittedArm, KeepsTrainingRuns, Resamplable
from tunepoint.data.examples import Example
from tunepoint.data.prepare import Prepared
from tunepoint.models.budget import Budget
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.opening import ChatModels
from tunepoint.models.prices import CallPrice
from tunepoint.study.cluster.machines import RunsElsewhere, StudyMachines
from tunepoint.study.directory import Study
from tunepoint.study.progress import Progress, ShowProgress, silent
from tunepoint.study.records import Fit, MeasuredArm
from tunepoint.study.trial_writer import Answered, ArmRun, TrialWriter
from tunepoint.task.task import Task
from tunepoint.trials.grading import BatchScorer, Grading, grade_replies, task_scorer
from tunepoint.trials.judge import Judge
from tunepoint.trials.trial import TrialLog

CURVE_RUNS = Path("arms", "curve")
"""In a study: runs of the learning curve that other machines have trained, until they have answered."""
LOCAL_BATCH_SIZE = 64
"""Inputs that an arm of this machine gets at once, and answers after which trials are recorded."""
REMOTE_BATCH_SIZE = 2_000
"""Inputs that a chat model gets at once; it sends as many calls as its server allows."""


class Runner:
    """Fits arms and records their trials; what is recorded already is not done again."""

    def __init__(
        self,
        study: Study,
        task: Task,
        prepared: Prepared,
        budget: Budget,
        models: ChatModels,
        progress: ShowProgress = silent,
        scorer: BatchScorer | None = None,
        fresh: str | None = None,
        machines: StudyMachines | None = None,
    ) -> None:
        """Prepare to measure; nothing is fitted or asked yet.

        Args:
            scorer: grades the answers; the task's own if None, which imports the module of a user's scorer.
            fresh: name of an arm whose missing answers are asked for although they are recorded.
            machines: of a cluster, which train and run models; this process does if None.

        """
        self.study = study
        self.task = task
        self.prepared = prepared
        self.budget = budget
        self.models = models
        if models.batches is not None:
            models.batches.announce = self.announce
        self.progress = progress
        self._fresh = fresh
        self._ahead = None if machines is None else machines.training(task)
        self.runs_elsewhere = None if machines is None else RunsElsewhere(machines)
        """Answers with the weights of training runs on other machines; None where this process does."""
        self.done_seconds = 0.0
        self.planned_seconds = 0.0
        self._scorer = scorer or (task_scorer(task) if models.judge is None else Judge(models.judge, task))
        self._writer = TrialWriter(study, prepared.split.clusters, self._scorer, models.prices)

    @property
    def prices(self) -> dict[str, CallPrice]:
        """Name of a model -> its price, for those whose calls cost money."""
        return self.models.prices

    def usd(self, usage: Usage) -> float:
        """Dollars of a call; 0 where calls are free."""
        price = self.prices.get(usage.model)
        return 0.0 if price is None else price.dollars(usage)

    def grade(self, replies: Sequence[Reply], examples: Sequence[Example]) -> list[Grading]:
        """Grade each reply; one that could not be read is worth 0, and no judge sees it."""
        return grade_replies(self._scorer, replies, examples)

    def plan(self, seconds: float) -> None:
        """Announce work, in estimated seconds, for the progress and the spending cap."""
        self.planned_seconds += seconds

    def announce(self, what: str) -> None:
        """Show what begins now, and what the calls have cost so far."""
        budget = self.budget
        self.progress(Progress(what, self.done_seconds, self.planned_seconds, budget.calls, budget.calls_usd))

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
        runs = self._runs(arm, log, name, seeds)
        missing = [_unanswered(run, log, examples) for run in runs]
        share = expected / max(1, sum(map(bool, missing)))
        steps = []
        for run, unanswered in zip(runs, missing, strict=True):
            if unanswered:
                answering = arm.decoded(run.decode_number) if isinstance(arm, Resamplable) else arm
                steps.append(
                    partial(self._measure_run, answering, run, log, unanswered, train, share, one_by_one)
                )
        with self.models.renewing() if name == self._fresh else nullcontext():
            self.models.gather(steps)  # what they ask by batch goes out together
        self.done_seconds += share * len(steps)
        if not any(missing):
            self.done_seconds += expected
        self.announce(name)

    def _runs(self, arm: Arm, log: TrialLog, name: str, seeds: int | None = None) -> list[ArmRun]:
        return [
            ArmRun(name, number, arm.seeds > 1, decode)
            for number in range(seeds or arm.seeds)
            for decode in range(self._decodes(arm, log))
        ]

    def _decodes(self, arm: Arm, log: TrialLog) -> int:
        """How often each seed answers an item: once on the validation set, which only selects."""
        return arm.decodes if isinstance(arm, Resamplable) and log is self.study.test else 1

    def _measure_run(
        self,
        arm: Arm,
        run: ArmRun,
        log: TrialLog,
        missing: Sequence[Example],
        train: Sequence[Example],
        share: float,
        one_by_one: bool,
    ) -> None:
        """Record the missing trials of one run, within the budget."""
        if not arm.remote:
            self.budget.check(share, self.planned_seconds - self.done_seconds)
        self.announce(run.arm)
        started = time.perf_counter()
        advance = 0.0 if arm.remote else share
        self._spend(advance)  # a killed step counts as what it was expected to take
        fitted = self.fit(arm, train, run.seed_number, run.arm)
        size = REMOTE_BATCH_SIZE if arm.remote else 1 if one_by_one else LOCAL_BATCH_SIZE
        try:
            self._answer(fitted, run, log, missing, size)
        finally:
            elapsed = time.perf_counter() - started
            self.done_seconds += 0.0 if share else elapsed  # calls were planned by the quote
            self._spend(0.0 if arm.remote else elapsed - advance)

    def _look_at_cap(self) -> None:
        """Write down what machines have cost meanwhile, and stop where the cap is reached."""
        self.charge_rent()
        self.budget.check(0.0, self.planned_seconds - self.done_seconds)

    @contextmanager
    def charging_rent(self) -> Iterator[None]:
        """Write down what machines have cost, however the block ends."""
        try:
            yield
        finally:
            self.charge_rent()

    def charge_rent(self) -> None:
        """Add what the machines of a cluster have cost since the last time, where there are any."""
        self._spend(0.0)

    def _spend(self, seconds: float) -> None:
        self.budget.charge_seconds(seconds)
        calls = {"calls_usd": round(self.budget.calls_usd, 9)} if self.budget.calls_usd else {}
        self.study.update(spent_usd=round(self.budget.spent_usd, 9), **calls)

    def train_ahead(self, arm: Arm, log: TrialLog, train: Sequence[Example], name: str | None = None) -> None:
        """Start the training runs whose answers to dev are missing, and do not wait for them.

        Only runs that another machine can train; `name` is as in `measure`.
        """
        if self._ahead is None or not isinstance(arm, KeepsTrainingRuns):
            return
        for run in self._runs(arm, log, name or arm.name):
            if _unanswered(run, log, self.prepared.split.dev):
                self._ahead.start(arm, train, self._training_seed(run.seed_number))

    def keeping_runs(self, arm: Arm) -> Arm:
        """Return an arm whose runs other machines can train, where there are any: it keeps them as files."""
        if self._ahead is None or not isinstance(arm, KeepsTrainingRuns) or arm.keep is not None:
            return arm
        return arm.keeping(self.study.folder / CURVE_RUNS)

    def drop_kept_runs(self) -> None:
        """Delete the runs of `keeping_runs`, whose answers are recorded."""
        shutil.rmtree(self.study.folder / CURVE_RUNS, ignore_errors=True)

    def _training_seed(self, number: int) -> tuple[int, int]:
        # the numbers of training seeds are older than the named streams and share their range;
        # others would train other models than those of the studies on disk
        return self.study.manifest.seed, number

    def fit(self, arm: Arm, train: Sequence[Example], number: int, name: str) -> FittedArm:
        """Fit an arm with one of its training seeds, and record what that took."""
        seed = self._training_seed(number)
        if self._ahead is not None and isinstance(arm, KeepsTrainingRuns):
            self._ahead.deliver(arm, train, seed, look=self._look_at_cap)
        fitted = arm.fit(self.task, train, np.random.default_rng(list(seed)))
        arms = self.study.manifest.arms
        measured = arms.get(name, MeasuredArm(kind=arm.kind, family=arm.family, label=arm.label, fits={}))
        if str(number) not in measured.fits:
            self.budget.spent_usd += fitted.built.usd
            fit = Fit(
                examples=fitted.built.examples,
                seconds=round(fitted.built.seconds, 3),
                usd=fitted.built.usd + fitted.built.teacher_usd,
                warnings=list(fitted.built.warnings),
            )
            measured = measured.model_copy(update={"fits": {**measured.fits, str(number): fit}})
            self.study.update(arms={**arms, name: measured})
        return fitted

    def _answer(
        self, fitted: FittedArm, run: ArmRun, log: TrialLog, examples: Sequence[Example], size: int
    ) -> None:
        """Ask a fitted arm in batches of a size, and record its answers on the way."""
        if size == 1:
            fitted.answer([examples[0].input])  # the first answer of a process is slower
        unwritten: list[Answered] = []
        for start in range(0, len(examples), size):
            if self._ahead is not None:
                self._look_at_cap()
            batch = examples[start : start + size]
            started = time.perf_counter()
            replies = fitted.answer([example.input for example in batch])
            seconds = time.perf_counter() - started if size == 1 else None
            unwritten += [
                Answered(example, reply, seconds) for example, reply in zip(batch, replies, strict=True)
            ]
            if len(unwritten) >= LOCAL_BATCH_SIZE:
                self._writer.write(run, log, unwritten)
                unwritten = []
                self.announce(run.arm)
        self._writer.write(run, log, unwritten)


def _unanswered(run: ArmRun, log: TrialLog, examples: Sequence[Example]) -> list[Example]:
    """The examples that a run has not answered."""
    return [e for e in examples if (run.arm, e.id, run.seed, run.decode) not in log.done]
