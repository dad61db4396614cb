"""What a study will try, and what that takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunepoint.arms.catalog import MOST_FINALISTS, SHARES, CandidateArms, candidates
from tunepoint.arms.contract import Arm, HasTrainingTime
from tunepoint.arms.incumbent import incumbent_arms
from tunepoint.data.audit import doubtful_labels
from tunepoint.data.prepare import Prepared
from tunepoint.errors import TaskError
from tunepoint.models.opening import ChatModels
from tunepoint.study.bench import TIMED, Runner
from tunepoint.study.language_models import with_tuned
from tunepoint.study.quote import Quote, quote
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.hosted.hosted import HostedQuote
    from tunepoint.models.encoder import Encoder


def plan(
    runner: Runner,
    encoder: Encoder | None,
    models: ChatModels,
    confirm: Callable[[Quote | HostedQuote], None] | None,
) -> CandidateArms:
    """Say what will be tried, about how long it takes, and what it will cost."""
    split = runner.prepared.split
    keep = runner.study.folder / "arms"
    tried = candidates(runner.task, encoder, models.chats, split.train, split.dev, keep)
    today, left = incumbent_arms(runner.task, runner.prepared.examples, split.test)
    tried = with_tuned(tried, runner, models, confirm)
    tried = replace(tried, incumbents=tuple(today), not_run=(*left, *tried.not_run))
    if not tried.local and not tried.raced:
        reasons = "; ".join(f"{left.name}: {left.reason}" for left in tried.not_run)
        raise TaskError(f"nothing is left to be measured, so there is nothing to decide. {reasons}")
    for arm in tried.local:
        runner.plan(expected_seconds(arm, len(split.train), 0))
    if tried.growing is not None:
        once = tried.growing.once()
        for share in SHARES:
            runner.plan(expected_seconds(once, int(len(split.train) * share), 0))
    if tried.encoder is not None:
        runner.plan(MOST_FINALISTS * (0.03 * TIMED + 2 * len(split.test) / 200))
        runner.plan(len(split.train) / 60)
    asked = (*runner.task.models, *([runner.task.score.judge] if runner.task.score.judge else []))
    most = max((model.concurrency for model in asked), default=1)
    quoted = quote(runner.task, tried, split.train, split.dev, split.test, models.prices, most)
    if quoted is not None:
        runner.plan(quoted.minutes.likely * 60)
        if confirm is not None and not _finished(runner):
            confirm(quoted)
    return tried


def at_stake(task: Task) -> list[Any]:
    """What the worth of more evidence depends on, by the task: a change of it opens the question again."""
    traffic = task.traffic
    price = None if task.value.error_usd is None else float(task.value.error_usd)
    return [
        price,
        traffic.queries_per_month.likely,
        traffic.horizon_months,
        traffic.growth_per_month,
        decodes_of(task),
    ]


def decodes_of(task: Task) -> list[int]:
    """Answers to each test item by the models of a task, in its order."""
    return [model.decodes for model in task.models]


def _finished(runner: Runner) -> bool:
    """Whether nobody will be asked any more: all was measured, or the rest was not worth its price."""
    manifest = runner.study.manifest
    bought = manifest.get("bought") or {}
    stopped = bought.get("stopped", False) and bought["for"] == at_stake(runner.task)
    whole = runner.study.measured and manifest.get("decodes") == decodes_of(runner.task)
    return whole or bool(stopped)


def expected_seconds(arm: Arm, train: int, asked: int) -> float:
    """Seconds that fitting an arm and asking it will take, roughly."""
    if arm.remote:
        return 0.0
    fitting = arm.seconds_for(train) if isinstance(arm, HasTrainingTime) else 0.5 / arm.seeds
    return arm.seeds * (fitting + asked * 0.015)


def find_doubtful_labels(runner: Runner, encoder: Encoder | None, prepared: Prepared) -> Prepared:
    """Embed what is asked more than once, and find doubtful labels outside the test."""
    if encoder is None:
        return prepared
    runner.progress("reading the examples", 0.0, runner.planned_seconds)
    seen = (*prepared.split.train, *prepared.split.dev)
    inputs = [example.input for example in seen]
    encoder.warm(inputs)
    encoder.remember(inputs)
    runner.done_seconds += len(prepared.split.train) / 60
    if runner.task.answer.kind != "label":
        return prepared
    groups = [prepared.split.clusters[example.id] for example in seen]
    doubts = doubtful_labels(seen, encoder.embed(inputs), groups=groups)
    return prepared.with_doubts(doubts)
