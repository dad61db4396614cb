"""What a measured study knows beyond its trials: facts for the signals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from tunepoint.arms.contract import Arm, HasPromptlessTwin
from tunepoint.data.examples import HUMAN, Example
from tunepoint.data.formats import common_format
from tunepoint.data.prepare import Prepared
from tunepoint.decision.signals import Facts
from tunepoint.errors import EvidenceError, StudyError
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.novelty import MAX_COMPARED_INPUTS, nearest_similarity
from tunepoint.study.directory import Study
from tunepoint.study.labelling.inputs import PoolInputs
from tunepoint.study.manifest import MANIFEST, read_manifest
from tunepoint.study.selection import Selection
from tunepoint.task.task import Task
from tunepoint.trials.judge_quality import calibrate
from tunepoint.trials.table import Table, joint_of
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import ArmKind, Trial, mean_score

if TYPE_CHECKING:
    from tunepoint.models.encoder import Encoder


MIN_TRAFFIC = 50
"""Inputs of a pool from which they say better than the test set how much of the traffic looks new."""
REVISION_DAYS = 30
"""Age of a study up to which its requirements count as recent."""


@dataclass(frozen=True)
class Nearness:
    """How like the training inputs others are."""

    novelty: float
    """Share of the inputs that are novel."""
    inputs: int
    """Inputs of which that is the share."""
    traffic: bool
    """Whether those are the pool's; else they are the test set's."""
    similarity: Mapping[str, float]
    """Item of the test set or the pool -> similarity to its nearest training input."""


def signal_facts(
    study: Study,
    task: Task,
    selection: Selection,
    prepared: Prepared,
    table: Table,
    nearness: Nearness | None,
) -> Facts:
    """Return what the signals need.

    Args:
        study: with all trials measured.
        task: of the study.
        selection: the finalists.
        prepared: the examples and their audit.
        table: trials of the finalists.
        nearness: as `input_novelty` returns it; None without an encoder.

    """
    by_kind: dict[ArmKind, Arm] = {}
    for arm in selection.finalists:
        by_kind.setdefault(arm.kind, arm)
    hybrid, audit, search = by_kind.get("hybrid"), prepared.audit, study.manifest.search
    tested = study.manifest.headroom
    light_prompt = None
    if isinstance(hybrid, HasPromptlessTwin):
        light_prompt = _difference(study.dev.trials, hybrid.name, hybrid.promptless_name)
    return Facts(
        revisions=revisions(study),
        novelty=None if nearness is None else nearness.novelty,
        compared_inputs=None if nearness is None else (nearness.inputs, nearness.traffic),
        far_slice=None if nearness is None else _far_slice(table, nearness.similarity, by_kind),
        examples=audit.kept,
        captured=sum(count for origin, count in audit.origins.items() if origin != HUMAN),
        thinnest=min((*audit.counts.values(), *audit.thin.values())) if task.answer.kind == "label" else None,
        format=common_format([example.target for example in prepared.split.train], task.answer.kind),
        ceiling=selection.ceiling if selection.ceiling is not None else _last_step(study, selection.winners),
        searched=None if search is None else search.content(),
        headroom=None if tested is None or search is not None else tested.content(),
        light_prompt=light_prompt,
    )


def _difference(trials: Sequence[Trial], arm: str, other: str) -> Interval:
    """Paired difference in score of two arms, the first minus the other."""
    return _lead(tabulate(trials, [arm, other]), arm, other)


def _lead(table: Table, arm: str, other: str) -> Interval:
    pair = (table.names.index(arm), table.names.index(other))
    return compare(joint_of(table), [pair], np.random.default_rng(0))[0].difference


def _far_slice(
    table: Table, similarity: Mapping[str, float], by_kind: Mapping[ArmKind, Arm]
) -> Interval | None:
    """Trained minus prompted on the least familiar fifth; None where too little of it has both answers."""
    trained = by_kind.get("tuned") or by_kind.get("hybrid")
    prompted = by_kind.get("prompt") or by_kind.get("incumbent")
    if trained is None or prompted is None:
        return None
    try:
        return _lead(_far(calibrate(table)[0], similarity), trained.name, prompted.name)
    except EvidenceError:
        return None


def _far(table: Table, similarity: Mapping[str, float]) -> Table:
    """The fifth of the test items that train is least like, and what of the pool is no more like it."""
    ordered = sorted(similarity.keys() & set(table.items), key=lambda item: similarity[item])
    far = ordered[: len(ordered) // 5]
    limit = similarity[far[-1]] if far else -np.inf
    inputs = () if table.pool is None else table.pool.inputs
    of_pool = np.array([similarity.get(name, np.inf) <= limit for name in inputs], dtype=bool)
    return table.subset(np.isin(table.items, far), of_pool if inputs else None)


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
    encoder: Encoder, prepared: Prepared, rng: np.random.Generator, pool: PoolInputs | None = None
) -> Nearness | None:
    """Return how many inputs look new, and how like its nearest training input each one is.

    An input is novel if it is less like its nearest training input than 95% of those are like theirs. The
    inputs are those of the pool, which may be traffic as it comes: a test set that is drawn from the same
    examples as the training set can hardly look new. With fewer than `MIN_TRAFFIC` of them they are the test
    set's. Random samples of 2,000 stand for larger sets. None where train has one input.
    """

    def sample(part: Sequence[Example]) -> list[Example]:
        return [part[i] for i in sorted(rng.permutation(len(part))[:MAX_COMPARED_INPUTS].tolist())]

    known, tested = sample(prepared.split.train), sample(prepared.split.test)
    if len(known) < 2:
        return None
    traffic = sample([] if pool is None else [*pool.asked, *pool.familiar])
    train = encoder.embed([example.input for example in known])
    near, threshold = nearest_similarity(train, encoder.embed([e.input for e in (*tested, *traffic)]))
    similarity = {e.id: float(value) for e, value in zip((*tested, *traffic), near, strict=True)}
    by_traffic = len(traffic) >= MIN_TRAFFIC
    compared = near[len(tested) :] if by_traffic else near[: len(tested)]
    return Nearness(float((compared < threshold).mean()), len(compared), by_traffic, similarity)
