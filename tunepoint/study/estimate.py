"""What a study, its fine-tuning and a month of serving would cost, before any of it is spent."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunepoint.arms import catalog
from tunepoint.arms.catalog import CandidateArms, chat_names
from tunepoint.arms.causal.from_task import HOSTED_SEEDS, LOCAL_SEEDS, causal_arms, tunes_with_titles
from tunepoint.arms.contract import Arm
from tunepoint.arms.distilled import DistilledSet
from tunepoint.data.licences import trainable
from tunepoint.data.prepare import prepare
from tunepoint.data.split import Split
from tunepoint.errors import ModelError, TaskError
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.models.prices import (
    PROJECT_PRICES_FILE,
    CallPrice,
    call_price,
    missing_price,
    project_price,
    project_prices,
    unpriced,
)
from tunepoint.study.language_models import check_price
from tunepoint.study.quote import monthly_serving, quote
from tunepoint.task.sections import Tune
from tunepoint.task.task import Task


@dataclass
class _UncalledModel:
    """A chat model whose calls are only counted."""

    name: str
    remote: bool = True

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Raise: an estimate calls no model."""
        raise ModelError(f"{self.name}: an estimate calls no model")


def estimate(task: Task, seed: int) -> list[str]:
    """Return a line for the study, for each model that it tunes, and for each way of serving a month.

    A base that is tuned on this machine is trained for a few steps; nothing else runs and nothing is sent.

    Args:
        task: as `run` would get it.
        seed: of the split.

    Raises:
        TunepointError: the data or the task cannot be used, as `run` would say.

    """
    catalog.check_supported(task)
    split = prepare(task, seed).split
    prices = _prices(task)
    candidates = _candidates(task, split)
    concurrency = max((model.concurrency for model in task.models), default=1)
    quoted = quote(task, candidates, split, prices, concurrency)
    lines = ["the study: no chat model is called" if quoted is None else f"the study: {quoted.line()}"]
    lines += [_tuning(tune, title, task, split) for tune, title in tunes_with_titles(task)]
    volume = task.traffic.queries_per_month.likely
    for label, usd in monthly_serving(task, candidates, split, prices):
        lines.append(
            f"{volume:,.0f} queries a month with {label}: ${usd.likely:,.2f} "
            f"(${usd.low:,.2f} to ${usd.high:,.2f})"
        )
    return lines


def _prices(task: Task) -> dict[str, CallPrice]:
    """Prices of the models that the study calls, by name.

    Raises:
        ModelError: the price of one is unknown.

    """
    declared_in_project = project_prices(task.folder)
    judge = [task.score.judge] if task.score.judge else []
    declared_in_task = {model.name: model.price for model in (*task.models, *judge)}
    prices = {
        name: call_price(name, declared_in_task.get(name) or project_price(name, declared_in_project))
        for name in (*chat_names(task), *(model.name for model in judge))
    }
    for name in unpriced([*prices.values()]):
        raise ModelError(missing_price(name, task.folder / PROJECT_PRICES_FILE, declared_in_project))
    return {name: price for name, price in prices.items() if price is not None}


def _candidates(task: Task, split: Split) -> CandidateArms:
    """The arms that call chat models."""
    chats: list[ChatModel] = [_UncalledModel(name) for name in chat_names(task)]
    candidates = catalog.candidates(task, None, chats, split.train, split.dev, None)
    if any(tune.distil for tune in task.tune):
        candidates = replace(candidates, distillers=(_no_arms,))  # so that the teacher's calls are counted
    return candidates


def _no_arms(distilled: DistilledSet, instruction: str | None) -> list[Arm]:
    return []


def _tuning(tune: Tune, title: str, task: Task, split: Split) -> str:
    """A line for a model that is tuned."""
    if tune.provider is None:
        with tempfile.TemporaryDirectory() as folder:
            quoted, _ = causal_arms(tune, title, task, split.train, split.dev, Path(folder))
        return f"tuning {title} here, each of {tune.seeds or LOCAL_SEEDS} runs: {quoted}"
    from tunepoint.arms.hosted.providers import PROVIDERS
    from tunepoint.arms.hosted.quote import quote as quote_job
    from tunepoint.arms.templates import chat_rows

    if tune.provider not in PROVIDERS:
        known = ", ".join(PROVIDERS)
        raise TaskError(f"tune.provider {tune.provider!r} is not a known provider; known are {known}")
    check_price(tune, project_prices(task.folder))
    rows = chat_rows(task, trainable(task, split.train), split.train)
    job = quote_job(rows, PROVIDERS[tune.provider], tune.base, tune.epochs)
    return "; ".join([f"each of {tune.seeds or HOSTED_SEEDS} jobs: {job}", *job.notices])
