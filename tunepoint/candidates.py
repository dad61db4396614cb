"""Which arms are tried on a task, and which are not, because ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms import Arm, NotRun
from tunepoint.data.examples import Example
from tunepoint.errors import ModelError, TaskError
from tunepoint.prompting.demonstrations import FewShot, RetrievedFewShot
from tunepoint.prompting.instructions import Described, ZeroShot
from tunepoint.task import Task

if TYPE_CHECKING:  # torch is loaded with the model, not with the package
    from tunepoint.models.encoder import Encoder
    from tunepoint.tuning.classifier import FineTuned

EMBEDDED = "embedded:minilm"


@dataclass(frozen=True)
class Candidates:
    """Arms in the order of their cost, and what was left out."""

    prompting: tuple[Arm, ...]
    tuned: tuple[Arm, ...]
    hybrid: tuple[Arm, ...]
    not_run: tuple[NotRun, ...]
    fine_tuned: FineTuned
    """The arm whose learning curve is drawn."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms that are fitted on train and measured on dev."""
        return (*self.prompting, *self.tuned, *self.hybrid)


def check_supported(task: Task) -> None:
    """Refuse what the arms of this version cannot do.

    Raises:
        TaskError: the task names other models, or asks for answers an encoder cannot give.

    """
    others = [model.name for model in task.models if model.name != EMBEDDED]
    if others:
        raise TaskError(
            f"models: {', '.join(map(repr, others))} cannot be measured by this version, only "
            f"{EMBEDDED!r} can; measure it with your own tool and use `tunepoint decide --trials`"
        )
    if task.answer.kind != "label":
        raise TaskError(
            f"answer.kind {task.answer.kind!r} needs a model that writes text, and the embedded "
            "encoder only chooses labels; measure with your own tool and use `tunepoint decide --trials`"
        )


def load_encoder(task: Task) -> Encoder:
    """The encoder that the task names.

    Raises:
        TaskError: as `check_supported`.
        ModelError: the weights, or the packages that run them, are missing.

    """
    check_supported(task)
    try:
        from tunepoint.models.encoder import Encoder
    except ImportError as error:
        raise ModelError(
            f"the embedded encoder needs {error.name}; pip install 'tunepoint[tune]' "
            "(torch==2.13.0 first, for the small CPU build)"
        ) from None
    return Encoder.load()


def candidates(
    task: Task, encoder: Encoder, train: Sequence[Example], dev: Sequence[Example], keep: Path | None
) -> Candidates:
    """The arms of the embedded default for a task with labels.

    Args:
        train: says how many demonstrations there can be.
        dev: inputs that selection asks again and again.
        keep: folder for finished training runs.

    """
    from tunepoint.tuning.classifier import FineTuned, Probe
    from tunepoint.tuning.light_prompts import TunedWithNames, TunedWithRetrieval

    per_label = max(1, len(train) // max(1, len({example.target for example in train})))
    shots = [k for k in (1, 3, 5, 10) if k <= per_label] or [1]
    near = [k for k in (8, 32) if k <= len(train)] or [len(train)]
    prompting: list[Arm] = [ZeroShot(encoder)]
    not_run = list(_beyond_an_encoder())
    if task.answer.labels and any(task.answer.labels.values()):
        prompting.append(Described(encoder))
    else:
        not_run.append(NotRun("described", "the task has no label descriptions ([answer.labels])"))
    prompting += [FewShot(encoder, k) for k in shots]
    prompting += [RetrievedFewShot(encoder, k, weight) for k in near for weight in (0.5, 0.7, 0.9)]
    fine_tuned = FineTuned(encoder, keep=keep, familiar=tuple(example.input for example in dev))
    hybrid: list[Arm] = [TunedWithNames(fine_tuned, 0.1), TunedWithNames(fine_tuned, 0.3)]
    hybrid += [TunedWithRetrieval(fine_tuned, near[0], weight) for weight in (0.2, 0.5)]
    tuned: tuple[Arm, ...] = (Probe(encoder), fine_tuned)
    return Candidates(tuple(prompting), tuned, tuple(hybrid), tuple(not_run), fine_tuned)


def _beyond_an_encoder() -> tuple[NotRun, ...]:
    reason = "the embedded encoder {}; a chat model is needed"
    return (
        NotRun("chain of thought", reason.format("cannot reason in steps")),
        NotRun("prompt chain", reason.format("cannot pass text from step to step")),
        NotRun("self-consistency", reason.format("gives the same answer every time")),
        NotRun("LoRA on a language model", "no language model is named in [[models]]"),
        NotRun("hosted fine-tuning", "no provider is named in [[models]]"),
    )
