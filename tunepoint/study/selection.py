"""The steps of a study, in the order in which `studies.run` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tunepoint.arms.cascade import Cascade, choose_gate
from tunepoint.arms.catalog import MOST_FINALISTS, Candidates
from tunepoint.arms.contract import Arm, NotRun
from tunepoint.data.examples import Example
from tunepoint.models.opening import Models
from tunepoint.stats.intervals import Interval
from tunepoint.study.bench import Bench, shuffled_dev
from tunepoint.study.distillation import taught
from tunepoint.study.planning import expected_seconds
from tunepoint.study.prompt_export import export_prompt
from tunepoint.study.prompt_search import optimise
from tunepoint.study.racing import race
from tunepoint.trials.trial import mean_score


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
