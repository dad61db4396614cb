"""The chat models of a task, opened for a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunepoint.models.budget import Budget, BudgetedEndpoint
from tunepoint.models.endpoints import Endpoint
from tunepoint.models.opening import ChatModels, NamedModel, open_models
from tunepoint.models.prices import CallPrice, call_price, project_prices
from tunepoint.task.sections import EMBEDDED, RECORDED_PREFIX, ModelName
from tunepoint.task.task import Task


@contextmanager
def open_chat_models(
    task: Task, recording: Path, budget: Budget, *, replay: bool = False
) -> Iterator[ChatModels]:
    """The chat models that a task names, paid from the meter; replayed ones are not called."""
    own = project_prices(task.folder)

    def as_named(model: ModelName) -> NamedModel:
        return NamedModel(model.name, model.price, model.concurrency, task.folder)

    named = [as_named(model) for model in task.models if not model.name.startswith((EMBEDDED, RECORDED_PREFIX))]
    judge = as_named(task.score.judge) if task.score.judge else None

    def metered(endpoint: Endpoint, price: CallPrice | None) -> Endpoint:
        return BudgetedEndpoint(endpoint, budget, price)

    proposer = task.search.proposer
    hosted = any(one.provider for one in task.tune)
    with open_models(
        named, recording, metered, proposer=proposer, judge=judge, replay=replay, tuning=hosted, own=own
    ) as models:
        for model in task.models:
            known = model.price or own.get(model.name)
            price = call_price(model.name, known) if model.name.startswith(RECORDED_PREFIX) else None
            if price is not None:
                models.prices[model.name] = price
        yield models
