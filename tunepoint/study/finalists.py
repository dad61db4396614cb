"""The finalists of a finished study, fitted as they were measured, for what serves them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunepoint.arms.cascade import Cascade
from tunepoint.arms.catalog import load_encoder
from tunepoint.arms.contract import Arm, FittedArm
from tunepoint.data.examples import Example
from tunepoint.data.prepare import prepare
from tunepoint.errors import ModelError, StudyError, TaskError, nearest
from tunepoint.files.foreign_json import mapping, read_json
from tunepoint.models.budget import Budget
from tunepoint.models.opening import ChatModels
from tunepoint.study.chat_models import open_chat_models
from tunepoint.study.directory import CALLS, TASK, open_study
from tunepoint.study.manifest import read_manifest
from tunepoint.study.planning import plan
from tunepoint.study.runner import Runner
from tunepoint.study.selection import select
from tunepoint.task.task import Task
from tunepoint.trials.grading import Grading

_LOG = logging.getLogger(__name__)
SERVING_ATTEMPTS = 2
"""Tries of a call while a user waits for the answer."""


@dataclass(frozen=True)
class Finalists:
    """What a study can serve; its models are open."""

    task: Task
    train: Sequence[Example]
    arms: Sequence[tuple[Arm, FittedArm]]
    """Each arm, and it as its first training run left it."""
    models: ChatModels
    winner: str
    """Name of the arm that the study recommends; what runs today may be it, and is not among the arms."""


@contextmanager
def open_finalists(folder: Path, only: Sequence[str] = ()) -> Iterator[Finalists]:
    """Open the finalists of a study; calls of chat models are live from now on, and are not recorded.

    Args:
        folder: the study directory.
        only: names of the arms to open; all if empty.

    Raises:
        TaskError: a name that no finalist has.
        StudyError: the study has not decided, its task or its examples have changed since, or it lacks
            answers, which only `run` pays for.
        ModelError: the winner's model, or one of `only`, is not here; its replies came from a file.

    """
    task, winner, manifest = study_task(folder), _winner(folder), read_manifest(folder)
    prepared = prepare(task, manifest.seed)
    encoder = load_encoder(task)
    budget = Budget(None, 0.0, manifest.spent_usd)
    with open_chat_models(task, folder / CALLS, budget) as models:
        with open_study(folder, task, prepared, manifest.seed) as study:
            own_scorer = ":" in task.score.metric
            scorer = _refuse_to_score if own_scorer else None
            runner = Runner(study, task, prepared, budget, models, scorer=scorer)
            # names in the manifest do not make arms: an optimized instruction, a distilled model and the
            # gate of a cascade come from selection. All of it is measured, so it answers from the logs.
            with models.recorded_only():
                candidates = plan(runner, encoder, None).only(manifest.arms)
                finalists = select(runner, candidates, manifest.finalists or None).finalists
            servable = [arm for arm in finalists if arm.kind != "incumbent"]
            _check_names(folder, only, servable)
            arms = [
                (arm, runner.fit(arm, prepared.split.train, 0, arm.name))
                for arm in servable
                if not only or arm.name in only
            ]
        if encoder is not None:
            encoder.clear_states()  # kept for the inputs that selection asks again and again
        missing = models.go_live(attempts=SERVING_ATTEMPTS)
        arms = [(arm, fitted) for arm, fitted in arms if _is_here(arm, missing, needed=(*only, winner))]
        yield Finalists(task, prepared.split.train, arms, models, winner)


def _is_here(arm: Arm, missing: Mapping[str, ModelError], *, needed: Collection[str]) -> bool:
    """Whether the models of an arm could be opened; a needed one has to be.

    Raises:
        ModelError: a needed arm's model is not here.

    """
    halves = (arm.cheap, arm.strong) if isinstance(arm, Cascade) else (arm,)
    models = [half.base_model for half in halves if half.base_model is not None]
    fault = next((missing[model] for model in models if model in missing), None)
    if fault is not None and arm.name in needed:
        raise fault
    if fault is not None:
        _LOG.warning("%s is not served: %s", arm.name, fault)
    return fault is None


def _refuse_to_score(answers: Sequence[str], examples: Sequence[Example]) -> list[Grading]:
    """Score nothing: whoever opens a study of somebody else's must not run the scorer that it names.

    Raises:
        StudyError: always; a measured study has its scores, only a distilled training set is scored again.

    """
    raise StudyError(
        f"opening this study would run the scorer that its task names, on {len(examples)} answers; name "
        "finalists that were not distilled, or use a metric of Tunepoint's"
    )


def _check_names(folder: Path, only: Sequence[str], servable: Sequence[Arm]) -> None:
    names = [arm.name for arm in servable]
    for name in only:
        if name not in names:
            raise TaskError(f"{folder}: no finalist {name!r} that could serve; {nearest(name, names)}")


def study_task(folder: Path) -> Task:
    """Return the task as the last run read it.

    Raises:
        StudyError: the folder is no study, or one from before studies kept their task.

    """
    path = folder / TASK
    if not path.exists():
        read_manifest(folder)  # a folder that is no study at all gets that error
        raise StudyError(f"{folder}: was made before studies kept their task; run `tunepoint run` on it once")
    content = mapping(read_json(path, StudyError))
    task, task_folder = mapping(content.get("task")), content.get("folder")
    if not task or not isinstance(task_folder, str):
        raise StudyError(f"{path}: has no task or no folder; run `tunepoint run` on the study once")
    return Task.parse(task, where=str(path), folder=Path(task_folder))


def _winner(folder: Path) -> str:
    path = folder / "decision.json"
    if not path.exists():
        read_manifest(folder)
        raise StudyError(f"{folder}: has not decided yet; resume it with `tunepoint run`")
    winner = mapping(read_json(path, StudyError)).get("winner")
    if not isinstance(winner, str):
        raise StudyError(f"{path}: names no winner; run the study again")
    return winner
