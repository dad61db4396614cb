"""Opens what serve.toml names: arms of studies, fitted as they were measured, and other servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import aiohttp

from tunepoint.errors import ModelError, TaskError
from tunepoint.models.chat import Prompt
from tunepoint.models.prices import UNKNOWN_PRICE, call_price, missing_price
from tunepoint.models.providers import parse_model_name
from tunepoint.serve.backends import ProxyArm, ServedArm
from tunepoint.serve.settings import ArmSettings, ServeSettings, TaskSettings
from tunepoint.serve.upstream import Upstream


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
    if task.study is not None or task.more:  # a gateway that only relays loads no studies
        from tunepoint.serve.study_arms import study_arms
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
