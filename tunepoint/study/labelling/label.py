"""Labelling where the finalists disagree: they answer a pool, people label, the study decides again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tunepoint.arms.catalog import load_encoder
from tunepoint.arms.contract import Arm
from tunepoint.data.examples import Example, labels_of
from tunepoint.data.prepare import Prepared, prepare
from tunepoint.decision.verdict import Decision
from tunepoint.errors import DataError, StudyError, TaskError, nearest
from tunepoint.files.machine import cores
from tunepoint.models.budget import Budget
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.label_matching import exact_key
from tunepoint.models.payments import PAYMENTS, PaymentLog
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.chat_models import open_chat_models
from tunepoint.study.directory import CALLS, open_study
from tunepoint.study.finalists import study_task
from tunepoint.study.labelling.inputs import (
    POOL_TRIALS,
    Added,
    PoolInput,
    add_to_pool,
    inputs_of_file,
    read_pool,
)
from tunepoint.study.labelling.labels import (
    Agreement,
    PoolLabel,
    agreement,
    by_item,
    read_labels,
    write_labels,
)
from tunepoint.study.labelling.order import label_times, next_inputs
from tunepoint.study.labelling.pool import Pool, open_pool
from tunepoint.study.labelling.sheet import CHOICE, NONE_RIGHT, SHEET, Filled, read_sheet, write_sheet
from tunepoint.study.manifest import Manifest, read_manifest
from tunepoint.study.planning import plan
from tunepoint.study.progress import ShowProgress, silent
from tunepoint.study.run import run
from tunepoint.study.runner import Runner
from tunepoint.study.selection import select
from tunepoint.study.whatif import reopen
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task
from tunepoint.trials.grading import Grading, grade_replies, task_scorer
from tunepoint.trials.trial import UNREADABLE, TrialLog

BATCH = 25
"""Inputs on a sheet."""
SECOND_OPINIONS = 0.1
"""Share of a sheet that another person has labelled already, once people write who they are."""
RIGHT_OR_WRONG = ("label", "number")
"""Kinds of answers of which "none of these" says enough."""


@dataclass(frozen=True)
class PoolQuote:
    """What answering a pool costs."""

    inputs: int
    answers: int
    usd: float

    def __str__(self) -> str:
        cost = f"about ${self.usd:,.2f}" if self.usd else "no call that costs money"
        return f"The finalists answer {self.inputs:,} inputs: {self.answers:,} answers, {cost}."


@dataclass(frozen=True)
class Labelling:
    """Where the labelling of a study stands."""

    decision: Decision
    pool: Pool
    new_labels: int
    """Labels that were on the sheet and not known before."""
    sheet: Path | None
    """What to fill in next; None if the study is settled or nothing is left to label."""
    agreement: Agreement | None
    added: Added | None = None
    """What was added to the pool, if a file was given."""

    @property
    def settled(self) -> bool:
        """Whether the verdict is confident, by bounds that hold at every look."""
        return self.decision.strength == "confident"


Confirm = Callable[[PoolQuote], None]


def label(
    folder: Path,
    *,
    pool: Path | None = None,
    traffic: Sequence[PoolInput] | None = None,
    batch: int = BATCH,
    second: float = SECOND_OPINIONS,
    max_usd: float | None = None,
    confirm: Confirm | None = None,
    progress: ShowProgress = silent,
) -> Labelling:
    """Take what people have labelled, decide again, and write the next sheet.

    Args:
        folder: of a finished study.
        pool: file of inputs without a label, which the finalists answer first. Without one, a study without
            a pool takes `data.pool` of its task, and the rows of its files that have no right answer.
        traffic: inputs of captured traffic, which join the pool.
        batch: inputs on the next sheet.
        second: share of them that somebody else has labelled already.
        max_usd: stop before spending more on answers.
        confirm: called with a quote before calls are paid for; raises to stop.
        progress: called whenever something is done.

    Raises:
        TunepointError: whatever the user can correct; labels and answers are kept.

    """
    task, manifest = study_task(folder), read_manifest(folder)
    _check_metric(task, folder)
    if not manifest.finalists:
        raise StudyError(f"{folder}: has not decided yet; resume it with `tunepoint run`")
    added = _add_inputs(folder, task, manifest, pool, traffic)
    _answer_pool(folder, task, manifest, max_usd, confirm, progress)
    answered = _opened(folder, manifest)
    new = _take_labels(folder, task, manifest, answered)
    answered = replace(answered, labels=tuple(read_labels(folder)))
    decision = run(task, out=folder, seed=manifest.seed, replay=True).decision
    state = Labelling(decision, answered, new, None, agreement(answered.labels), added)
    items = [] if state.settled else _next(folder, manifest, answered, batch, second)
    sheet = folder / SHEET
    if not items:
        sheet.unlink(missing_ok=True)  # all of it is read
        return state
    rows = [(answered.inputs[i].id, answered.inputs[i].input, _shown(answered, i)) for i in items]
    write_sheet(sheet, rows, stream(manifest.seed, Stream.LABEL_SHEET, len(answered.labels)))
    return replace(state, sheet=sheet)


def _check_metric(task: Task, folder: Path) -> None:
    """Refuse what the labels of a pool cannot score.

    Raises:
        TaskError: a judge scores, or a scorer of somebody's own, which a study's folder does not bring along.

    """
    if task.takes_labels:
        return
    if task.score.metric == JUDGE:
        raise TaskError(
            f"{folder}: a judge scores here, and people grade its answers: fill in to_grade.csv in the study"
        )
    if task.data is None:
        raise TaskError(f"{folder}: its task has no [data], so the columns of a pool are unknown")
    raise TaskError(
        f"{folder}: answers are scored by {task.score.metric}, which is not run from a study's folder; "
        "labels of a pool need a metric of Tunepoint's"
    )


# -- the pool ------------------------------------------------------------------------------


def _add_inputs(
    folder: Path, task: Task, manifest: Manifest, file: Path | None, traffic: Sequence[PoolInput] | None
) -> Added | None:
    """Add inputs to the pool: those that the user names, else those of the task if there is no pool yet."""
    assert task.data is not None
    found: list[PoolInput] = []
    if file is not None:
        found += inputs_of_file(task.data, file)
    if traffic is not None:
        found += traffic
    if file is None and traffic is None and not read_pool(folder):
        found += _inputs_of_task(task)
    if not found and file is None and traffic is None:
        return None
    known = {example.input for example in prepare(task, manifest.seed).examples}
    source = str(file or task.folder) if traffic is None else "captured traffic"
    return add_to_pool(folder, found, known, source)


def _inputs_of_task(task: Task) -> list[PoolInput]:
    """Return the inputs of `data.pool`, and of the rows without a right answer in the task's files."""
    data = task.data
    assert data is not None
    found = [] if data.pool is None else inputs_of_file(data, task.resolve(data.pool))
    for file in (data.path, data.train, data.dev, data.test):
        if file is not None:
            found += [new for new in inputs_of_file(data, task.resolve(file), unlabelled=True) if new.text]
    return found


def _answer_pool(
    folder: Path,
    task: Task,
    manifest: Manifest,
    max_usd: float | None,
    confirm: Confirm | None,
    progress: ShowProgress,
) -> None:
    """Have every finalist answer what it has not answered."""
    inputs, log = read_pool(folder), TrialLog(folder / POOL_TRIALS)
    asked = [name for name in manifest.finalists if manifest.arms[name].kind != "incumbent"]
    if not inputs or (manifest.pool_answered == len(inputs) and all(map(log.of, asked))):
        return
    prepared = prepare(task, manifest.seed)
    with (
        closing(PaymentLog(folder / PAYMENTS)) as payments,
        _measuring(
            folder,
            task,
            manifest,
            prepared,
            Budget(max_usd, task.costs.core_hour_usd.likely / 3600 * cores(), manifest.spent_usd, payments),
            progress,
        ) as (runner, arms),
    ):
        quote = _quote(runner, arms, inputs, log)
        if confirm is not None and quote.answers:
            confirm(quote)
        for arm in arms:
            runner.measure(arm, log, inputs, prepared.split.train)
        runner.study.update(pool_answered=len(inputs))


@contextmanager
def _measuring(
    folder: Path, task: Task, manifest: Manifest, prepared: Prepared, budget: Budget, progress: ShowProgress
) -> Iterator[tuple[Runner, Sequence[Arm]]]:
    """Open the finalists that can answer: what runs today has answers of its log only."""
    encoder = load_encoder(task)
    with (
        open_chat_models(task, folder / CALLS, budget) as models,
        open_study(folder, task, prepared, manifest.seed) as study,
    ):
        runner = Runner(study, task, prepared, budget, models, progress, scorer=_unscored)
        with models.recorded_only():
            candidates = plan(runner, encoder, None).only(manifest.arms)
            finalists = select(runner, candidates, manifest.finalists).finalists
        yield runner, [arm for arm in finalists if arm.kind != "incumbent"]


def _unscored(answers: Sequence[str], examples: Sequence[Example]) -> list[Grading]:
    """Score nothing: nobody knows yet what is right."""
    return [Grading(0.0)] * len(answers)


def _quote(runner: Runner, arms: Sequence[Arm], inputs: Sequence[Example], log: TrialLog) -> PoolQuote:
    """What the missing answers cost, by what the same options cost on the test set."""
    answers, usd = 0, 0.0
    for arm in arms:
        asked = {trial.item for trial in log.of(arm.name)}
        missing = sum(example.id not in asked for example in inputs) * arm.seeds
        costs = [trial.cost_usd for trial in runner.study.test.of(arm.name) if trial.cost_usd is not None]
        answers += missing
        usd += missing * float(np.mean(costs)) if costs else 0.0
    return PoolQuote(len(inputs), answers, usd)


def _opened(folder: Path, manifest: Manifest) -> Pool:
    pool = open_pool(folder, manifest.finalists)
    if pool is None:
        raise StudyError(
            f"{folder}: has no pool that two of its options have answered; give one: "
            f"tunepoint label {folder} --pool INPUTS.csv"
        )
    return pool


# -- labels --------------------------------------------------------------------------------


def _take_labels(folder: Path, task: Task, manifest: Manifest, pool: Pool) -> int:
    """Add what stands on the sheet to the labels; return how many were new."""
    sheet = folder / SHEET
    if not sheet.exists():
        return 0
    scoring, known = task_scorer(task), labels_of(task, prepare(task, manifest.seed).examples)
    of_item = {example.id: i for i, example in enumerate(pool.inputs)}
    labels = {(label.item, label.by): label for label in read_labels(folder)}
    before = dict(labels)
    for filled in read_sheet(sheet):
        if filled.item not in of_item:
            raise DataError(
                f"{filled.place}: {filled.item!r} is no input of the pool; leave the column as it is"
            )
        right = _right(filled, task, known)
        answers = sorted({a for runs in pool.answers[of_item[filled.item]] for a in runs if a != UNREADABLE})
        scores = dict.fromkeys(answers, 0.0)
        if right is not None:
            replies = [Reply(answer, answer, Usage("pool")) for answer in answers]
            examples = [Example(filled.item, "", right)] * len(answers)
            graded = grade_replies(scoring, replies, examples)
            scores = {a: g.score or 0.0 for a, g in zip(answers, graded, strict=True)}
        labels[filled.item, filled.by] = PoolLabel(filled.item, right, filled.by, scores)
    if labels != before:
        write_labels(folder, list(labels.values()))
    return sum(key not in before for key in labels)


def _right(filled: Filled, task: Task, labels: Sequence[str]) -> str | None:
    """Return the right answer that a cell gives; None for none of those shown.

    Raises:
        DataError: the cell names no column, and is no answer of the task.

    """
    text, kind = filled.right, task.answer.kind
    number = text.removeprefix(CHOICE)
    if number.isdigit() and (text.startswith(CHOICE) or kind != "number") and text not in labels:
        if not 1 <= int(number) <= len(filled.answers):
            raise DataError(
                f"{filled.place}: right is {text!r}, and {len(filled.answers)} answers are shown: write "
                f"{CHOICE}1 to {CHOICE}{len(filled.answers)}, the right answer itself, or {NONE_RIGHT}"
            )
        return filled.answers[int(number) - 1]
    if text.casefold() == NONE_RIGHT and text not in labels:
        if kind not in RIGHT_OR_WRONG:
            raise DataError(f"{filled.place}: {NONE_RIGHT} is not enough here: write the right answer")
        return None
    if kind != "label":
        return text
    match = next((label for label in labels if exact_key(label) == exact_key(text)), None)
    if match is None:
        raise DataError(f"{filled.place}: {text!r} is no label of the task; {nearest(text, labels)}")
    return match


def _next(folder: Path, manifest: Manifest, pool: Pool, batch: int, second: float) -> list[int]:
    """Return the positions of the inputs to label next, and of some for a second opinion."""
    labelled = set(pool.labelled)
    reopened = reopen(folder)
    alone = replace(reopened, table=replace(reopened.table, pool=None))
    draws = stream(manifest.seed, Stream.LABELS).random(len(pool.inputs))
    decision = alone.decide(reopened.task, reopened.costs)
    times = label_times(pool, decision, draws)
    chosen = next_inputs(pool, times, batch, labelled)
    opinions = by_item(pool.labels)
    named = any(label.by for label in pool.labels)
    once = [i for i in labelled if len(opinions[pool.inputs[i].id]) == 1]
    again = sorted(once, key=times.__getitem__, reverse=True)[: round(second * len(chosen)) if named else 0]
    return [*chosen, *again]


def _shown(pool: Pool, position: int) -> list[str]:
    """Return the different readable answers to an input."""
    return sorted({answer for runs in pool.answers[position] for answer in runs if answer != UNREADABLE})
