"""What a measured study knows beyond its trials: facts for the signals, tables for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.arms import Arm, ArmKind, LightlyPrompted
from tunepoint.candidates import Candidates
from tunepoint.caveats import SHOWN
from tunepoint.cost.prices import OLD_DAYS, ArmCost
from tunepoint.data.examples import HUMAN
from tunepoint.data.formats import common_format
from tunepoint.decisions import Decision, decide, joint_of
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.guards import capped, twins_decide
from tunepoint.measure.prepare import Prepared
from tunepoint.measure.study import Study
from tunepoint.measure.tables import Table, tabulate
from tunepoint.measure.trials import Trial, mean_score
from tunepoint.models.rates import UNKNOWN
from tunepoint.signals import Facts
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import compare, score_intervals
from tunepoint.steps import Selected
from tunepoint.task import Task

if TYPE_CHECKING:  # torch is loaded with the model, not with the package
    from tunepoint.models.encoder import Encoder


def training_warnings(study: Study) -> list[str]:
    """What looked wrong in the training runs, each with its arm and seed; parts of a curve are no arms."""
    parts = {trial.arm for trial in study.curve.trials}
    return [
        f"{name}, seed {seed}: {warning}"
        for name, facts in study.manifest["arms"].items()
        if name not in parts
        for seed, fit in facts["fits"].items()
        for warning in fit["warnings"]
    ]


def model_warnings(study: Study, today: date) -> list[str]:
    """What chat models did on the way that the reader should know."""
    found = []
    for name, facts in study.manifest.get("models", {}).items():
        again = ", ".join(f"{what} ({count})" for what, count in facts["asked_again"].items())
        if again:
            found.append(f"{name}: calls that were asked again or failed: {again}")
        if facts["price"] == UNKNOWN:
            found.append(f"{name}: {UNKNOWN}")
        checked = facts.get("price_checked")
        if checked and (today - date.fromisoformat(checked)).days > OLD_DAYS:
            found.append(
                f"{name}: its price was looked up {(today - date.fromisoformat(checked)).days} days ago "
                f"({checked}, {facts['price']}); [[models]] price overrides it"
            )
    return found


def judge_warnings(study: Study, task: Task, finalists: Sequence[str]) -> list[str]:
    """Test answers that the judge gave no grade, and a judge that grades itself."""
    if task.score.judge is None:
        return []
    found = []
    test = set(study.manifest["items"]["test"])
    for name in finalists:
        why = {i: w for i, w in study.manifest.get("ungraded", {}).get(name, {}).items() if i in test}
        if why:
            shown = "; ".join(f"{item}: {text}" for item, text in list(why.items())[:SHOWN])
            found.append(
                f"{name}: the judge gave no grade to {len(why)} of its answers ({shown}); their items are "
                "left out for every arm"
            )
    if task.score.judge.name in [model.name for model in task.models]:
        found.append(
            f"{task.score.judge.name} grades its own answers too, and models like what they wrote: name "
            "another score.judge, or let people grade"
        )
    return found


def provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Where the decision comes from: versions, seeds, hashes, the opening of the test."""
    keys = ("created", "seed", "task_sha256", "data_sha256", "sealed_test", "machine", "packages")
    return {key: manifest[key] for key in (*keys, "spent_usd")}


def contamination(
    table: Table, costs: Sequence[ArmCost], task: Task, prepared: Prepared, seed: int
) -> dict[str, Any]:
    """Test items with a near duplicate outside the test, and the verdict without them."""
    twins = prepared.split.certificate.twins
    keep = np.array([item not in twins for item in table.items])
    found: dict[str, Any] = {"test_items_with_near_twin": int((~keep).sum()), "score_without_them": {}}
    if keep.all():
        return found
    rest = table.only(keep)
    try:
        clean = decide(rest, costs, task, np.random.default_rng([seed, 3]))
    except EvidenceError as error:
        return {**found, "why_not": str(error)}
    scores = {f.arm: asdict(f.score) for f in clean.finalists}
    return {
        **found,
        "score_without_them": scores,
        "verdict_without_them": clean.verdict,
        "winner_without_them": clean.winner,
    }


def without_copies(decision: Decision, copies: Mapping[str, Any]) -> Decision:
    """The decision, not confident where it changes once near duplicates of train leave the test."""
    clean = copies.get("verdict_without_them"), copies.get("winner_without_them")
    doubts = twins_decide(decision.verdict, decision.winner, *clean)
    caveats = (*doubts, *decision.caveats)
    return replace(decision, strength=capped(decision.strength, doubts), caveats=caveats)


def _difference(trials: Sequence[Trial], one: str, other: str) -> Interval:
    """Paired difference of two arms, one minus other."""
    table = tabulate(trials, [one, other])
    return compare(joint_of(table), [(0, 1)], np.random.default_rng(0))[0].difference


def gather_facts(
    study: Study,
    task: Task,
    tried: Candidates,
    chosen: Selected,
    prepared: Prepared,
    nearness: tuple[float, Mapping[str, float]] | None,
) -> Facts:
    """What the signals need.

    Args:
        study: with all trials measured.
        nearness: as `familiarity` returns it; None without an encoder.

    """
    dev, test = study.dev, study.test
    by_kind: dict[ArmKind, Arm] = {}
    for arm in chosen.finalists:
        by_kind.setdefault(arm.kind, arm)
    novelty = far_slice = light_prompt = None
    if nearness is not None:
        novelty, similarity = nearness
        trained = by_kind.get("tuned") or by_kind.get("hybrid")
        prompted = by_kind.get("prompt") or by_kind.get("incumbent")
        if trained is not None and prompted is not None:
            far_slice = _far_slice(test.trials, similarity, trained.name, prompted.name)
    hybrid = by_kind.get("hybrid")
    if isinstance(hybrid, LightlyPrompted):
        light_prompt = _difference(dev.trials, hybrid.name, hybrid.alone)
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
        ceiling=chosen.ceiling if chosen.ceiling is not None else _last_step(study, chosen.winners),
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


COMPARED = 2_000
"""Inputs of train, and of the test, that are compared at most."""


def familiarity(
    encoder: Encoder, prepared: Prepared, rng: np.random.Generator
) -> tuple[float, dict[str, float]] | None:
    """Share of novel test inputs, and each test item's similarity to its nearest in train.

    A test input is novel if it is less like its nearest training input than 95% of those are like theirs.
    Random samples of 2,000 stand for larger sets. None where train has one input.
    """
    split = prepared.split
    learnt, asked = (
        [part[i] for i in sorted(rng.permutation(len(part))[:COMPARED].tolist())]
        for part in (split.train, split.test)
    )
    if len(learnt) < 2:
        return None
    train = encoder.embed([example.input for example in learnt])
    test = encoder.embed([example.input for example in asked])
    among = train @ train.T
    np.fill_diagonal(among, -1.0)
    usual = float(np.quantile(among.max(axis=1), 0.05))
    near: NDArray[np.float32] = (test @ train.T).max(axis=1)
    items = {e.id: float(value) for e, value in zip(asked, near, strict=True)}
    return float((near < usual).mean()), items


def ladder(study: Study, tried: Candidates, winners: Sequence[Arm] = ()) -> list[dict[str, Any]]:
    """Every candidate with its dev score, for the table of arms."""
    rows: list[dict[str, Any]] = []
    races: Mapping[str, Any] = study.manifest.get("races", {})
    for arm in {arm.name: arm for arm in (*tried.arms, *winners)}.values():
        trials = study.dev.of(arm.name)
        if len({trial.cluster or trial.item for trial in trials}) < 2:
            continue
        score = _interval(trials)
        rows.append(
            {
                "arm": arm.name,
                "family": arm.family,
                "kind": arm.kind,
                "items": len({trial.item for trial in trials}),
                "dev_score": score.estimate,
                "low": score.low,
                "high": score.high,
                "stopped_by": races.get(arm.name, {}).get("stopped_by"),
            }
        )
    return rows


def _interval(trials: Sequence[Trial]) -> Interval:
    """Mean score of one arm with its 95% interval."""
    return score_intervals(joint_of(tabulate(trials)), np.random.default_rng(0), draws=4_000)[0]


def disagreements(
    prepared: Prepared, table: Table, trials: Sequence[Trial], most: int = 12
) -> list[dict[str, Any]]:
    """Test examples on which the finalists differ most, with every finalist's answer."""
    means = np.stack([arm.scores.mean(axis=0) for arm in table.arms])
    spread = means.std(axis=0)
    answers = {(t.arm, t.item): t.answer for t in reversed(trials)}
    examples = {example.id: example for example in prepared.split.test}
    shown = [i for i in np.argsort(-spread, kind="stable")[:most].tolist() if spread[i] > 0]
    return [
        {
            "item": table.items[i],
            "input": examples[table.items[i]].input,
            "target": examples[table.items[i]].target,
            "answers": {name: answers[name, table.items[i]] for name in table.names},
        }
        for i in shown
    ]
