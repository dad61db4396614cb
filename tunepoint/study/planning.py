"""What a study will try, and what that takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunepoint.arms.catalog import MOST_FINALISTS, SHARES, Candidates, candidates
from tunepoint.arms.contract import Arm, Estimated
from tunepoint.arms.incumbent import incumbents
from tunepoint.data.audit import doubtful_labels
from tunepoint.data.prepare import Prepared
from tunepoint.errors import TaskError
from tunepoint.models.opening import Models
from tunepoint.study.bench import TIMED, Bench
from tunepoint.study.language_models import with_tuned
from tunepoint.study.quote import Quote, quote
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.hosted.hosted import HostedQuote
    from tunepoint.models.encoder import Encoder


def plan(
    bench: Bench,
    encoder: Encoder | None,
    models: Models,
    confirm: Callable[[Quote | HostedQuote], None] | None,
) -> Candidates:
    """Say what will be tried, about how long it takes, and what it will cost."""
    split = bench.prepared.split
    keep = bench.study.folder / "arms"
    tried = candidates(bench.task, encoder, models.chats, split.train, split.dev, keep)
    today, left = incumbents(bench.task, bench.prepared.examples, split.test)
    tried = with_tuned(tried, bench, models, confirm)
    tried = replace(tried, incumbents=tuple(today), not_run=(*left, *tried.not_run))
    if not tried.local and not tried.raced:
        reasons = "; ".join(f"{left.name}: {left.reason}" for left in tried.not_run)
        raise TaskError(f"nothing is left to be measured, so there is nothing to decide. {reasons}")
    for arm in tried.local:
        bench.plan(expected_seconds(arm, len(split.train), 0))
    if tried.growing is not None:
        once = tried.growing.once()
        for share in SHARES:
            bench.plan(expected_seconds(once, int(len(split.train) * share), 0))
    if tried.encoder is not None:
        bench.plan(MOST_FINALISTS * (0.03 * TIMED + 2 * len(split.test) / 200))
        bench.plan(len(split.train) / 60)
    asked = (*bench.task.models, *([bench.task.score.judge] if bench.task.score.judge else []))
    most = max((model.concurrency for model in asked), default=1)
    quoted = quote(bench.task, tried, split.train, split.dev, split.test, models.prices, most)
    if quoted is not None:
        bench.plan(quoted.minutes.likely * 60)
        if confirm is not None and not _finished(bench):
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


def _finished(bench: Bench) -> bool:
    """Whether nobody will be asked any more: all was measured, or the rest was not worth its price."""
    manifest = bench.study.manifest
    bought = manifest.get("bought") or {}
    stopped = bought.get("stopped", False) and bought["for"] == at_stake(bench.task)
    whole = bench.study.measured and manifest.get("decodes") == decodes_of(bench.task)
    return whole or bool(stopped)


def expected_seconds(arm: Arm, train: int, asked: int) -> float:
    """Seconds that fitting an arm and asking it will take, roughly."""
    if arm.remote:
        return 0.0
    fitting = arm.seconds_for(train) if isinstance(arm, Estimated) else 0.5 / arm.seeds
    return arm.seeds * (fitting + asked * 0.015)


def look(bench: Bench, encoder: Encoder | None, prepared: Prepared) -> Prepared:
    """Embed what is asked more than once, and find doubtful labels outside the test."""
    if encoder is None:
        return prepared
    bench.progress("reading the examples", 0.0, bench.planned_seconds)
    seen = (*prepared.split.train, *prepared.split.dev)
    inputs = [example.input for example in seen]
    encoder.warm(inputs)
    encoder.remember(inputs)
    bench.done_seconds += len(prepared.split.train) / 60
    if bench.task.answer.kind != "label":
        return prepared
    groups = [prepared.split.clusters[example.id] for example in seen]
    doubts = doubtful_labels(seen, encoder.embed(inputs), groups=groups)
    return prepared.with_doubts(doubts)
