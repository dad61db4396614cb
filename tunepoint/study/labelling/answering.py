"""The finalists answer the inputs of a pool: quoted, under the spending cap, resumed after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from tunepoint.arms.catalog import CandidateArms, load_encoder
from tunepoint.arms.contract import Arm
from tunepoint.data.examples import Example
from tunepoint.data.prepare import prepare
from tunepoint.errors import StudyError
from tunepoint.models.payments import PAYMENTS, PaymentLog
from tunepoint.models.recording import read_calls
from tunepoint.study.chat_models import open_chat_models
from tunepoint.study.curve_drawing import measure_parts
from tunepoint.study.directory import CALLS, open_study
from tunepoint.study.labelling.inputs import (
    POOL_TRIALS,
    Added,
    PoolInputs,
    extended,
    inputs_of_file,
    read_pool,
    write_pool,
)
from tunepoint.study.labelling.order import label_order
from tunepoint.study.labelling.sampling import Brought, drawn
from tunepoint.study.manifest import Manifest
from tunepoint.study.planning import plan
from tunepoint.study.progress import ShowProgress
from tunepoint.study.runner import Runner
from tunepoint.study.selection import select
from tunepoint.study.spending import study_budget
from tunepoint.study.whatif import reopen
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task
from tunepoint.trials.grading import Grading
from tunepoint.trials.judge import GRADES_PER_ANSWER, REPEAT_ONE_IN
from tunepoint.trials.trial import TrialLog


@dataclass(frozen=True)
class PoolQuote:
    """What answering a pool costs."""

    inputs: int
    answers: int
    usd: float

    def __str__(self) -> str:
        cost = f"about ${self.usd:,.2f}" if self.usd else "no call that costs money"
        return f"The finalists answer {self.inputs:,} inputs: {self.answers:,} answers, {cost}."


Confirm = Callable[[PoolQuote], None]


@dataclass(frozen=True)
class Answering:
    """A finished study whose finalists answer a pool."""

    folder: Path
    task: Task
    manifest: Manifest
    max_usd: float | None
    confirm: Confirm | None
    progress: ShowProgress

    def answer(self, file: Path | None, traffic: Brought | None) -> Added | None:
        """Add inputs to the pool, and have every finalist answer what it has not answered.

        Args:
            file: of inputs; without it, without traffic and without a pool, those of the task.
            traffic: inputs of captured traffic, or a sample of them.

        Returns:
            What was added; None if nothing was brought.

        """
        pool, added = read_pool(self.folder), None
        brought = self._brought(file, traffic, new=not pool.asked)
        if brought.inputs or file is not None or traffic is not None:
            known = prepare(self.task, self.manifest.seed).examples
            source = str(file or self.task.folder) if traffic is None else "captured traffic"
            pool, added = extended(pool, brought, known, source)
        log = TrialLog(self.folder / POOL_TRIALS)
        answering = self._answering()
        answered = self.manifest.pool_answered == len(pool.asked) and all(map(log.of, answering))
        if pool.asked and not answered:
            self._measure(pool, log)
        elif added is not None:
            write_pool(self.folder, pool)  # what was added is familiar, and nobody answers it
        return added

    def _brought(self, file: Path | None, traffic: Brought | None, *, new: bool) -> Brought:
        """Draw among the inputs of all files together, and add those of the traffic, drawn already."""
        data = self.task.data
        assert data is not None
        parts = [] if file is None else [inputs_of_file(data, file)]
        if traffic is None and file is None and new:
            if data.pool is not None:
                parts.append(inputs_of_file(data, self.task.resolve(data.pool)))
            for path in (data.path, data.train, data.dev, data.test):
                if path is not None:
                    parts.append(inputs_of_file(data, self.task.resolve(path), unlabelled=True))
        brought = drawn(chain.from_iterable(parts))
        if traffic is None:
            return brought
        return Brought([*brought.inputs, *traffic.inputs], brought.seen + traffic.seen)

    def _answering(self) -> list[str]:
        """Names of the finalists that can answer new inputs.

        Raises:
            StudyError: there are fewer than two.

        """
        kinds = self.manifest.arms
        names = [name for name in self.manifest.finalists if kinds[name].kind != "incumbent"]
        if len(names) < 2:
            raise StudyError(
                f"{self.folder}: {len(names)} of its options can answer new inputs (what runs today is a "
                "log), and a disagreement takes two; label more test examples instead"
            )
        return names

    def _measure(self, pool: PoolInputs, log: TrialLog) -> None:
        with (
            closing(PaymentLog(self.folder / PAYMENTS)) as payments,
            self._opened(payments) as (runner, arms, candidates),
        ):
            quote = _quote(runner, arms, pool.asked, log)
            if self.confirm is not None and quote.answers:
                self.confirm(quote)
            write_pool(self.folder, pool)
            if runner.study.manifest.label_order is None:
                reopened = reopen(self.folder)
                alone = replace(reopened, table=replace(reopened.table, pool=None))
                runner.study.update(label_order=label_order(alone.decide(reopened.task, reopened.costs)))
            for arm in arms:
                runner.measure(arm, log, pool.asked, runner.prepared.split.train)
            growing = candidates.curve_arm
            if growing is not None and growing.name in self._answering() and not growing.remote:
                for _ in measure_parts(runner, growing, log, pool.asked):
                    continue
            runner.study.update(pool_answered=len(pool.asked))

    @contextmanager
    def _opened(self, payments: PaymentLog) -> Iterator[tuple[Runner, Sequence[Arm], CandidateArms]]:
        """Open the finalists that can answer: what runs today has answers of its log only."""
        task, seed = self.task, self.manifest.seed
        prepared = prepare(task, seed)
        budget = study_budget(self.manifest, task, self.max_usd, payments)
        encoder = load_encoder(task)
        with (
            open_chat_models(task, self.folder / CALLS, budget) as models,
            open_study(self.folder, task, prepared, seed) as study,
        ):
            # a judge grades the pool too: people then look first where it sees a difference
            scorer = None if task.score.metric == JUDGE else _unscored
            runner = Runner(study, task, prepared, budget, models, self.progress, scorer=scorer)
            with models.recorded_only():
                candidates = plan(runner, encoder, None).only(self.manifest.arms)
                finalists = select(runner, candidates, self.manifest.finalists).finalists
            yield runner, [arm for arm in finalists if arm.kind != "incumbent"], candidates


def _unscored(answers: Sequence[str], examples: Sequence[Example]) -> list[Grading]:
    """Score nothing: nobody knows yet what is right."""
    return [Grading(0.0)] * len(answers)


def _judging_usd(runner: Runner) -> float:
    """What grading one answer costs, by what the judge's calls have cost so far; 0 without a judge."""
    judge = runner.task.score.judge
    price = None if judge is None else runner.prices.get(judge.name)
    if judge is None or price is None:
        return 0.0
    calls = [completion.usage for _, completion, _ in read_calls(runner.study.folder / CALLS, judge.name)]
    mean = sum(map(price.paid, calls)) / len(calls) if calls else 0.0
    return mean * (GRADES_PER_ANSWER + 1 / REPEAT_ONE_IN)


def _quote(runner: Runner, arms: Sequence[Arm], pool: Sequence[Example], log: TrialLog) -> PoolQuote:
    """What the missing answers cost, by what the same options cost on the test set."""
    answers, usd = 0, 0.0
    judging = _judging_usd(runner)
    for arm in arms:
        answered = {trial.item for trial in log.of(arm.name)}
        missing = sum(example.id not in answered for example in pool) * arm.seeds
        costs = [trial.cost_usd for trial in runner.study.test.of(arm.name) if trial.cost_usd is not None]
        answers += missing
        usd += missing * (float(np.mean(costs)) if costs else 0.0) + missing * judging
    return PoolQuote(len(pool), answers, usd)
