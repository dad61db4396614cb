"""The candidate arms of a task; those left out, with reasons."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms.baselines.controls import label_baselines, neighbor_counts
from tunepoint.arms.contract import Arm, HasLearningCurve, NotRun
from tunepoint.arms.distilled import Distiller
from tunepoint.arms.incumbent import Incumbent
from tunepoint.arms.prompting.candidates import chat_arms, left_out, retrieved_counts
from tunepoint.arms.similarity import word_vectors
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable, why_untrainable
from tunepoint.errors import DataError, MissingExtra, TaskError
from tunepoint.models.chat import ChatModel
from tunepoint.models.embedded import CPU_TORCH, installed_encoder
from tunepoint.models.providers import HERE_PREFIXES, parse_model_name
from tunepoint.task.sections import EMBEDDED, RECORDED_PREFIX
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.encoder.classifier import FineTuned
    from tunepoint.models.encoder import Encoder


MAX_FINALISTS = 5
"""Arms that meet the test set; each of them answers all of it, with every training seed."""
CURVE_SHARES = (0.06, 0.15, 0.4)
"""Sizes of the learning curve as shares of the training set; each is about 2.5 times the one before."""
TRAINED_ENCODERS = ("probe", "fine-tuned encoder", "tuned + nearest examples")
"""Names of what is left out where the encoder cannot be trained on the task."""


OLD_PLACEHOLDER = "Say in one sentence what to do with the input."
"""What `tunepoint init` once wrote into task.toml: a model that reads it has nothing to do."""


@dataclass(frozen=True)
class CandidateArms:
    """Arms in the order of their cost, and those left out."""

    baselines: tuple[Arm, ...] = ()
    """Controls without a language model."""
    tuned: tuple[Arm, ...] = ()
    hybrid: tuple[Arm, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    raced: tuple[Arm, ...] = ()
    """Those that call a chat model: they race on the validation set, because every call costs money."""
    incumbents: tuple[Incumbent, ...] = ()
    """What runs today, from its log."""
    fine_tuned: FineTuned | None = None
    """The encoder with a classification head; the mixtures share its training runs."""
    curve_arm: HasLearningCurve | None = None
    """The arm whose learning curve is drawn."""
    distillers: tuple[Distiller, ...] = ()
    """Models that learn from the best prompted arm, once selection has found it."""
    encoder: Encoder | None = field(default=None, repr=False)

    @property
    def local(self) -> tuple[Arm, ...]:
        """All arms that are measured on the whole validation set."""
        return (*self.baselines, *self.tuned, *self.hybrid)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms."""
        return (*self.local, *self.raced, *self.incumbents)

    def only(self, names: Collection[str]) -> CandidateArms:
        """Return the candidates without the arms of this machine that have none of these names."""

        def named(arms: Sequence[Arm]) -> tuple[Arm, ...]:
            return tuple(arm for arm in arms if arm.name in names)

        baselines, tuned, hybrid = map(named, (self.baselines, self.tuned, self.hybrid))
        return replace(self, baselines=baselines, tuned=tuned, hybrid=hybrid)

    def leaving_out(self, *arms: NotRun) -> CandidateArms:
        """Return these candidates with further arms left out."""
        return replace(self, not_run=(*self.not_run, *arms))


def chat_names(task: Task) -> list[str]:
    """Return the names of the chat models in a task."""
    return [model.name for model in task.models if not model.name.startswith((EMBEDDED, RECORDED_PREFIX))]


def check_supported(task: Task) -> None:
    """Refuse a task that no arm of this version can do.

    Raises:
        TaskError: nothing that the task names gives answers of its kind.
        ModelError: the name of a model cannot be parsed.

    """
    helpers = [task.search.proposer, task.score.judge.name if task.score.judge else None]
    for name in (*chat_names(task), *(name for name in helpers if name)):
        if not name.startswith(HERE_PREFIXES):
            parse_model_name(name)
    if task.prompts and not chat_names(task):
        raise TaskError(
            f"[[prompts]] {task.prompts[0].name}: no chat model to send it to. Name one, as in "
            '[[models]] name = "openai/gpt-6-luna" or "embedded:qwen2.5-coder-0.5b"'
        )
    kind = task.answer.kind
    logs = len(task.logs())  # two of them are compared with each other, whatever they hold
    if kind == "label" or chat_names(task) or task.tune or logs > 1 or (kind == "json" and logs):
        return
    encoder = "only chooses labels"
    if kind == "json":
        encoder = "only extracts what the input contains, so it needs a second option to be compared with"
    raise TaskError(
        f"answer.kind {kind!r} needs a model that writes text: the embedded encoder {encoder}. Name a chat "
        'model, as in [[models]] name = "openai/gpt-6-luna"; or tune one ([[tune]] base); or name the log of '
        'what runs today ([[models]] name = "recorded:LOG.jsonl"); or measure with your own tool and run '
        "`tunepoint decide --trials`. One log alone has nothing to be compared with"
    )


def refuse_placeholder(task: Task) -> None:
    """Refuse an instruction that says nothing, before a model is asked.

    Raises:
        TaskError: it is the one that `init` once wrote.

    """
    if task.instruction.strip() == OLD_PLACEHOLDER and (chat_names(task) or task.tune):
        raise TaskError(
            f"instruction is still the placeholder {OLD_PLACEHOLDER!r}: say what to do, for models read it, "
            'as in instruction = "Route the message to the team that answers it."'
        )


def load_encoder(task: Task) -> Encoder | None:
    """Return the embedded encoder if it can give the task's answers: labels, or JSON found in the input.

    Raises:
        TaskError: as `check_supported`.
        MissingExtra: the packages that run the encoder, or its weights, are not installed.
        ModelError: the weights are incomplete or altered.

    """
    check_supported(task)
    if task.answer.kind not in ("label", "json"):
        return None
    if task.answer.kind == "json" and (chat_names(task) or task.tune):
        return installed_encoder()  # other models can answer, so it may be missing
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
    measured: Collection[str] = (),
) -> CandidateArms:
    """Return the arms of a task.

    Args:
        encoder: compared with and trained wherever the task has labels, trained where it extracts.
        chats: chat models, prompted in every way.
        train: limits how many demonstrations there can be.
        dev: inputs that selection asks again and again, so that their vectors are worth keeping.
        keep: folder for finished training runs.
        measured: names of the arms that the study has measured already.

    """
    embed = encoder.embed if encoder else word_vectors(train)
    arms = CandidateArms(
        raced=chat_arms(task, chats, embed, measured),
        not_run=(*_not_run(task, bool(chats), encoder is not None), *left_out(task, chats)),
        encoder=encoder,
    )
    if task.answer.kind == "label":
        voters = retrieved_counts([model.name for model in chats])
        arms = replace(arms, baselines=label_baselines(task, train, encoder, embed, voters))
        if not any((task.answer.labels or {}).values()):
            reason = "the task has no label descriptions ([answer.labels])"
            arms = arms.leaving_out(NotRun("nearest label description", reason))
    if encoder is None:
        return arms
    if task.answer.kind == "json":
        return _with_extraction(arms, task, encoder, train, keep)
    untrainable = why_untrainable(task, train)
    if untrainable is not None:
        return arms.leaving_out(*(NotRun(name, untrainable) for name in TRAINED_ENCODERS))
    return _with_trained_encoder(arms, encoder, neighbor_counts(train)[0], dev, keep)


def _with_trained_encoder(
    arms: CandidateArms, encoder: Encoder, neighbors: int, dev: Sequence[Example], keep: Path | None
) -> CandidateArms:
    """Add the arms that train the encoder on labels."""
    from tunepoint.arms.encoder.classifier import FineTuned, Probe
    from tunepoint.arms.encoder.mixtures import TunedWithNames, TunedWithRetrieval

    fine_tuned = FineTuned(encoder, keep=keep, familiar=tuple(example.input for example in dev))
    mixtures: list[Arm] = [TunedWithNames(fine_tuned, weight) for weight in (0.1, 0.3)]
    mixtures += [TunedWithRetrieval(fine_tuned, neighbors, weight) for weight in (0.2, 0.5)]
    return replace(
        arms,
        tuned=(Probe(encoder), fine_tuned, *mixtures),
        fine_tuned=fine_tuned,
        curve_arm=fine_tuned,
    )


def _with_extraction(
    arms: CandidateArms, task: Task, encoder: Encoder, train: Sequence[Example], keep: Path | None
) -> CandidateArms:
    """Add the arm that extracts JSON values from the input, if the training set shows that it can."""
    from tunepoint.arms.encoder.extraction import SpanTagger
    from tunepoint.arms.encoder.fields import Fields

    try:
        fields = Fields.read(trainable(task, train))
    except DataError as error:
        return arms.leaving_out(NotRun("span encoder", str(error)))
    spans = SpanTagger(encoder, fields=fields, keep=keep)
    return replace(arms, tuned=(spans,), curve_arm=spans)


def _not_run(task: Task, has_chats: bool, has_encoder: bool) -> list[NotRun]:
    """Return what the task gives no model for."""
    left_out = []
    if not has_chats:
        reason = "it needs a chat model ([[models]]): the embedded encoder {}"
        left_out += [
            NotRun("chain of thought", reason.format("cannot reason in steps")),
            NotRun("prompt chain", reason.format("cannot pass text from step to step")),
            NotRun("self-consistency", reason.format("gives the same answer every time")),
        ]
    kind = task.answer.kind
    if kind != "label":
        reason = f"it only chooses labels, and answer.kind is {kind!r}"
        left_out += [NotRun(name, reason) for name in TRAINED_ENCODERS]
    if kind == "json" and not has_encoder:
        reason = "the embedded encoder or a package that it needs is missing; `tunepoint doctor` says which"
        left_out.append(NotRun("span encoder", reason))
    left_out.append(NotRun("LoRA on a language model", "the task names no base model ([[tune]] base)"))
    left_out.append(NotRun("hosted fine-tuning", "the task names no provider ([[tune]] provider)"))
    return left_out
