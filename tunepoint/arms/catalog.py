"""Which arms are tried on a task, and which are not, because ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunepoint.arms.contract import Arm, HasLearningCurve, NotRun
from tunepoint.arms.distilled import Pupil
from tunepoint.arms.incumbent import Incumbent
from tunepoint.arms.prompting.chains import CHAINS, Chain
from tunepoint.arms.prompting.chat_prompts import PROMPT_STYLES, ChatPrompt
from tunepoint.arms.prompting.demonstrations import FewShot, RetrievedFewShot
from tunepoint.arms.prompting.instructions import Described, ZeroShot
from tunepoint.arms.prompting.similarity import word_vectors
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable
from tunepoint.errors import DataError, MissingExtra, TaskError
from tunepoint.models.chat import ChatModel, Embed
from tunepoint.models.embedded import CPU_TORCH, installed_encoder
from tunepoint.models.providers import LOCAL, address, short_names
from tunepoint.models.templates import TEMPLATES
from tunepoint.task.sections import EMBEDDED, RECORDED
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.encoder.classifier import FineTuned
    from tunepoint.models.encoder import Encoder


MOST_FINALISTS = 5
SHARES = (0.06, 0.15, 0.4)
"""Sizes of the learning curve below the whole of train."""


@dataclass(frozen=True)
class CandidateArms:
    """Arms in the order of their cost, and what was left out."""

    prompting: tuple[Arm, ...]
    """Those that the embedded encoder answers."""
    tuned: tuple[Arm, ...]
    hybrid: tuple[Arm, ...]
    not_run: tuple[NotRun, ...]
    raced: tuple[Arm, ...] = ()
    """Those that call a chat model: they race on dev, for every call costs money."""
    incumbents: tuple[Incumbent, ...] = ()
    """What runs today, from its log."""
    fine_tuned: FineTuned | None = None
    """The encoder with a head, which hybrids and its own answers share."""
    growing: HasLearningCurve | None = None
    """The arm whose learning curve is drawn."""
    pupils: tuple[Pupil, ...] = ()
    """Models that learn from the best prompted arm, once it is known."""
    encoder: Encoder | None = field(default=None, repr=False)

    @property
    def local(self) -> tuple[Arm, ...]:
        """All arms that are measured on the whole of dev."""
        return (*self.prompting, *self.tuned, *self.hybrid)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms."""
        return (*self.local, *self.raced, *self.incumbents)


def chat_names(task: Task) -> list[str]:
    """The chat models that a task names."""
    return [model.name for model in task.models if not model.name.startswith((EMBEDDED, RECORDED))]


def check_supported(task: Task) -> None:
    """Refuse what the arms of this version cannot do.

    Raises:
        TaskError: nothing that the task names gives answers of its kind.
        ModelError: the name of a model cannot be read.

    """
    others = [task.search.proposer, task.score.judge.name if task.score.judge else None]
    for name in (*chat_names(task), *(name for name in others if name)):
        if not name.startswith(LOCAL):
            address(name)
    kind = task.answer.kind
    if kind == "label" or chat_names(task) or task.tune or (kind == "json" and task.logs()):
        return
    encoder = "only chooses labels"
    if kind == "json":
        encoder = "finds what stands in the input, which needs another arm to be compared with"
    raise TaskError(
        f"answer.kind {kind!r} needs a model that writes text, and the embedded encoder {encoder}: "
        'name one, as in [[models]] name = "openai/gpt-5-mini", or tune one ([[tune]] base), or name the '
        'log of what runs today ([[models]] name = "recorded:LOG.jsonl"), or measure with your own tool: '
        "`tunepoint decide --trials`"
    )


def load_encoder(task: Task) -> Encoder | None:
    """The embedded encoder, where it can give the task's answers: labels, or JSON that stands in the input.

    Raises:
        TaskError: as `check_supported`.
        MissingExtra: the packages that run the encoder, or its weights, are not installed.
        ModelError: the weights are incomplete or altered.

    """
    check_supported(task)
    if task.answer.kind not in ("label", "json"):
        return None
    if task.answer.kind == "json" and (chat_names(task) or task.tune):
        return installed_encoder()  # others can answer, and it may be missing
    try:
        from tunepoint.models.encoder import Encoder
    except ImportError as error:
        raise MissingExtra(f"the embedded encoder needs {error.name}", "tune", CPU_TORCH) from None
    return Encoder.load()


def candidates(
    task: Task,
    encoder: Encoder | None,
    chats: Sequence[ChatModel],
    train: Sequence[Example],
    dev: Sequence[Example],
    keep: Path | None,
) -> CandidateArms:
    """The arms of a task.

    Args:
        encoder: prompted where the task names it, tuned wherever the task has labels or extracts.
        chats: chat models, prompted in every way.
        train: says how many demonstrations there can be.
        dev: inputs that selection asks again and again.
        keep: folder for finished training runs.

    """
    from_chats = raced_arms(task, chats, encoder.embed if encoder else word_vectors(train))
    not_run = list(_not_run(task, bool(chats), encoder is not None))
    if encoder is None:
        return CandidateArms((), (), (), tuple(not_run), from_chats)
    if task.answer.kind == "json":
        return _extracting(task, encoder, tuple(not_run), from_chats, train, keep)
    near = [k for k in (8, 32) if k <= len(train)] or [len(train)]
    prompting: tuple[Arm, ...] = ()
    if EMBEDDED in [model.name for model in task.models]:
        prompting = _encoder_prompts(task, encoder, train, near)
        if not any((task.answer.labels or {}).values()):
            not_run.append(NotRun("described", "the task has no label descriptions ([answer.labels])"))
    closed = why_closed(task, train)
    if closed is not None:
        not_run += [NotRun(name, closed) for name in ("probe", "fine-tuned encoder", "tuned + light prompt")]
        return CandidateArms(prompting, (), (), tuple(not_run), from_chats, encoder=encoder)
    return _trained(encoder, prompting, not_run, from_chats, near[0], dev, keep)


def _trained(
    encoder: Encoder,
    prompting: tuple[Arm, ...],
    not_run: Sequence[NotRun],
    raced: tuple[Arm, ...],
    near: int,
    dev: Sequence[Example],
    keep: Path | None,
) -> CandidateArms:
    """The arms of a task with labels, those among them that train the encoder."""
    from tunepoint.arms.encoder.classifier import FineTuned, Probe
    from tunepoint.arms.encoder.hybrids import TunedWithNames, TunedWithRetrieval

    fine_tuned = FineTuned(encoder, keep=keep, familiar=tuple(example.input for example in dev))
    hybrid: list[Arm] = [TunedWithNames(fine_tuned, 0.1), TunedWithNames(fine_tuned, 0.3)]
    hybrid += [TunedWithRetrieval(fine_tuned, near, weight) for weight in (0.2, 0.5)]
    return CandidateArms(
        prompting,
        (Probe(encoder), fine_tuned),
        tuple(hybrid),
        tuple(not_run),
        raced,
        fine_tuned=fine_tuned,
        growing=fine_tuned,
        encoder=encoder,
    )


def why_closed(task: Task, train: Sequence[Example]) -> str | None:
    """Why nothing is tuned: no example may be trained on. None where some may."""
    try:
        trainable(task, train)
    except DataError as error:
        return str(error)
    return None


def _extracting(
    task: Task,
    encoder: Encoder,
    not_run: tuple[NotRun, ...],
    raced: tuple[Arm, ...],
    train: Sequence[Example],
    keep: Path | None,
) -> CandidateArms:
    """The arms of a task whose answers are JSON: the encoder finds what stands in the input."""
    from tunepoint.arms.encoder.extraction import SpanTagger
    from tunepoint.arms.encoder.fields import Fields

    try:
        fields = Fields.read(trainable(task, train))
    except DataError as error:
        return CandidateArms(
            (), (), (), (*not_run, NotRun("span encoder", str(error))), raced, encoder=encoder
        )
    spans = SpanTagger(encoder, fields=fields, keep=keep)
    return CandidateArms((), (spans,), (), not_run, raced, growing=spans, encoder=encoder)


def _encoder_prompts(
    task: Task, encoder: Encoder, train: Sequence[Example], near: Sequence[int]
) -> tuple[Arm, ...]:
    """What the embedded encoder can be prompted with."""
    per_label = max(1, len(train) // max(1, len({example.target for example in train})))
    shots = [k for k in (1, 3, 5, 10) if k <= per_label] or [1]
    arms: list[Arm] = [ZeroShot(encoder)]
    if any((task.answer.labels or {}).values()):
        arms.append(Described(encoder))
    arms += [FewShot(encoder, k) for k in shots]
    arms += [RetrievedFewShot(encoder, k, weight) for k in near for weight in (0.5, 0.7, 0.9)]
    return tuple(arms)


def raced_arms(task: Task, chats: Sequence[ChatModel], embed: Embed) -> tuple[Arm, ...]:
    """Every way of prompting, in every wording, of every chat model."""
    chains = {**CHAINS, **{chain.name: chain.steps for chain in task.chains}}
    arms: list[Arm] = []
    titles = short_names([model.name for model in chats])
    named = {model.name: model for model in task.models}
    for model, title in zip(chats, titles, strict=True):
        entry = named[model.name]
        more: Any = {"title": title, "decodes": entry.decodes, "hosting": entry.hosting}
        for wording in TEMPLATES:
            arms += [ChatPrompt(model, rung, wording, embed, **more) for rung in PROMPT_STYLES]
            arms += [Chain(model, way, steps, wording, **more) for way, steps in chains.items()]
    return tuple(arms)


def _not_run(task: Task, chats: bool, encoder: bool) -> list[NotRun]:
    found = []
    if not chats:
        reason = "the embedded encoder {}; a chat model is needed ([[models]])"
        found += [
            NotRun("chain of thought", reason.format("cannot reason in steps")),
            NotRun("prompt chain", reason.format("cannot pass text from step to step")),
            NotRun("self-consistency", reason.format("gives the same answer every time")),
        ]
    kind = task.answer.kind
    if kind != "label":
        why = f"answers of kind {kind!r} are no labels to choose from"
        found += [NotRun(name, why) for name in ("probe", "fine-tuned encoder", "tuned + light prompt")]
    if kind == "json" and not encoder:
        missing = "the embedded encoder, or what runs it, is missing: `tunepoint doctor` says what"
        found.append(NotRun("span encoder", missing))
    found.append(NotRun("LoRA on a language model", "no base is named ([[tune]] base)"))
    found.append(NotRun("hosted fine-tuning", "no provider is named ([[tune]] provider)"))
    return found
