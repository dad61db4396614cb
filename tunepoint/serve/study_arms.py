"""Opens the finalists of a study as the gateway calls them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunepoint.arms.cascade import Cascade, FittedCascade
from tunepoint.arms.contract import Arm, FittedArm, HasModel
from tunepoint.arms.templates import base_template
from tunepoint.capture.records import THIS_MACHINE
from tunepoint.models.chat import Prompt
from tunepoint.models.opening import ChatModels
from tunepoint.serve.backends import CascadeArm, LocalArm, RemoteArm, ServedArm
from tunepoint.serve.onnx import use_onnxruntime
from tunepoint.study.finalists import open_finalists

MAX_CONCURRENT_CALLS = 32
"""Of one arm of a study to models elsewhere."""


@dataclass(frozen=True)
class StudyArms:
    """The finalists of a study that can serve."""

    arms: dict[str, ServedArm]
    winner: str
    """Of the verdict; not among the arms if it cannot serve, as what runs today."""
    template: Prompt
    """What all prompts of the task have in common; answers are parsed by it."""


@contextmanager
def study_arms(folder: Path, only: Sequence[str] = ()) -> Iterator[StudyArms]:
    """Open the finalists of a study as they were measured; calls of chat models are live from now on.

    Args:
        folder: the study directory.
        only: names of the arms to open; all if empty.

    Raises:
        TaskError: a name that no finalist has.
        StudyError: the study has not decided, or its task or its examples have changed since.

    """
    with open_finalists(folder, only) as finalists:
        arms = {arm.name: _served(arm, fitted, finalists.models, folder) for arm, fitted in finalists.arms}
        yield StudyArms(arms, finalists.winner, base_template(finalists.task, finalists.train))


def _served(arm: Arm, fitted: FittedArm, models: ChatModels, folder: Path) -> ServedArm:
    """An arm as the gateway calls it: in batches if it runs here, in threads if it waits for a model."""
    if isinstance(arm, Cascade) and isinstance(fitted, FittedCascade):
        cheap = _served(arm.cheap, fitted.cheap, models, folder)
        strong = _served(arm.strong, fitted.strong, models, folder)
        return CascadeArm(arm.name, cheap, strong, fitted.gate)
    if not arm.remote:
        use_onnxruntime(fitted, folder)
        return LocalArm(arm.name, fitted, THIS_MACHINE)
    model = fitted.model.name if isinstance(fitted, HasModel) else arm.family
    return RemoteArm(arm.name, fitted, model, models.prices, MAX_CONCURRENT_CALLS)
