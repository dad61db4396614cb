"""Opens what serve.toml names: arms of studies, fitted as they were measured, and other servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tunepoint.arms.cascade import Cascade, FittedCascade
from tunepoint.arms.contract import Arm, FittedArm, HasModel
from tunepoint.arms.templates import base_template
from tunepoint.capture.records import THIS_MACHINE
from tunepoint.errors import ModelError, TaskError
from tunepoint.models.chat import Prompt
from tunepoint.models.opening import ChatModels
from tunepoint.models.prices import UNKNOWN_PRICE, call_price, missing_price
from tunepoint.models.providers import parse_model_name
from tunepoint.serve.backends import CascadeArm, LocalArm, ProxyArm, RemoteArm, ServedArm
from tunepoint.serve.onnx import use_onnxruntime
from tunepoint.serve.settings import ArmSettings, ServeSettings, TaskSettings
from tunepoint.serve.upstream import Upstream
from tunepoint.study.finalists import open_finalists

MAX_CONCURRENT_CALLS = 32
"""Of one arm of a study to models elsewhere."""


@dataclass
class TaskArms:
    """The arms of one task, and how its answers are parsed."""

    settings: TaskSettings
    arms: dict[str, ServedArm]
    champion: str
    timeouts: dict[str, float]
    """Arm -> seconds that its answer may take."""
    template: Prompt | None = None
    """How answers are parsed; None without a study, which says of what kind they are."""


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


def proxy_arm(settings: ArmSettings, session: aiohttp.ClientSession) -> ProxyArm:
    """Open a server that gets the conversation as it came.

    Raises:
        ModelError: its name cannot be parsed, its API key is not set, or its price is unknown.

    """
    address = parse_model_name(settings.model, settings.key_env)
    price = call_price(settings.model, settings.price)
    if price is not None and price.source == UNKNOWN_PRICE:
        raise ModelError(missing_price(settings.model))
    upstream = Upstream(address, session, settings.timeout_seconds)
    return ProxyArm(settings.name, upstream, price)


@contextmanager
def opened_tasks(settings: ServeSettings, session: aiohttp.ClientSession) -> Iterator[list[TaskArms]]:
    """Open the arms of all tasks; the studies stay open until the end.

    Raises:
        TunepointError: a study or a server that cannot be used; names it.

    """
    with ExitStack() as stack:
        yield [_open_task(task, settings, session, stack) for task in settings.tasks]


def _open_task(
    task: TaskSettings, settings: ServeSettings, session: aiohttp.ClientSession, stack: ExitStack
) -> TaskArms:
    arms: dict[str, ServedArm] = {}
    winner, template = None, None
    if task.study is not None:
        study = stack.enter_context(study_arms(settings.resolve(task.study), task.only))
        arms, winner, template = study.arms, study.winner, study.template
    for single in task.more:
        other = stack.enter_context(study_arms(settings.resolve(single.study), (single.arm,)))
        _add_arm(task, arms, single.name, other.arms[single.arm])
    timeouts = dict.fromkeys(arms, task.timeout_seconds)
    for server in task.arms:
        _add_arm(task, arms, server.name, proxy_arm(server, session))
        timeouts[server.name] = server.timeout_seconds
    champion = task.champion or _default_champion(task, winner, list(arms))
    return TaskArms(task, arms, champion, timeouts, template)


def _add_arm(task: TaskSettings, arms: dict[str, ServedArm], name: str, arm: ServedArm) -> None:
    if name in arms:
        raise TaskError(f"{task.name}: there is already an arm named {name!r}; choose another name")
    arms[name] = arm


def _default_champion(task: TaskSettings, winner: str | None, arms: Sequence[str]) -> str:
    """The verdict's winner; the first arm without a study."""
    if winner is None:
        return arms[0]
    if winner not in arms:
        raise TaskError(
            f"{task.name}: the verdict's winner {winner!r} does not serve here: add its server to "
            f"[[tasks.arms]], or set champion to one of: {', '.join(arms)}"
        )
    return winner
