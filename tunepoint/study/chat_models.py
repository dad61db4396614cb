"""The chat models of a task, opened for a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tunepoint.models.batch.gathering import Batches
from tunepoint.models.budget import Budget, BudgetedEndpoint
from tunepoint.models.endpoints import Endpoint
from tunepoint.models.named_models import NamedModel, OtherMachines
from tunepoint.models.opening import ChatModels, open_models
from tunepoint.models.prices import CallPrice, call_price, project_prices
from tunepoint.models.vllm import VllmServers
from tunepoint.task.sections import EMBEDDED, RECORDED_PREFIX, ModelName
from tunepoint.task.task import Task
from tunepoint.trials.judge import holds_no_grade


@contextmanager
def open_chat_models(
    task: Task,
    recording: Path,
    budget: Budget,
    *,
    replay: bool = False,
    fresh_judge: bool = False,
    batches: Batches | None = None,
    others: OtherMachines | None = None,
) -> Iterator[ChatModels]:
    """Open the chat models that a task names, within a budget.

    Args:
        task: names the models, the judge and the proposer of prompts.
        recording: SQLite file of every call that was ever answered.
        budget: pays for the calls.
        replay: answer from the recording alone, and call no model.
        fresh_judge: have the judge grade anew what it gave no grade.
        batches: of the study, for models whose calls go by batch; None asks everything at once.
        others: machines of a cluster that run and call the models; this process does if None.

    """
    prices = project_prices(task.folder)

    def budgeted(endpoint: Endpoint, price: CallPrice | None) -> Endpoint:
        return BudgetedEndpoint(endpoint, budget, price)

    judge = _named(task, task.score.judge) if task.score.judge else None
    if judge is not None and fresh_judge:
        judge = replace(judge, useless=holds_no_grade(task))
    elsewhere = (EMBEDDED, RECORDED_PREFIX)  # answered by the encoder, or read from a log
    with open_models(
        [_named(task, model) for model in task.models if not model.name.startswith(elsewhere)],
        recording,
        budgeted,
        proposer=task.search.proposer,
        judge=judge,
        replay=replay,
        tuning=any(tune.provider for tune in task.tune),
        batches=batches,
        project_prices=prices,
        others=others,
        vllm=VllmServers({tune.base for tune in task.tune if tune.engine == "vllm"}),
    ) as models:
        for model in task.models:
            declared = model.price or prices.get(model.name)
            price = call_price(model.name, declared) if model.name.startswith(RECORDED_PREFIX) else None
            if price is not None:
                models.prices[model.name] = price
        yield models


def _named(task: Task, model: ModelName) -> NamedModel:
    """A model as the task names it, its paths from the task's folder."""
    return NamedModel(
        model.name,
        model.price,
        model.concurrency,
        task.folder,
        model.key_env,
        None if model.replies is None else task.resolve(model.replies),
        model.cache,
        model.settings,
        model.batch,
    )
