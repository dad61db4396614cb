"""Distillation: a model learns from the answers of the best prompted one, and gets a light prompt.

The steps of BetterTogether (Soylu, Potts and Khattab 2024), each an arm of its own: the prompt is
optimized, its answers to the training inputs are kept where the scorer accepts them, a model is
trained on those, and dev chooses among prompts of the tuned model, the optimized instruction one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.causal.rows import MIN_TRAINING_EXAMPLES
from tunepoint.arms.contract import Arm, NotRun
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.prompting.chains import Chain
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable
from tunepoint.files.text import make_folder, write_text
from tunepoint.stats.streams import Stream
from tunepoint.study.records import Taught
from tunepoint.study.runner import Runner
from tunepoint.trials.trial import mean_score

DISTILLED_ROWS = "taught.jsonl"
"""In the study's `arms`: the answers that were trained on, and who wrote them."""
Teacher = ChatPrompt | Chain


def add_distilled(runner: Runner, candidates: CandidateArms, winners: Sequence[Arm]) -> CandidateArms:
    """Return the candidates with those that learn from the best prompted arm.

    Args:
        winners: the best arm of each prompting family, all of dev behind each.

    """
    if not candidates.distillers:
        return candidates
    prompted = [arm for arm in winners if isinstance(arm, Teacher)]
    if not prompted:
        return _not_distilled(candidates, "no chat model is prompted that it could learn from ([[models]])")
    allowed = {model.name for model in runner.task.models if model.train_on_outputs}
    teachers = [arm for arm in prompted if arm.model.name in allowed]
    if not teachers:
        names = ", ".join(sorted({arm.model.name for arm in prompted}))
        return _not_distilled(
            candidates,
            f"it would learn from {names}: set [[models]] train_on_outputs = true there if the terms of "
            "its provider let you train on what it writes",
        )
    teacher = max(teachers, key=lambda arm: mean_score(runner.study.dev.of(arm.name)))
    distilled = _distilled_before(runner, teacher) or distil(runner, teacher)
    if len(distilled.examples) < MIN_TRAINING_EXAMPLES:
        accept = f"{runner.task.score.accept:g}"
        return _not_distilled(
            candidates,
            f"{len(distilled.examples)} of {distilled.labels} answers of {teacher.label} score {accept} or "
            f"more (score.accept), and {MIN_TRAINING_EXAMPLES} are the fewest to train on",
        )
    instruction = teacher.instruction if isinstance(teacher, ChatPrompt) else None
    arms = [arm for distiller in candidates.distillers for arm in distiller(distilled, instruction)]
    return replace(
        candidates,
        tuned=(*candidates.tuned, *(arm for arm in arms if arm.kind == "tuned")),
        hybrid=(*candidates.hybrid, *(arm for arm in arms if arm.kind == "hybrid")),
    )


def _not_distilled(candidates: CandidateArms, why: str) -> CandidateArms:
    not_run = NotRun("tuned on the best prompt's answers", why)
    return replace(candidates, not_run=(*candidates.not_run, not_run))


@dataclass(frozen=True)
class _AcceptedAnswer:
    """An answer that the scorer accepted."""

    example: Example
    answer: str
    score: float


def distil(runner: Runner, teacher: Teacher) -> DistilledSet:
    """Have the teacher answer the training inputs, and keep what scores `score.accept` or more.

    Each half of the training set is answered by a prompt whose demonstrations come from the other
    half: a prompt that shows an input with its answer would repeat it.
    """
    train = trainable(runner.task, runner.prepared.split.train)
    rng = runner.study.rng(Stream.DISTILLATION)
    first, second = _halves(train, runner.prepared.split.clusters, rng)
    runner.announce(f"{teacher.label} answers the training inputs")
    accepted: list[_AcceptedAnswer] = []
    usd = 0.0
    for inputs, demonstrations in ((first, second), (second, first)):
        answers, dollars = _accepted_answers(runner, teacher, inputs, demonstrations)
        accepted += answers
        usd += dollars
    version = _prompt_version(runner, teacher, train)
    place = {example.id: i for i, example in enumerate(train)}
    accepted.sort(key=lambda answer: place[answer.example.id])
    origin = f"{teacher.model.name}, prompt {version}"
    examples = [replace(answer.example, target=answer.answer, origin=origin) for answer in accepted]
    distilled = DistilledSet(teacher.name, version, tuple(examples), len(train), usd)
    _save(runner, distilled, accepted)
    return distilled


def _accepted_answers(
    runner: Runner, teacher: Teacher, examples: Sequence[Example], demonstrations: Sequence[Example]
) -> tuple[list[_AcceptedAnswer], float]:
    """Answers to these examples that the scorer accepted, and the dollars of all answers.

    A model with several decodes tries again what was not accepted.
    """
    task, pending = runner.task, list(examples)
    accepted: list[_AcceptedAnswer] = []
    usd = 0.0
    for decode in range(teacher.decodes):
        fitted = teacher.decoded(decode).fit(task, demonstrations, runner.study.rng(Stream.FIT))
        replies = fitted.answer([example.input for example in pending])
        gradings = runner.grade(replies, pending)
        usd += sum(runner.usd(reply.usage) for reply in replies)
        usd += sum(runner.usd(grading.usage) for grading in gradings if grading.usage is not None)
        good = [
            _AcceptedAnswer(example, reply.answer, grading.score)
            for example, reply, grading in zip(pending, replies, gradings, strict=True)
            if grading.score is not None and grading.score >= task.score.accept and reply.answer is not None
        ]
        accepted += good
        done = {answer.example.id for answer in good}
        pending = [example for example in pending if example.id not in done]
    return accepted, usd


def _halves(
    train: Sequence[Example], clusters: Mapping[str, str], rng: np.random.Generator
) -> tuple[list[Example], list[Example]]:
    """The training set in two parts; no cluster is in both, where there are two clusters."""
    if len({clusters[example.id] for example in train}) < 2:
        clusters = {example.id: example.id for example in train}  # all of one cluster: by single examples
    names = sorted({clusters[example.id] for example in train})
    first = {names[i] for i in rng.permutation(len(names))[: len(names) // 2].tolist()}
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in train:
        parts[clusters[example.id] not in first].append(example)
    return parts


def _prompt_version(runner: Runner, teacher: Teacher, train: Sequence[Example]) -> str:
    """First digits of a SHA-256 over the arm's name and all that its prompts have in common."""
    template = teacher.fit(runner.task, train, np.random.default_rng(0)).template
    words = json.dumps([teacher.name, asdict(template)], sort_keys=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _distilled_before(runner: Runner, teacher: Teacher) -> DistilledSet | None:
    """The set that an earlier run of the study distilled: models were trained on it, so it stays."""
    taught = runner.study.manifest.taught
    if taught is None or taught.teacher != teacher.name:
        return None
    return read_distilled(runner.study.folder, taught, runner.prepared.split.train)


def read_distilled(study: Path, taught: Taught, train: Sequence[Example]) -> DistilledSet | None:
    """Return the set that a study has distilled; None if its file is gone.

    Args:
        study: its directory.
        taught: what its manifest says of the set.
        train: the training set.

    """
    path = study / "arms" / DISTILLED_ROWS
    if not path.exists():
        return None
    inputs = {example.id: example for example in train}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    examples = tuple(replace(inputs[row["id"]], target=row["target"], origin=row["origin"]) for row in rows)
    return DistilledSet(taught.teacher, taught.prompt, examples, taught.asked, taught.usd)


def _save(runner: Runner, distilled: DistilledSet, accepted: Sequence[_AcceptedAnswer]) -> None:
    """Write what is trained on beside the weights, and the sums into the manifest."""
    folder = runner.study.folder / "arms"
    make_folder(folder)
    rows = [
        {
            "id": example.id,
            "input": example.input,
            "target": example.target,
            "origin": example.origin,
            "licence": example.licence,
            "score": round(answer.score, 6),
        }
        for example, answer in zip(distilled.examples, accepted, strict=True)
    ]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / DISTILLED_ROWS, "".join(lines))
    taught = Taught(
        teacher=distilled.teacher,
        prompt=distilled.version,
        asked=distilled.labels,
        accepted=len(rows),
        usd=distilled.usd,
    )
    runner.study.update(taught=taught)
