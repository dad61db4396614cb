"""The chat models of a task, opened for a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tunepoint.models.budget import Budget, BudgetedEndpoint
from tunepoint.models.endpoints import Endpoint
from tunepoint.models.opening import ChatModels, NamedModel, open_models
from tunepoint.models.prices import CallPrice, call_price, project_prices
from tunepoint.task.sections import EMBEDDED, RECORDED_PREFIX, ModelName
from tunepoint.task.task import Task
from tunepoint.trials.judge import holds_no_grade


@contextmanager
def open_chat_models(
    task: Task, recording: Path, budget: Budget, *, replay: bool = False, fresh_judge: bool = False
) -> Iterator[ChatModels]:
    """Open the chat models that a task names, within a budget.

    Args:
        task: names the models, the judge and the proposer of prompts.
        recording: SQLite file of every call that was ever answered.
        budget: pays for the calls.
        replay: answer from the recording alone, and call no model.
        fresh_judge: have the judge grade anew what it gave no grade.

    """
    prices = project_prices(task.folder)

    def as_named(model: ModelName) -> NamedModel:
        replies = None if model.replies is None else task.resolve(model.replies)
        return NamedModel(
            model.name,
            model.price,
            model.concurrency,
            task.folder,
            model.key_env,
            replies,
            model.cache,
            model.settings,
        )

    def budgeted(endpoint: Endpoint, price: CallPrice | None) -> Endpoint:
        return BudgetedEndpoint(endpoint, budget, price)

    judge = as_named(task.score.judge) if task.score.judge else None
    if judge is not None and fresh_judge:
        judge = replace(judge, useless=holds_no_grade(task))
    elsewhere = (EMBEDDED, RECORDED_PREFIX)  # answered by the encoder, or read from a log
    with open_models(
        [as_named(model) for model in task.models if not model.name.startswith(elsewhere)],
        recording,
        budgeted,
        proposer=task.search.proposer,
        judge=judge,
        replay=replay,
        tuning=any(tune.provider for tune in task.tune),
        project_prices=prices,
    ) as models:
        for model in task.models:
            declared = model.price or prices.get(model.name)
            price = call_price(model.name, declared) if model.name.startswith(RECORDED_PREFIX) else None
            if price is not None:
                models.prices[model.name] = price
        yield models
