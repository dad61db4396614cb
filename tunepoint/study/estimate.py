"""What a study, its fine-tuning and a month of serving would cost, before any of it is spent."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunepoint.arms.catalog import candidates, chat_names, check_supported
from tunepoint.arms.causal.from_task import SEEDS_HERE, SEEDS_HOSTED, causal_arms, titled
from tunepoint.arms.contract import Arm
from tunepoint.arms.distilled import DistilledSet
from tunepoint.data.licences import trainable
from tunepoint.data.prepare import Prepared, prepare
from tunepoint.errors import ModelError, TaskError
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.models.prices import (
    OWN_PRICES,
    CallPrice,
    call_price,
    no_price,
    own_price,
    own_prices,
    unpriced,
)
from tunepoint.study.language_models import check_price
from tunepoint.study.quote import quote, serving
from tunepoint.task.sections import Tune
from tunepoint.task.task import Task


@dataclass
class _Unasked:
    """A chat model that is only counted on."""

    name: str
    remote: bool = True

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Nothing: a quote asks nobody."""
        raise ModelError(f"{self.name}: a quote asks nobody")


def estimate(task: Task, seed: int) -> list[str]:
    """A line for the study, for each model that it tunes, and for each way of serving a month.

    A base that is tuned on this machine is warmed up for some steps; nothing else is done and nothing sent.

    Raises:
        TunepointError: the data or the task cannot be used, as `run` would say.

    """
    check_supported(task)
    prepared = prepare(task, seed)
    split = prepared.split
    names, own = chat_names(task), own_prices(task.folder)
    judge = [task.score.judge] if task.score.judge else []
    known = {model.name: model.price for model in (*task.models, *judge)}
    asked = (*names, *(model.name for model in judge))
    found = {name: call_price(name, known.get(name) or own_price(name, own)) for name in asked}
    for name in unpriced([*found.values()]):
        raise ModelError(no_price(name, task.folder / OWN_PRICES, own))
    prices: dict[str, CallPrice] = {name: price for name, price in found.items() if price is not None}
    chats: list[ChatModel] = [_Unasked(name) for name in names]
    tried = candidates(task, None, chats, split.train, split.dev, None)
    if any(one.distil for one in task.tune):
        tried = replace(tried, pupils=(_nobody,))  # so that the teacher's calls are counted
    most = max((model.concurrency for model in task.models), default=1)
    whole = quote(task, tried, split.train, split.dev, split.test, prices, most)
    lines = ["the study: no chat model is asked" if whole is None else f"the study: {whole.line()}"]
    lines += [_tuning(tune, title, task, prepared) for tune, title in titled(task)]
    volume = task.traffic.queries_per_month.likely
    for way, dollars in serving(task, tried, split.train, split.dev, prices):
        lines.append(
            f"{volume:,.0f} queries a month with {way}: ${dollars.likely:,.2f} "
            f"(${dollars.low:,.2f} to ${dollars.high:,.2f})"
        )
    return lines


def _nobody(distilled: DistilledSet, instruction: str | None) -> list[Arm]:
    return []


def _tuning(tune: Tune, title: str, task: Task, prepared: Prepared) -> str:
    split = prepared.split
    if tune.provider is None:
        with tempfile.TemporaryDirectory() as folder:
            one, _ = causal_arms(tune, title, task, split.train, split.dev, Path(folder))
        return f"tuning {title} here, each of {tune.seeds or SEEDS_HERE} runs: {one}"
    from tunepoint.arms.hosted.hosted import quote as hosted
    from tunepoint.arms.hosted.providers import PROVIDERS
    from tunepoint.arms.templates import chat_rows

    if tune.provider not in PROVIDERS:
        raise TaskError(f"tune.provider {tune.provider!r} is none that we know: {', '.join(PROVIDERS)}")
    check_price(tune, own_prices(task.folder))
    rows = chat_rows(task, trainable(task, split.train), split.train)
    job = hosted(rows, PROVIDERS[tune.provider], tune.base, tune.epochs)
    return "; ".join([f"each of {tune.seeds or SEEDS_HOSTED} jobs: {job}", *job.notices])
