"""A study's tuned language model as files for llama.cpp and Ollama; kept only if they answer as measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms.causal.from_task import causal_arms, tunes_with_titles
from tunepoint.arms.causal.gguf_export import WrittenGguf, check_gguf_base, export_gguf
from tunepoint.errors import StudyError, nearest
from tunepoint.files.text import make_folder
from tunepoint.models.providers import is_gguf
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.distillation import read_distilled
from tunepoint.study.measured import MeasuredStudy, read_measured
from tunepoint.task.sections import Tune
from tunepoint.task.task import Task
from tunepoint.trials.trial import mean_score

if TYPE_CHECKING:
    from tunepoint.arms.causal.causal import CausalTuned


@dataclass(frozen=True)
class ExportedModel:
    """What was written."""

    folder: Path
    arm: str
    """Name of the arm."""
    written: WrittenGguf


def export_language_model(task: Task, study: Path, folder: Path, arm: str | None = None) -> ExportedModel:
    """Write a tuned language model of a study as GGUF: merged, and its adapter alone; with a Modelfile.

    Args:
        task: of the study.
        study: its directory.
        folder: where to write.
        arm: name of the model's arm; the best on the validation set if None.

    Raises:
        StudyError: the folder is no study of this task, or has no tuned language model of that name.
        TaskError: the model's base is no GGUF file.
        ModelError: packages are missing, or a file gives other answers; it is not kept then.

    """
    measured = read_measured(task, study)
    here = [tune for tune in task.tune if tune.provider is None]
    if here and not any(is_gguf(tune.base) for tune in here):
        check_gguf_base(here[0])
    name, base, arms = _choose(task, measured, arm)
    split = measured.prepared.split
    fitted = arms[0].fit(task, split.train, stream(measured.seed, Stream.FIT))  # its run is on disk
    replies = {}
    for with_prompt in arms:
        answered = measured.dev_replies(with_prompt.name)
        replies[with_prompt.prompt_length] = [answered[example.id] for example in split.dev]
    make_folder(folder)
    run = fitted.base.keep / fitted.run
    with tempfile.TemporaryDirectory(dir=folder) as merged:
        path = run
        if base.method != "full":
            path = Path(merged)
            fitted.base.endpoint(fitted.run)
            fitted.base.merge(path)
        written = export_gguf(base, arms, task, split, replies, path, folder, run if path != run else None)
    return ExportedModel(folder, name, written)


def _choose(task: Task, measured: MeasuredStudy, name: str | None) -> tuple[str, Tune, list[CausalTuned]]:
    """The arm of that name, or the best; its base, and that base's arms with every prompt measured."""
    study = measured.folder
    offered: dict[str, tuple[Tune, list[CausalTuned]]] = {}
    for tune, title in tunes_with_titles(task):
        if tune.provider is not None or not is_gguf(tune.base):
            continue
        keep, split = study / "arms" / "language models", measured.prepared.split
        _, arms = causal_arms(tune, title, task, split.train, split.dev, keep)
        for of_one_run in (arms, _distilled(tune, arms, measured)):
            whole = [arm for arm in of_one_run if len(measured.dev_replies(arm.name)) == len(split.dev)]
            offered |= {arm.name: (tune, whole) for arm in whole}
    if not offered:
        raise StudyError(f"{study}: no language model was tuned in it on this machine")
    if name is not None and name not in offered:
        raise StudyError(
            f"{study}: {name!r} is no language model that it tuned on this machine; {nearest(name, offered)}"
        )
    chosen = name or max(offered, key=lambda arm: mean_score(measured.dev[arm]))
    return chosen, *offered[chosen]


def _distilled(tune: Tune, arms: Sequence[CausalTuned], measured: MeasuredStudy) -> list[CausalTuned]:
    """The same arms, tuned on what the study has distilled; none if it has not."""
    if not tune.distil or measured.taught is None:
        return []
    distilled = read_distilled(measured.folder, measured.taught, measured.prepared.split.train)
    return [] if distilled is None else [replace(arm, distilled=distilled) for arm in arms]
