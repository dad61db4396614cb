"""From settings to what serves: arms of studies, fitted as they were measured, and servers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tunepoint.arms.cascade import Cascade, FittedCascade
from tunepoint.arms.catalog import load_encoder
from tunepoint.arms.contract import Arm, FittedArm, HasModel
from tunepoint.arms.templates import base_template
from tunepoint.data.prepare import prepare
from tunepoint.errors import ModelError, StudyError, TaskError, nearest
from tunepoint.files.text import text_of
from tunepoint.models.budget import Budget
from tunepoint.models.chat import Prompt
from tunepoint.models.opening import ChatModels
from tunepoint.models.prices import UNKNOWN, call_price, no_price
from tunepoint.models.providers import address
from tunepoint.serve.backends import CascadeArm, LocalArm, ProxyArm, RemoteArm, ServedArm
from tunepoint.serve.onnx import use_onnxruntime
from tunepoint.serve.settings import ArmSettings, ServeSettings, TaskSettings
from tunepoint.serve.upstream import Upstream
from tunepoint.study.bench import Runner, silent
from tunepoint.study.chat_models import open_chat_models
from tunepoint.study.directory import TASK, open_study, read_manifest
from tunepoint.study.planning import plan
from tunepoint.study.selection import select
from tunepoint.task.task import Task

AT_ONCE = 32
"""Requests that an arm of a study sends elsewhere at the same time."""


@dataclass
class TaskArms:
    """The arms of one task, and how its answers are read."""

    settings: TaskSettings
    arms: dict[str, ServedArm]
    champion: str
    timeouts: dict[str, float] = field(default_factory=dict)
    template: Prompt | None = None
    """How answers are read; None where nobody said of what kind they are."""
    task: Task | None = None


@dataclass(frozen=True)
class StudyArms:
    """What a study can serve."""

    task: Task
    arms: dict[str, ServedArm]
    winner: str
    template: Prompt
    """What all prompts of the task have in common; answers are read by it."""


@contextmanager
def study_arms(folder: Path, only: Sequence[str] = ()) -> Iterator[StudyArms]:
    """The finalists of a study, fitted as they were measured; what they call is asked anew from now on.

    Args:
        only: names of those that are wanted; all if empty.

    Raises:
        TaskError: a name that no finalist has.
        StudyError: the study has not decided, or its task or its examples are others now.

    """
    task, decision = _task_of(folder), _decision_of(folder)
    manifest = read_manifest(folder)
    seed = int(manifest["seed"])
    prepared = prepare(task, seed)
    encoder = load_encoder(task)
    meter = Budget(None, 0.0, float(manifest["spent_usd"]))
    with open_chat_models(task, folder / "calls.sqlite", meter) as models:
        with open_study(folder, task, prepared, seed) as study:
            bench = Runner(study, task, prepared, meter, silent)
            bench.use(models)
            chosen = select(bench, plan(bench, encoder, models, None), models)
            train = prepared.split.train
            fitted = [
                (arm, bench.fit(arm, train, 0, arm.name))
                for arm in chosen.finalists
                if arm.kind != "incumbent" and (not only or arm.name in only)
            ]
        if encoder is not None:
            encoder.cool()  # what selection met again and again is not asked any more
        models.go_live(attempts=2)
        arms = {arm.name: _served(arm, one, models, folder) for arm, one in fitted}
        for name in set(only) - set(arms):
            names = [arm.name for arm in chosen.finalists]
            raise TaskError(f"{folder}: no finalist {name!r} that could serve; {nearest(name, names)}")
        yield StudyArms(task, arms, decision["winner"], base_template(task, train))


def _task_of(folder: Path) -> Task:
    path = folder / TASK
    if not path.exists():
        read_manifest(folder)
        raise StudyError(f"{folder}: was made before studies kept their task; run `tunepoint run` on it once")
    content = json.loads(text_of(path, StudyError))
    return Task.parse(content["task"], where=str(path), folder=Path(content["folder"]))


def _decision_of(folder: Path) -> dict[str, Any]:
    path = folder / "decision.json"
    if not path.exists():
        read_manifest(folder)
        raise StudyError(f"{folder}: has not decided yet; `tunepoint run` goes on until it has")
    content: dict[str, Any] = json.loads(text_of(path, StudyError))
    return content


def _served(arm: Arm, fitted: FittedArm, models: ChatModels, folder: Path) -> ServedArm:
    """An arm as the gateway asks it: in batches where it runs here, in threads where it waits for others."""
    if isinstance(arm, Cascade) and isinstance(fitted, FittedCascade):
        halves = ((arm.cheap, fitted.cheap), (arm.strong, fitted.strong))
        cheap, strong = (_served(half, one, models, folder) for half, one in halves)
        return CascadeArm(arm.name, cheap, strong, fitted.gate)
    if not arm.remote:
        use_onnxruntime(fitted, folder)
        return LocalArm(arm.name, fitted, "this machine")
    model = fitted.model.name if isinstance(fitted, HasModel) else arm.family
    return RemoteArm(arm.name, fitted, model, models.prices, AT_ONCE)


def passing_arm(settings: ArmSettings, session: aiohttp.ClientSession) -> ProxyArm:
    """A server that gets the conversation as it came.

    Raises:
        ModelError: its name cannot be read, its key is not set, or nobody knows its price.

    """
    where = address(settings.model)
    price = call_price(settings.model, settings.price)
    if price is not None and price.source == UNKNOWN:
        raise ModelError(no_price(settings.model))
    upstream = Upstream(where, session, settings.timeout_seconds)
    return ProxyArm(settings.name, upstream, price)


@contextmanager
def opened_tasks(settings: ServeSettings, session: aiohttp.ClientSession) -> Iterator[list[TaskArms]]:
    """Everything that serves.

    Raises:
        TunepointError: a study or a server that cannot be used; names it.

    """
    with ExitStack() as stack:
        yield [_opened(one, settings, session, stack) for one in settings.tasks]


def _opened(
    one: TaskSettings, settings: ServeSettings, session: aiohttp.ClientSession, stack: ExitStack
) -> TaskArms:
    arms: dict[str, ServedArm] = {}
    timeouts: dict[str, float] = {}
    winner, template, task = None, None, None
    if one.study is not None:
        study = stack.enter_context(study_arms(settings.resolve(one.study), one.only))
        task, arms, winner, template = study.task, study.arms, study.winner, study.template
        timeouts = dict.fromkeys(arms, one.timeout_seconds)
    for further in one.more:
        other = stack.enter_context(study_arms(settings.resolve(further.study), (further.arm,)))
        arms[_new(further.name, arms, one.name)] = other.arms[further.arm]
        timeouts[further.name] = one.timeout_seconds
    for entry in one.arms:
        arms[_new(entry.name, arms, one.name)] = passing_arm(entry, session)
        timeouts[entry.name] = entry.timeout_seconds
    champion = one.champion or _usual(one, winner, list(arms))
    return TaskArms(one, arms, champion, timeouts, template, task)


def _new(name: str, arms: Mapping[str, ServedArm], task: str) -> str:
    """A name that no arm has yet."""
    if name in arms:
        raise TaskError(f"{task}: an arm is named {name!r} already; take another name")
    return name


def _usual(one: TaskSettings, winner: str | None, arms: Sequence[str]) -> str:
    """Who serves where nobody is named."""
    if winner is None:
        return arms[0]
    if winner not in arms:
        raise TaskError(
            f"{one.name}: the verdict is {winner!r}, and no arm of that name serves here: name its server in "
            f"[[tasks.arms]], or another champion ({', '.join(arms)})"
        )
    return winner
