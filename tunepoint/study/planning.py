"""What a study will try, and what that takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import JsonValue

from tunepoint.arms import catalog
from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.contract import Arm, HasTrainingTime
from tunepoint.arms.incumbent import incumbent_arms
from tunepoint.data.audit import DoubtfulLabel, doubtful_labels
from tunepoint.errors import TaskError
from tunepoint.study.language_models import with_tuned
from tunepoint.study.quote import Quote, quote
from tunepoint.study.runner import Runner
from tunepoint.study.timing import seconds_by_family
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.hosted.quote import HostedQuote
    from tunepoint.models.encoder import Encoder

Confirm = Callable[["Quote | HostedQuote"], None]
"""Called with a quote before money is spent; raises to stop."""
TIMED_ITEMS = 50
"""Test items that are asked one at a time, so that their seconds are those of a request."""
SECONDS_PER_REQUEST = 0.03
"""Of an answer on this machine to a single input, roughly."""
ANSWERS_PER_SECOND = 200
"""Of an arm on this machine that is asked in batches, roughly."""
EMBEDDED_PER_SECOND = 60
"""Training examples that the encoder reads, roughly."""


def plan(runner: Runner, encoder: Encoder | None, confirm: Confirm | None) -> CandidateArms:
    """Name the arms to try, announce about how long they take, and quote what they will cost.

    Raises:
        TaskError: no arm can be measured.

    """
    split = runner.prepared.split
    keep = runner.study.folder / "arms"
    chats = runner.models.chats
    if not _finished(runner):
        catalog.refuse_placeholder(runner.task)
    measured = runner.study.manifest.arms
    candidates = catalog.candidates(runner.task, encoder, chats, split.train, split.dev, keep, measured)
    incumbents, not_run = incumbent_arms(runner.task, runner.prepared.examples, split.test)
    candidates = with_tuned(candidates, runner, confirm)
    candidates = replace(candidates, incumbents=tuple(incumbents), not_run=(*not_run, *candidates.not_run))
    if ended := runner.study.manifest.races:  # a later version may try prompts that this study did not
        raced = tuple(arm for arm in candidates.raced if arm.name in ended or arm.name in measured)
        candidates = replace(candidates, raced=raced)
    if not candidates.local and not candidates.raced and len(incumbents) < 2:
        reasons = "; ".join(f"{arm.name}: {arm.reason}" for arm in candidates.not_run)
        raise TaskError(f"no option can be measured, so there is nothing to decide. {reasons}")
    _announce(runner, candidates)
    _confirm(runner, candidates, confirm)
    return candidates


def _announce(runner: Runner, candidates: CandidateArms) -> None:
    """Announce the work on this machine."""
    split = runner.prepared.split
    for arm in candidates.local:
        runner.plan(expected_seconds(arm, len(split.train)))
    if candidates.curve_arm is not None:
        once = candidates.curve_arm.once()
        for share in catalog.CURVE_SHARES:
            runner.plan(expected_seconds(once, int(len(split.train) * share)))
    if candidates.encoder is not None:
        test = SECONDS_PER_REQUEST * TIMED_ITEMS + 2 * len(split.test) / ANSWERS_PER_SECOND
        runner.plan(catalog.MAX_FINALISTS * test)
        runner.plan(len(split.train) / EMBEDDED_PER_SECOND)


def _confirm(runner: Runner, candidates: CandidateArms, confirm: Confirm | None) -> None:
    """Quote the calls of chat models, and have the quote confirmed if any will be made."""
    task = runner.task
    models = (*task.models, *([task.score.judge] if task.score.judge else []))
    concurrency = max((model.concurrency for model in models), default=1)
    timed = {} if _finished(runner) else seconds_by_family(runner, candidates)
    quoted = quote(task, candidates, runner.prepared.split, runner.prices, concurrency, timed)
    if quoted is None:
        return
    runner.plan(quoted.minutes.likely * 60)
    if confirm is not None and not _finished(runner):
        confirm(quoted)


def stakes(task: Task) -> list[JsonValue]:
    """What the worth of more evidence depends on, by the task: a change of it opens the question again."""
    traffic = task.traffic
    return [
        None if task.value.error_usd is None else float(task.value.error_usd),
        traffic.queries_per_month.likely,
        traffic.horizon_months,
        traffic.growth_per_month,
        list[JsonValue](decodes_of(task)),
    ]


def decodes_of(task: Task) -> list[int]:
    """Answers to each test item by the models of a task, in its order."""
    return [model.decodes for model in task.models]


def _finished(runner: Runner) -> bool:
    """Whether no call will be made: all was measured, or the rest was not worth its price."""
    manifest, task = runner.study.manifest, runner.task
    bought = manifest.bought
    stopped = bought is not None and bought.stopped and bought.stakes == stakes(task)
    return stopped or (runner.study.measured and manifest.decodes == decodes_of(task))


def expected_seconds(arm: Arm, train: int) -> float:
    """Seconds that fitting an arm with all its seeds will take, roughly."""
    if arm.remote:
        return 0.0
    return arm.seconds_for(train) * arm.seeds if isinstance(arm, HasTrainingTime) else 0.5


def find_doubtful_labels(runner: Runner, encoder: Encoder | None) -> list[DoubtfulLabel] | None:
    """Look for doubtful labels outside the test set; None where no encoder reads them.

    The encoder keeps the vectors of these inputs, which arms ask for again and again.
    """
    if encoder is None:
        return None
    split = runner.prepared.split
    runner.announce("reading the examples")
    examples = (*split.train, *split.dev)
    inputs = [example.input for example in examples]
    encoder.cache_states(inputs)
    encoder.cache_vectors(inputs)
    runner.done_seconds += len(split.train) / EMBEDDED_PER_SECOND
    if runner.task.answer.kind != "label":
        return None
    groups = [split.clusters[example.id] for example in examples]
    return list(doubtful_labels(examples, encoder.embed(inputs), groups=groups))
