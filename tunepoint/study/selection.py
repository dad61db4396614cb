"""The steps of a study, in the order in which `studies.run` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tunepoint.arms.cascade import Cascade, choose_gate
from tunepoint.arms.catalog import MOST_FINALISTS, CandidateArms
from tunepoint.arms.contract import Arm, NotRun
from tunepoint.data.examples import Example
from tunepoint.models.opening import ChatModels
from tunepoint.stats.intervals import Interval
from tunepoint.study.bench import Runner, shuffled_dev
from tunepoint.study.distillation import add_distilled
from tunepoint.study.planning import expected_seconds
from tunepoint.study.prompt_export import export_prompt
from tunepoint.study.prompt_search import optimise
from tunepoint.study.racing import race
from tunepoint.trials.trial import mean_score


@dataclass(frozen=True)
class Selection:
    """What dev chose."""

    finalists: tuple[Arm, ...]
    winners: tuple[Arm, ...]
    """Best arm of each prompting family, in the order of the ladder; all of dev behind each."""
    tried: CandidateArms
    """All arms, those among them that learnt from the best prompted one."""
    ceiling: Interval | None = None
    """What one more step of the search for a prompt would gain; None where none was made."""
    not_run: tuple[NotRun, ...] = ()


def select(runner: Runner, candidates: CandidateArms, models: ChatModels) -> Selection:
    """Measure the candidates on dev and name the finalists."""
    split, log = runner.prepared.split, runner.study.dev
    _on_dev(runner, candidates.local)
    climbed = (*_best_of_families(runner, candidates.prompting), *_raced(runner, candidates))
    optimised = optimise(runner, climbed, models, shuffled_dev(runner))
    winners = (*climbed, *_best_of_families(runner, optimised.arms))
    export_prompt(runner, winners)
    known = {arm.name for arm in candidates.local}
    candidates = add_distilled(runner, candidates, winners)
    _on_dev(runner, [arm for arm in candidates.local if arm.name not in known])
    scores = {arm.name: mean_score(log.of(arm.name)) for arm in (*candidates.local, *winners)}
    kinds = (("prompt", winners), ("tuned", candidates.tuned), ("hybrid", candidates.hybrid))
    best = {kind: max(arms, key=lambda arm: scores[arm.name]) for kind, arms in kinds if arms}
    chosen = list(best.values())
    cascade = _cascade(runner, best, scores)
    if cascade is not None:
        runner.measure(cascade, log, split.dev, split.train)
        chosen.append(cascade)
    for arm in candidates.incumbents:
        runner.measure(arm, log, arm.covered(split.dev), split.train)
        chosen.append(arm)
    families = {arm.family for arm in chosen}
    others = [arm for arm in (*winners, *candidates.tuned, *candidates.hybrid) if arm.family not in families]
    others.sort(key=lambda arm: -scores[arm.name])
    finalists = (*chosen, *others[: max(0, MOST_FINALISTS - len(chosen))])
    return Selection(finalists, winners, candidates, optimised.ceiling, optimised.not_run)


def _on_dev(runner: Runner, arms: Sequence[Arm]) -> None:
    """Measure arms on all of dev."""
    split = runner.prepared.split
    for arm in arms:
        expected = expected_seconds(arm, len(split.train), 0)
        runner.measure(arm, runner.study.dev, split.dev, split.train, expected=expected)


def _best_of_families(runner: Runner, arms: Sequence[Arm]) -> list[Arm]:
    """The best arm of each family, in the order in which the families appear."""
    best: dict[str, Arm] = {}
    scores = {arm.name: mean_score(runner.study.dev.of(arm.name)) for arm in arms}
    for arm in arms:
        if arm.family not in best or scores[arm.name] > scores[best[arm.family].name]:
            best[arm.family] = arm
    return list(best.values())


def _raced(runner: Runner, candidates: CandidateArms) -> list[Arm]:
    """The winner of each family of a chat model; how far every arm came is noted in the manifest."""
    split, log = runner.prepared.split, runner.study.dev
    dev = shuffled_dev(runner)
    order = {arm.family: position for position, arm in reversed(list(enumerate(candidates.raced)))}
    ranked = sorted(candidates.raced, key=lambda arm: order[arm.family])
    winners: list[Arm] = []
    places: dict[str, dict[str, Any]] = {}

    def measure(arm: Arm, items: Sequence[Example]) -> None:
        runner.measure(arm, log, items, split.train)

    for _, arms in groupby(ranked, key=lambda arm: arm.family):
        winner, ran = race(list(arms), dev, measure, log.of, split.clusters)
        winners.append(winner)
        places |= {place.arm: asdict(place) for place in ran}
    if places:
        runner.study.manifest["races"] = places
        runner.study.save()
    return winners


def _cascade(runner: Runner, best: Mapping[str, Arm], scores: Mapping[str, float]) -> Cascade | None:
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
    log = runner.study.dev
    first = {t.item: t for t in log.of(cheap.name) if t.confidence is not None and t.seed in (None, "0")}
    later = [trial for trial in log.of(strong.name) if trial.item in first]
    confidence = np.array([first[trial.item].confidence for trial in later], dtype=np.float64)
    gate = choose_gate(
        confidence,
        np.array([first[trial.item].score for trial in later]),
        np.array([trial.score for trial in later]),
    )
    return Cascade(cheap, strong, gate, float((gate.calibrated(confidence) < gate.threshold).mean()))
