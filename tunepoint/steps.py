"""The steps of a study, in the order in which `studies.run` takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from tunepoint.arms import Arm, Estimated, NotRun, trainable
from tunepoint.candidates import MOST_FINALISTS, SHARES, Candidates, candidates
from tunepoint.cascades import Cascade, choose_gate
from tunepoint.data.audit import doubtful_labels
from tunepoint.data.examples import Example
from tunepoint.errors import TaskError
from tunepoint.incumbents import incumbents
from tunepoint.measure.bench import Bench
from tunepoint.measure.prepare import Prepared
from tunepoint.measure.races import race
from tunepoint.measure.trials import mean_score
from tunepoint.models.opening import Models
from tunepoint.optimising import export_prompt, optimise
from tunepoint.quotes import Quote, quote
from tunepoint.stats.intervals import Interval
from tunepoint.task import Task
from tunepoint.teaching import taught
from tunepoint.tuned import with_tuned

if TYPE_CHECKING:  # torch is loaded with the model, not with the package
    from tunepoint.models.encoder import Encoder
    from tunepoint.tuning.hosted import HostedQuote

TIMED = 50
"""Test items that are asked one at a time, so that their seconds are those of a request."""


@dataclass(frozen=True)
class Selected:
    """What dev chose."""

    finalists: tuple[Arm, ...]
    winners: tuple[Arm, ...]
    """Best arm of each prompting family, in the order of the ladder; all of dev behind each."""
    tried: Candidates
    """All arms, those among them that learnt from the best prompted one."""
    ceiling: Interval | None = None
    """What one more step of the search for a prompt would gain; None where none was made."""
    not_run: tuple[NotRun, ...] = ()


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


def select(bench: Bench, tried: Candidates, models: Models) -> Selected:
    """Measure the candidates on dev and name the finalists."""
    split, log = bench.prepared.split, bench.study.dev
    _on_dev(bench, tried.local)
    climbed = (*_best_of_families(bench, tried.prompting), *_raced(bench, tried))
    optimised = optimise(bench, climbed, models, shuffled_dev(bench))
    winners = (*climbed, *_best_of_families(bench, optimised.arms))
    export_prompt(bench, winners)
    known = {arm.name for arm in tried.local}
    tried = taught(bench, tried, winners)
    _on_dev(bench, [arm for arm in tried.local if arm.name not in known])
    scores = {arm.name: mean_score(log.of(arm.name)) for arm in (*tried.local, *winners)}
    kinds = (("prompt", winners), ("tuned", tried.tuned), ("hybrid", tried.hybrid))
    best = {kind: max(arms, key=lambda arm: scores[arm.name]) for kind, arms in kinds if arms}
    chosen = list(best.values())
    cascade = _cascade(bench, best, scores)
    if cascade is not None:
        bench.measure(cascade, log, split.dev, split.train)
        chosen.append(cascade)
    for arm in tried.incumbents:
        bench.measure(arm, log, arm.covered(split.dev), split.train)
        chosen.append(arm)
    families = {arm.family for arm in chosen}
    others = [arm for arm in (*winners, *tried.tuned, *tried.hybrid) if arm.family not in families]
    others.sort(key=lambda arm: -scores[arm.name])
    finalists = (*chosen, *others[: max(0, MOST_FINALISTS - len(chosen))])
    return Selected(finalists, winners, tried, optimised.ceiling, optimised.not_run)


def _on_dev(bench: Bench, arms: Sequence[Arm]) -> None:
    """Measure arms on all of dev."""
    split = bench.prepared.split
    for arm in arms:
        expected = expected_seconds(arm, len(split.train), 0)
        bench.measure(arm, bench.study.dev, split.dev, split.train, expected=expected)


def _best_of_families(bench: Bench, arms: Sequence[Arm]) -> list[Arm]:
    """The best arm of each family, in the order in which the families appear."""
    best: dict[str, Arm] = {}
    scores = {arm.name: mean_score(bench.study.dev.of(arm.name)) for arm in arms}
    for arm in arms:
        if arm.family not in best or scores[arm.name] > scores[best[arm.family].name]:
            best[arm.family] = arm
    return list(best.values())


def shuffled_dev(bench: Bench) -> list[Example]:
    """The dev items in an order that only the seed decides, items of a cluster side by side."""
    return shuffled(bench, bench.prepared.split.dev, 4)


def shuffled(bench: Bench, examples: Sequence[Example], salt: int) -> list[Example]:
    """Examples in an order that only the seed and a number decide, items of a cluster side by side."""
    clusters = bench.prepared.split.clusters
    rng = np.random.default_rng([int(bench.study.manifest["seed"]), salt])
    shuffled = [examples[i] for i in rng.permutation(len(examples)).tolist()]
    places: dict[str, int] = {}
    for example in shuffled:
        places.setdefault(clusters[example.id], len(places))
    return sorted(shuffled, key=lambda example: places[clusters[example.id]])


def _raced(bench: Bench, tried: Candidates) -> list[Arm]:
    """The winner of each family of a chat model; how far every arm came is noted in the manifest."""
    split, log = bench.prepared.split, bench.study.dev
    dev = shuffled_dev(bench)
    order = {arm.family: position for position, arm in reversed(list(enumerate(tried.raced)))}
    ranked = sorted(tried.raced, key=lambda arm: order[arm.family])
    winners: list[Arm] = []
    places: dict[str, dict[str, Any]] = {}

    def measure(arm: Arm, items: Sequence[Example]) -> None:
        bench.measure(arm, log, items, split.train)

    for _, arms in groupby(ranked, key=lambda arm: arm.family):
        winner, ran = race(list(arms), dev, measure, log.of, split.clusters)
        winners.append(winner)
        places |= {place.arm: asdict(place) for place in ran}
    if places:
        bench.study.manifest["races"] = places
        bench.study.save()
    return winners


def _cascade(bench: Bench, best: Mapping[str, Arm], scores: Mapping[str, float]) -> Cascade | None:
    """The cheap arm first, the strong arm behind it, with the gate that dev chose.

    Between a prompt of the encoder and a trained arm, the prompt is cheap; a chat model is
    dearer than anything trained here.
    """
    trained = [best[kind] for kind in ("tuned", "hybrid") if kind in best]
    if not trained or "prompt" not in best:
        return None
    cheap, strong = best["prompt"], max(trained, key=lambda arm: scores[arm.name])
    if cheap.remote:
        cheap, strong = strong, cheap
    log = bench.study.dev
    first = {t.item: t for t in log.of(cheap.name) if t.confidence is not None and t.seed in (None, "0")}
    later = [trial for trial in log.of(strong.name) if trial.item in first]
    confidence = np.array([first[trial.item].confidence for trial in later], dtype=np.float64)
    gate = choose_gate(
        confidence,
        np.array([first[trial.item].score for trial in later]),
        np.array([trial.score for trial in later]),
    )
    return Cascade(cheap, strong, gate, float((gate.calibrated(confidence) < gate.threshold).mean()))


def nested_subsets(
    train: Sequence[Example], shares: Sequence[float], rng: np.random.Generator
) -> list[list[Example]]:
    """Subsets of train, each inside the next, every label in its share."""
    order = rng.permutation(len(train))
    seen: dict[str, int] = {}
    rank: list[tuple[float, int, int]] = []
    total: dict[str, int] = {}
    for example in train:
        total[example.target] = total.get(example.target, 0) + 1
    for place, i in enumerate(order.tolist()):
        label = train[i].target
        seen[label] = seen.get(label, 0) + 1
        rank.append(((seen[label] - 0.5) / total[label], place, i))
    ranked = [i for _, _, i in sorted(rank)]
    return [[train[i] for i in ranked[: max(2, round(share * len(train)))]] for share in shares]


def draw_curve(bench: Bench, tried: Candidates) -> None:
    """Train on nested subsets and measure on dev; the whole of train is there already."""
    if tried.growing is None:
        return
    split = bench.prepared.split
    rng = np.random.default_rng([int(bench.study.manifest["seed"]), 2])
    arm = tried.growing.once()
    for subset in nested_subsets(trainable(bench.task, split.train), SHARES, rng):
        name = f"{arm.name}, {len(subset)} examples"
        expected = expected_seconds(arm, len(subset), 0)
        if len(subset) >= tried.growing.fewest:
            bench.measure(arm, bench.study.curve, split.dev, subset, name=name, expected=expected)
