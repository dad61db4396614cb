"""What a measured study knows beyond its trials: facts for the signals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from tunepoint.arms.contract import Arm, HasPromptlessTwin
from tunepoint.data.examples import HUMAN
from tunepoint.data.formats import common_format
from tunepoint.data.prepare import Prepared
from tunepoint.decision.signals import Facts
from tunepoint.errors import EvidenceError, StudyError, TrialsError
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.novelty import MAX_COMPARED_INPUTS, nearest_similarity
from tunepoint.study.directory import Study
from tunepoint.study.manifest import MANIFEST, read_manifest
from tunepoint.study.selection import Selection
from tunepoint.task.task import Task
from tunepoint.trials.table import joint_of
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import ArmKind, Trial, mean_score

if TYPE_CHECKING:
    from tunepoint.models.encoder import Encoder


REVISION_DAYS = 30
"""Age of a study up to which its requirements count as recent."""


def signal_facts(
    study: Study,
    task: Task,
    selection: Selection,
    prepared: Prepared,
    nearness: tuple[float, Mapping[str, float]] | None,
) -> Facts:
    """Return what the signals need.

    Args:
        study: with all trials measured.
        task: of the study.
        selection: the finalists.
        prepared: the examples and their audit.
        nearness: as `input_novelty` returns it; None without an encoder.

    """
    by_kind: dict[ArmKind, Arm] = {}
    for arm in selection.finalists:
        by_kind.setdefault(arm.kind, arm)
    hybrid, audit, search = by_kind.get("hybrid"), prepared.audit, study.manifest.search
    light_prompt = None
    if isinstance(hybrid, HasPromptlessTwin):
        light_prompt = _difference(study.dev.trials, hybrid.name, hybrid.promptless_name)
    return Facts(
        revisions=revisions(study),
        novelty=None if nearness is None else nearness[0],
        far_slice=None if nearness is None else _far_slice(study.test.trials, nearness[1], by_kind),
        examples=audit.kept,
        captured=sum(count for origin, count in audit.origins.items() if origin != HUMAN),
        thinnest=min((*audit.counts.values(), *audit.thin.values())) if task.answer.kind == "label" else None,
        format=common_format([example.target for example in prepared.split.train], task.answer.kind),
        ceiling=selection.ceiling if selection.ceiling is not None else _last_step(study, selection.winners),
        searched=None if search is None else search.content(),
        light_prompt=light_prompt,
    )


def _difference(trials: Sequence[Trial], arm: str, other: str) -> Interval:
    """Paired difference in score of two arms, the first minus the other."""
    table = tabulate(trials, [arm, other])
    return compare(joint_of(table), [(0, 1)], np.random.default_rng(0))[0].difference


def _far_slice(
    trials: Sequence[Trial], similarity: Mapping[str, float], by_kind: Mapping[ArmKind, Arm]
) -> Interval | None:
    """Trained minus prompted on the least familiar fifth; None where too little of it has both answers."""
    trained = by_kind.get("tuned") or by_kind.get("hybrid")
    prompted = by_kind.get("prompt") or by_kind.get("incumbent")
    if trained is None or prompted is None:
        return None
    try:
        return _difference(_far(trials, similarity), trained.name, prompted.name)
    except (EvidenceError, TrialsError):
        return None


def _far(trials: Sequence[Trial], similarity: Mapping[str, float]) -> list[Trial]:
    """Trials of the fifth of the test items that train is least like; none where that is no sample."""
    ordered = sorted({t.item for t in trials} & similarity.keys(), key=lambda item: similarity[item])
    far = set(ordered[: len(ordered) // 5])
    slice_trials = [trial for trial in trials if trial.item in far]
    return slice_trials if len({trial.cluster or trial.item for trial in slice_trials}) > 1 else []


def _last_step(study: Study, winners: Sequence[Arm]) -> Interval | None:
    """What the last family of prompts gained over the best before it, on dev."""
    if len(winners) < 2:
        return None
    dev = study.dev
    *earlier, last = winners
    best = max(earlier, key=lambda arm: mean_score(dev.of(arm.name)))
    return _difference(dev.trials, last.name, best.name)


def revisions(study: Study) -> int:
    """Return how often instruction or labels changed among this task's recent studies."""
    since = datetime.now(UTC) - timedelta(days=REVISION_DAYS)
    versions = set()
    for path in study.folder.parent.glob(f"*/{MANIFEST}"):
        try:
            manifest = read_manifest(path.parent)
            recent = datetime.fromisoformat(manifest.created) >= since
        except (StudyError, ValueError, TypeError):
            continue  # damaged, or of another version: it says nothing of the requirements
        if manifest.task == study.manifest.task and recent:
            versions.add(json.dumps([manifest.instruction, manifest.labels], sort_keys=True))
    return max(0, len(versions) - 1)


def input_novelty(
    encoder: Encoder, prepared: Prepared, rng: np.random.Generator
) -> tuple[float, dict[str, float]] | None:
    """Return the share of novel test inputs, and each test item's similarity to its nearest in train.

    A test input is novel if it is less like its nearest training input than 95% of those are like theirs.
    Random samples of 2,000 stand for larger sets. None where train has one input.
    """
    split = prepared.split
    known, tested = (
        [part[i] for i in sorted(rng.permutation(len(part))[:MAX_COMPARED_INPUTS].tolist())]
        for part in (split.train, split.test)
    )
    if len(known) < 2:
        return None
    train = encoder.embed([example.input for example in known])
    test = encoder.embed([example.input for example in tested])
    near, threshold = nearest_similarity(train, test)
    items = {e.id: float(value) for e, value in zip(tested, near, strict=True)}
    return float((near < threshold).mean()), items
