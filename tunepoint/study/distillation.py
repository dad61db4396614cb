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

from tunepoint.arms.catalog import Candidates
from tunepoint.arms.causal.rows import FEWEST
from tunepoint.arms.contract import Arm, NotRun
from tunepoint.arms.distilled import Lesson
from tunepoint.arms.prompting.chains import Chain
from tunepoint.arms.prompting.chat_prompts import Ladder
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable
from tunepoint.files.text import make_folder, write_text
from tunepoint.models.chat import Usage
from tunepoint.study.bench import Bench
from tunepoint.trials.trial import mean_score

KEPT = "taught.jsonl"
"""In the study's `arms`: the answers that were trained on, and who wrote them."""


def taught(bench: Bench, tried: Candidates, winners: Sequence[Arm]) -> Candidates:
    """The candidates with those that learn from the best prompted arm.

    Args:
        winners: the best arm of each prompting family, all of dev behind each.

    """
    if not tried.pupils:
        return tried
    prompted = [arm for arm in winners if isinstance(arm, Ladder | Chain)]
    if not prompted:
        return _without(tried, "no chat model is prompted that it could learn from ([[models]])")
    allowed = {model.name for model in bench.task.models if model.train_on_outputs}
    teachers = [arm for arm in prompted if arm.model.name in allowed]
    if not teachers:
        names = ", ".join(sorted({arm.model.name for arm in prompted}))
        return _without(
            tried,
            f"it would learn from {names}: say [[models]] train_on_outputs = true there if the terms of "
            "its provider let you train on what it writes",
        )
    teacher = max(teachers, key=lambda arm: mean_score(bench.study.dev.of(arm.name)))
    lesson = _kept(bench, teacher) or teach(bench, teacher)
    if len(lesson.examples) < FEWEST:
        accept = f"{bench.task.score.accept:g}"
        return _without(
            tried,
            f"{len(lesson.examples)} of {lesson.asked} answers of {teacher.name} score {accept} or more "
            f"(score.accept), and {FEWEST} are the fewest to train on",
        )
    instruction = teacher.instruction if isinstance(teacher, Ladder) else None
    arms = [arm for pupil in tried.pupils for arm in pupil(lesson, instruction)]
    return replace(
        tried,
        tuned=(*tried.tuned, *(arm for arm in arms if arm.kind == "tuned")),
        hybrid=(*tried.hybrid, *(arm for arm in arms if arm.kind == "hybrid")),
    )


def _without(tried: Candidates, why: str) -> Candidates:
    return replace(tried, not_run=(*tried.not_run, NotRun("tuned on the best prompt's answers", why)))


@dataclass(frozen=True)
class _Answer:
    """An answer that the scorer accepted."""

    example: Example
    answer: str
    score: float


def teach(bench: Bench, teacher: Ladder | Chain) -> Lesson:
    """Ask the teacher the inputs of train, and keep what scores `score.accept` or more.

    Each half of train is answered by a prompt whose demonstrations come from the other one: it
    would read its own answers there. A model with several decodes tries again what was not accepted.
    """
    task, seed = bench.task, int(bench.study.manifest["seed"])
    train = trainable(task, bench.prepared.split.train)
    halves = _halves(train, bench.prepared.split.clusters, np.random.default_rng([seed, 11]))
    bench.progress(f"{teacher.name} answers the inputs of train", bench.done_seconds, bench.planned_seconds)
    accepted: list[_Answer] = []
    spent = 0.0
    for asked, shown in (halves, halves[::-1]):
        left = asked
        for decode in range(teacher.decodes):
            fitted = teacher.decoded(decode).fit(task, shown, np.random.default_rng([seed, 0]))
            replies = fitted.answer([example.input for example in left])
            gradings = bench.grade(replies, left)
            spent += sum(_usd(bench, reply.usage) for reply in replies)
            spent += sum(_usd(bench, one.usage) for one in gradings if one.usage is not None)
            good = [
                _Answer(example, reply.answer, one.score)
                for example, reply, one in zip(left, replies, gradings, strict=True)
                if one.score is not None and one.score >= task.score.accept and reply.answer is not None
            ]
            accepted += good
            done = {one.example.id for one in good}
            left = [example for example in left if example.id not in done]
    version = _version(bench, teacher, train)
    place = {example.id: i for i, example in enumerate(train)}
    accepted.sort(key=lambda one: place[one.example.id])
    lesson = Lesson(
        teacher.name,
        version,
        tuple(
            replace(one.example, target=one.answer, origin=f"{teacher.model.name}, prompt {version}")
            for one in accepted
        ),
        len(train),
        spent,
    )
    _keep(bench, lesson, accepted)
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


def _usd(bench: Bench, usage: Usage) -> float:
    price = bench.prices.get(usage.model)
    return 0.0 if price is None else price.dollars(usage)


def _version(bench: Bench, teacher: Ladder | Chain, train: Sequence[Example]) -> str:
    """First digits of a SHA-256 over the arm's name and all that its prompts have in common."""
    template = teacher.fit(bench.task, train, np.random.default_rng(0)).template
    words = json.dumps([teacher.name, asdict(template)], sort_keys=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _kept(bench: Bench, teacher: Ladder | Chain) -> Lesson | None:
    """The lesson that this study was taught before: models were trained on it, so it stays as it was."""
    facts, path = bench.study.manifest.get("taught"), bench.study.folder / "arms" / KEPT
    if facts is None or facts["teacher"] != teacher.name or not path.exists():
        return None
    inputs = {example.id: example for example in bench.prepared.split.train}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    examples = tuple(replace(inputs[row["id"]], target=row["target"], origin=row["origin"]) for row in rows)
    return Lesson(teacher.name, facts["prompt"], examples, facts["asked"], facts["usd"])


def _keep(bench: Bench, lesson: Lesson, accepted: Sequence[_Answer]) -> None:
    """Write what is trained on beside the weights, and the sums into the manifest."""
    folder = bench.study.folder / "arms"
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
        for example, one in zip(lesson.examples, accepted, strict=True)
    ]
    write_text(folder / KEPT, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    bench.study.manifest["taught"] = {
        "teacher": lesson.teacher,
        "prompt": lesson.version,
        "asked": lesson.asked,
        "accepted": len(rows),
        "usd": lesson.usd,
    }
    bench.study.save()
