"""From candidates to finalists: every arm on the validation set, the best of each kind in the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, permutations

import numpy as np

from tunepoint.arms.cascade import Cascade, cascade_name, choose_gate
from tunepoint.arms.catalog import MAX_FINALISTS, CandidateArms
from tunepoint.arms.contract import Arm, NotRun
from tunepoint.arms.prompting.chat_arm import ChatArm
from tunepoint.data.examples import Example
from tunepoint.errors import StudyError
from tunepoint.stats.intervals import Interval
from tunepoint.stats.racing import BATCH_LOOK_GROWTH, FAR_BEHIND, LOOK_GROWTH, RACE_ERROR_RATE
from tunepoint.study.distillation import add_distilled
from tunepoint.study.ordering import shuffled_dev
from tunepoint.study.planning import expected_seconds
from tunepoint.study.prompt_export import export_prompt
from tunepoint.study.prompt_search import optimize
from tunepoint.study.racing import MIN_OPTIONS, Standing, race, stops_far_behind
from tunepoint.study.records import RaceResult
from tunepoint.study.runner import Runner
from tunepoint.study.warnings import unreadable_warnings
from tunepoint.trials.trial import ArmKind, mean_score


@dataclass(frozen=True)
class Selection:
    """What the validation set selected."""

    finalists: tuple[Arm, ...]
    winners: tuple[Arm, ...]
    """Best arm of each prompting family, from plain prompts to chains; all measured on all of dev.

    Empty where no language model is prompted.
    """
    candidates: CandidateArms
    """All candidates, with those that learned from the best prompted arm."""
    ceiling: Interval | None = None
    """What one more step of the search for a prompt would gain; None where none was made."""
    not_run: tuple[NotRun, ...] = ()


def select(runner: Runner, candidates: CandidateArms, finalists: Sequence[str] | None = None) -> Selection:
    """Measure the candidates on the validation set and name the finalists.

    Args:
        runner: records every trial.
        candidates: all arms; those that chat models answer race.
        finalists: names of the finalists of a finished study, which are not selected again.

    """
    _measure_on_dev(runner, candidates.local)
    prompted = _race_families(runner, candidates)
    with runner.models.asking_at_once():  # every prompt that is tried depends on the last one's score
        optimized = optimize(runner, prompted, shuffled_dev(runner))
    winners = (*prompted, *_best_of_families(runner, optimized.arms))
    export_prompt(runner, winners)
    # only now is it known whose answers a model may learn from
    measured = {arm.name for arm in candidates.local}
    candidates = add_distilled(runner, candidates, winners)
    _measure_on_dev(runner, [arm for arm in candidates.local if arm.name not in measured])
    if finalists is None:
        chosen = _finalists(runner, candidates, winners)
        if len(chosen) < 2:
            stopped = "; ".join(unreadable_warnings(runner.study))
            raise StudyError(
                f"one option is left, and nothing to compare it with: {stopped or 'no other ran'}"
            )
    else:
        chosen = _former_finalists(runner, candidates, winners, finalists)
    return Selection(chosen, winners, candidates, optimized.ceiling, optimized.not_run)


def _measure_on_dev(runner: Runner, arms: Sequence[Arm]) -> None:
    """Measure arms on the whole validation set."""
    split = runner.prepared.split
    for arm in arms:
        expected = expected_seconds(arm, len(split.train))
        runner.measure(arm, runner.study.dev, split.dev, split.train, expected=expected)


def _best_of_families(runner: Runner, arms: Sequence[Arm]) -> list[Arm]:
    """The best arm of each family, in the order in which the families appear."""
    best: dict[str, Arm] = {}
    scores = _scores(runner, arms)
    for arm in arms:
        if arm.family not in best or scores[arm.name] > scores[best[arm.family].name]:
            best[arm.family] = arm
    return list(best.values())


def _race_families(runner: Runner, candidates: CandidateArms) -> list[Arm]:
    """The winner of each family of a chat model; the manifest records how far every arm came.

    Races that have ended are not run again: their record says who won.
    """
    split, log = runner.prepared.split, runner.study.dev
    dev = shuffled_dev(runner)
    ended = runner.study.manifest.races
    races: dict[str, RaceResult] = {}
    order = {arm.family: position for position, arm in reversed(list(enumerate(candidates.raced)))}
    by_family = sorted(candidates.raced, key=lambda arm: order[arm.family])
    winners: list[Arm] = []

    def measure(arms: Sequence[Arm], items: Sequence[Example]) -> None:
        runner.models.gather([partial(runner.measure, arm, log, items, split.train) for arm in arms])

    growth = _look_growth(runner)
    for _, group in groupby(by_family, key=lambda arm: arm.family):
        arms = list(group)
        if all(arm.name in ended for arm in arms):
            winner, results = _ended_race(runner, arms)
        else:
            standing = _standing(runner, winners, arms[0])
            winner, results = race(
                arms, dev, measure, log.of, split.clusters, standing=standing, growth=growth
            )
        winners += [] if winner is None else [winner]
        races |= {result.arm: result for result in results}
    if races:
        runner.study.update(races=races)
    return winners


def _look_growth(runner: Runner) -> float:
    """How far the looks of races are apart: as when they began, so that a replay asks for the same."""
    study = runner.study
    if study.manifest.look_growth is None and runner.models.batches is not None and not study.dev.trials:
        study.update(look_growth=BATCH_LOOK_GROWTH)
    return study.manifest.look_growth or LOOK_GROWTH


def _ended_race(runner: Runner, arms: Sequence[Arm]) -> tuple[Arm | None, list[RaceResult]]:
    """The winner of a race that has ended: the one that went on to the test, else the best at its end."""
    results = [runner.study.manifest.races[arm.name] for arm in arms]
    last = [
        arm
        for arm, result in zip(arms, results, strict=True)
        if result.stopped_by is None and result.unreadable is None and runner.study.dev.of(arm.name)
    ]
    tested = [arm for arm in last if runner.study.test.of(arm.name)]
    last = tested or last  # answers without a grade may leave two arms so close that a mean says another
    scores = _scores(runner, last)
    return max(last, key=lambda arm: scores[arm.name], default=None), results


def _standing(runner: Runner, winners: Sequence[Arm], raced: Arm) -> Standing | None:
    """The best of a model's winners so far.

    None where the rule might choose an arm that is far behind it, or the study would be left with one option.
    """
    own = [arm for arm in winners if _asked_model(arm) == _asked_model(raced)]
    if len(winners) < MIN_OPTIONS or not own or not stops_far_behind(runner.task):
        return None
    scores = _scores(runner, own)
    best = max(own, key=lambda arm: scores[arm.name]).name
    distance = max(FAR_BEHIND, runner.task.limits.margin)
    # the best was chosen on the same items, out of so many
    return Standing(best, runner.study.dev.of(best), distance, RACE_ERROR_RATE / len(own))


def _asked_model(arm: Arm) -> str | None:
    return arm.base_model if isinstance(arm, ChatArm) else None


def _scores(runner: Runner, arms: Sequence[Arm]) -> dict[str, float]:
    """Name of an arm -> its mean score on the validation set."""
    return {arm.name: mean_score(runner.study.dev.of(arm.name)) for arm in arms}


def _finalists(runner: Runner, candidates: CandidateArms, winners: Sequence[Arm]) -> tuple[Arm, ...]:
    """The best arm of each kind, a cascade of two, what runs today, and the best families besides."""
    split, log = runner.prepared.split, runner.study.dev
    scores = _scores(runner, [*candidates.local, *winners])
    kinds: tuple[tuple[ArmKind, Sequence[Arm]], ...] = (
        ("prompt", winners),
        ("tuned", candidates.tuned),
        ("hybrid", candidates.hybrid),
        ("baseline", candidates.baselines),
    )
    best = {kind: max(arms, key=lambda arm: scores[arm.name]) for kind, arms in kinds if arms}
    finalists = list(best.values())
    cascade = _cascade(runner, best, scores)
    if cascade is not None:
        runner.measure(cascade, log, split.dev, split.train)
        finalists.append(cascade)
    for incumbent in candidates.incumbents:
        runner.measure(incumbent, log, incumbent.covered(split.dev), split.train)
        finalists.append(incumbent)
    families = {arm.family for arm in finalists}
    # A second control is of interest only where nothing else is: no language model was prompted.
    controls = () if winners else candidates.baselines
    pool = (*winners, *candidates.tuned, *candidates.hybrid, *controls)
    others = [arm for arm in _best_of_families(runner, pool) if arm.family not in families]
    others.sort(key=lambda arm: -scores[arm.name])
    return (*finalists, *others[: max(0, MAX_FINALISTS - len(finalists))])


def _former_finalists(
    runner: Runner, candidates: CandidateArms, winners: Sequence[Arm], names: Sequence[str]
) -> tuple[Arm, ...]:
    """The finalists of a finished study: arms by name, and the cascade of two of them."""
    arms = (*winners, *candidates.local, *candidates.incumbents)
    finalists = [arm for arm in arms if arm.name in names]
    known = {arm.name for arm in finalists}
    for cheap, strong in permutations(finalists, 2):
        if cascade_name(cheap, strong) in set(names) - known:
            finalists.append(_gated(runner, cheap, strong))
            break
    return tuple(finalists)


def _cascade(runner: Runner, best: Mapping[ArmKind, Arm], scores: Mapping[str, float]) -> Cascade | None:
    """The cheap arm first, the strong arm behind it.

    A prompted language model costs more than anything trained here, and a baseline less.
    """
    trained = [best[kind] for kind in ("tuned", "hybrid") if kind in best]
    if not trained:
        return None
    strongest = max(trained, key=lambda arm: scores[arm.name])
    if "prompt" in best:
        cheap, strong = strongest, best["prompt"]
    elif "baseline" in best:
        cheap, strong = best["baseline"], strongest
    else:
        return None
    return _gated(runner, cheap, strong)


def _gated(runner: Runner, cheap: Arm, strong: Arm) -> Cascade:
    """The cascade of two arms, with the gate that the validation set chose."""
    log = runner.study.dev
    # one answer of the cheap arm to each item: in production only one of its training runs serves
    first = {t.item: t for t in log.of(cheap.name) if t.confidence is not None and t.seed in (None, "0")}
    second = [trial for trial in log.of(strong.name) if trial.item in first]
    confidence = np.array([first[trial.item].confidence for trial in second], dtype=np.float64)
    gate = choose_gate(
        confidence,
        np.array([first[trial.item].score for trial in second]),
        np.array([trial.score for trial in second]),
    )
    return Cascade(cheap, strong, gate, float((gate.calibrated(confidence) < gate.threshold).mean()))
