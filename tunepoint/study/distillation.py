"""Prompt, then weights, then prompt: a model learns from the best prompted one, and gets a light prompt.

The steps of BetterTogether (Soylu, Potts and Khattab 2024), each an arm of its own: the prompt is
optimised, its answers to the inputs of train are kept where the scorer accepts them, a model is
trained on those, and dev chooses among prompts of the tuned model, the optimised instruction one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.causal.rows import FEWEST
from tunepoint.arms.contract import Arm, NotRun
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.prompting.chains import Chain
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable
from tunepoint.files.text import make_folder, write_text
from tunepoint.models.chat import Usage
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.bench import Runner
from tunepoint.trials.trial import mean_score

KEPT = "taught.jsonl"
"""In the study's `arms`: the answers that were trained on, and who wrote them."""


def add_distilled(runner: Runner, candidates: CandidateArms, winners: Sequence[Arm]) -> CandidateArms:
    """The candidates with those that learn from the best prompted arm.

    Args:
        winners: the best arm of each prompting family, all of dev behind each.

    """
    if not candidates.pupils:
        return candidates
    prompted = [arm for arm in winners if isinstance(arm, ChatPrompt | Chain)]
    if not prompted:
        return _without(candidates, "no chat model is prompted that it could learn from ([[models]])")
    allowed = {model.name for model in runner.task.models if model.train_on_outputs}
    teachers = [arm for arm in prompted if arm.model.name in allowed]
    if not teachers:
        names = ", ".join(sorted({arm.model.name for arm in prompted}))
        return _without(
            candidates,
            f"it would learn from {names}: say [[models]] train_on_outputs = true there if the terms of "
            "its provider let you train on what it writes",
        )
    teacher = max(teachers, key=lambda arm: mean_score(runner.study.dev.of(arm.name)))
    lesson = _kept(runner, teacher) or distil(runner, teacher)
    if len(lesson.examples) < FEWEST:
        accept = f"{runner.task.score.accept:g}"
        return _without(
            candidates,
            f"{len(lesson.examples)} of {lesson.asked} answers of {teacher.name} score {accept} or more "
            f"(score.accept), and {FEWEST} are the fewest to train on",
        )
    instruction = teacher.instruction if isinstance(teacher, ChatPrompt) else None
    arms = [arm for pupil in candidates.pupils for arm in pupil(lesson, instruction)]
    return replace(
        candidates,
        tuned=(*candidates.tuned, *(arm for arm in arms if arm.kind == "tuned")),
        hybrid=(*candidates.hybrid, *(arm for arm in arms if arm.kind == "hybrid")),
    )


def _without(candidates: CandidateArms, why: str) -> CandidateArms:
    return replace(
        candidates, not_run=(*candidates.not_run, NotRun("tuned on the best prompt's answers", why))
    )


@dataclass(frozen=True)
class _Answer:
    """An answer that the scorer accepted."""

    example: Example
    answer: str
    score: float


def distil(runner: Runner, teacher: ChatPrompt | Chain) -> DistilledSet:
    """Ask the teacher the inputs of train, and keep what scores `score.accept` or more.

    Each half of train is answered by a prompt whose demonstrations come from the other one: it
    would read its own answers there. A model with several decodes tries again what was not accepted.
    """
    task, seed = runner.task, int(runner.study.manifest["seed"])
    train = trainable(task, runner.prepared.split.train)
    halves = _halves(train, runner.prepared.split.clusters, stream(seed, Stream.DISTILLATION))
    runner.progress(
        f"{teacher.name} answers the inputs of train", runner.done_seconds, runner.planned_seconds
    )
    accepted: list[_Answer] = []
    spent = 0.0
    for asked, shown in (halves, halves[::-1]):
        left = asked
        for decode in range(teacher.decodes):
            fitted = teacher.decoded(decode).fit(task, shown, stream(seed, Stream.FIT))
            replies = fitted.answer([example.input for example in left])
            gradings = runner.grade(replies, left)
            spent += sum(_usd(runner, reply.usage) for reply in replies)
            spent += sum(_usd(runner, one.usage) for one in gradings if one.usage is not None)
            good = [
                _Answer(example, reply.answer, one.score)
                for example, reply, one in zip(left, replies, gradings, strict=True)
                if one.score is not None and one.score >= task.score.accept and reply.answer is not None
            ]
            accepted += good
            done = {one.example.id for one in good}
            left = [example for example in left if example.id not in done]
    version = _version(runner, teacher, train)
    place = {example.id: i for i, example in enumerate(train)}
    accepted.sort(key=lambda one: place[one.example.id])
    lesson = DistilledSet(
        teacher.name,
        version,
        tuple(
            replace(one.example, target=one.answer, origin=f"{teacher.model.name}, prompt {version}")
            for one in accepted
        ),
        len(train),
        spent,
    )
    _keep(runner, lesson, accepted)
    return lesson


def _halves(
    train: Sequence[Example], clusters: Mapping[str, str], rng: np.random.Generator
) -> tuple[list[Example], list[Example]]:
    """Train in two parts, no cluster in both where there are two."""
    if len({clusters[example.id] for example in train}) < 2:
        clusters = {example.id: example.id for example in train}  # all of one cluster: by single examples
    names = sorted({clusters[example.id] for example in train})
    first = {names[i] for i in rng.permutation(len(names))[: len(names) // 2].tolist()}
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in train:
        parts[clusters[example.id] not in first].append(example)
    return parts


def _usd(runner: Runner, usage: Usage) -> float:
    price = runner.prices.get(usage.model)
    return 0.0 if price is None else price.dollars(usage)


def _version(runner: Runner, teacher: ChatPrompt | Chain, train: Sequence[Example]) -> str:
    """First digits of a SHA-256 over the arm's name and all that its prompts have in common."""
    template = teacher.fit(runner.task, train, np.random.default_rng(0)).template
    words = json.dumps([teacher.name, asdict(template)], sort_keys=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _kept(runner: Runner, teacher: ChatPrompt | Chain) -> DistilledSet | None:
    """The lesson that this study was taught before: models were trained on it, so it stays as it was."""
    facts, path = runner.study.manifest.get("taught"), runner.study.folder / "arms" / KEPT
    if facts is None or facts["teacher"] != teacher.name or not path.exists():
        return None
    inputs = {example.id: example for example in runner.prepared.split.train}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    examples = tuple(replace(inputs[row["id"]], target=row["target"], origin=row["origin"]) for row in rows)
    return DistilledSet(teacher.name, facts["prompt"], examples, facts["asked"], facts["usd"])


def _keep(runner: Runner, distilled: DistilledSet, accepted: Sequence[_Answer]) -> None:
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
            "score": round(one.score, 6),
        }
        for example, one in zip(distilled.examples, accepted, strict=True)
    ]
    write_text(folder / KEPT, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    runner.study.manifest["taught"] = {
        "teacher": distilled.teacher,
        "prompt": distilled.version,
        "asked": distilled.asked,
        "accepted": len(rows),
        "usd": distilled.usd,
    }
    runner.study.save()
