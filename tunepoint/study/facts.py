"""What a measured study knows beyond its trials: facts for the signals, tables for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.contract import Arm, HasPromptlessTwin
from tunepoint.data.examples import HUMAN
from tunepoint.data.formats import common_format
from tunepoint.data.prepare import Prepared
from tunepoint.decision.signals import Facts
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.novelty import MAX_COMPARED_INPUTS, nearest_similarity
from tunepoint.study.directory import Study
from tunepoint.study.selection import Selection
from tunepoint.task.task import Task
from tunepoint.trials.table import joint_of, tabulate
from tunepoint.trials.trial import ArmKind, Trial, mean_score

if TYPE_CHECKING:
    from tunepoint.models.encoder import Encoder


def _difference(trials: Sequence[Trial], one: str, other: str) -> Interval:
    """Paired difference of two arms, one minus other."""
    table = tabulate(trials, [one, other])
    return compare(joint_of(table), [(0, 1)], np.random.default_rng(0))[0].difference


def signal_facts(
    study: Study,
    task: Task,
    candidates: CandidateArms,
    selection: Selection,
    prepared: Prepared,
    nearness: tuple[float, Mapping[str, float]] | None,
) -> Facts:
    """What the signals need.

    Args:
        study: with all trials measured.
        nearness: as `input_novelty` returns it; None without an encoder.

    """
    dev, test = study.dev, study.test
    by_kind: dict[ArmKind, Arm] = {}
    for arm in selection.finalists:
        by_kind.setdefault(arm.kind, arm)
    novelty = far_slice = light_prompt = None
    if nearness is not None:
        novelty, similarity = nearness
        trained = by_kind.get("tuned") or by_kind.get("hybrid")
        prompted = by_kind.get("prompt") or by_kind.get("incumbent")
        if trained is not None and prompted is not None:
            far_slice = _far_slice(test.trials, similarity, trained.name, prompted.name)
    hybrid = by_kind.get("hybrid")
    if isinstance(hybrid, HasPromptlessTwin):
        light_prompt = _difference(dev.trials, hybrid.name, hybrid.promptless_name)
    counts = prepared.audit.counts
    return Facts(
        revisions=revisions(study),
        novelty=novelty,
        far_slice=far_slice,
        examples=prepared.audit.kept,
        captured=sum(count for origin, count in prepared.audit.origins.items() if origin != HUMAN),
        thinnest=min((*counts.values(), *prepared.audit.thin.values()))
        if task.answer.kind == "label"
        else None,
        format=common_format([example.target for example in prepared.split.train], task.answer.kind),
        ceiling=selection.ceiling if selection.ceiling is not None else _last_step(study, selection.winners),
        searched=study.manifest.get("search"),
        light_prompt=light_prompt,
    )


def _far_slice(
    trials: Sequence[Trial], similarity: Mapping[str, float], trained: str, prompted: str
) -> Interval | None:
    """Trained minus prompted on the least familiar fifth; None where too little of it has both answers."""
    try:
        return _difference(_far(trials, similarity), trained, prompted)
    except (EvidenceError, TrialsError):
        return None


def _far(trials: Sequence[Trial], similarity: Mapping[str, float]) -> list[Trial]:
    """Trials of the fifth of the test items that train is least like; none where that is no sample."""
    ordered = sorted({t.item for t in trials} & similarity.keys(), key=lambda item: similarity[item])
    far = set(ordered[: len(ordered) // 5])
    found = [trial for trial in trials if trial.item in far]
    return found if len({trial.cluster or trial.item for trial in found}) > 1 else []


def _last_step(study: Study, winners: Sequence[Arm]) -> Interval | None:
    """What the last family of the prompting ladder gained over the best before it, on dev."""
    if len(winners) < 2:
        return None
    dev = study.dev
    *before, last = winners
    best = max(before, key=lambda arm: mean_score(dev.of(arm.name)))
    return _difference(dev.trials, last.name, best.name)


def revisions(study: Study) -> int:
    """Distinct earlier versions of instruction and labels among this task's recent studies."""
    since = datetime.now(UTC) - timedelta(days=30)
    own = study.manifest
    seen = set()
    for path in study.folder.parent.glob("*/manifest.json"):
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
            recent = datetime.fromisoformat(other["created"]) >= since
            if other["task"] == own["task"] and recent:
                seen.add(json.dumps([other["instruction"], other["labels"]], sort_keys=True))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(0, len(seen) - 1)


def input_novelty(
    encoder: Encoder, prepared: Prepared, rng: np.random.Generator
) -> tuple[float, dict[str, float]] | None:
    """Share of novel test inputs, and each test item's similarity to its nearest in train.

    A test input is novel if it is less like its nearest training input than 95% of those are like theirs.
    Random samples of 2,000 stand for larger sets. None where train has one input.
    """
    split = prepared.split
    learnt, asked = (
        [part[i] for i in sorted(rng.permutation(len(part))[:MAX_COMPARED_INPUTS].tolist())]
        for part in (split.train, split.test)
    )
    if len(learnt) < 2:
        return None
    train = encoder.embed([example.input for example in learnt])
    test = encoder.embed([example.input for example in asked])
    near, threshold = nearest_similarity(train, test)
    items = {e.id: float(value) for e, value in zip(asked, near, strict=True)}
    return float((near < threshold).mean()), items
