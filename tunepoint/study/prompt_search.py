"""The best prompt of the ladder, its instruction optimised; and the prompt as files to take away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tunepoint.arms.contract import Arm, NotRun
from tunepoint.arms.prompting.chat_prompts import ChatPrompt, FittedChatPrompt
from tunepoint.arms.prompting.search import SearchAnswer, SearchResult, search
from tunepoint.data.examples import Example
from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.chat import Reply, Turn, Usage
from tunepoint.models.endpoints import LONG, Completion, Request, TextModel, always
from tunepoint.models.opening import ChatModels
from tunepoint.models.templates import messages
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.bench import Runner
from tunepoint.trials.scorers import Grading
from tunepoint.trials.trial import mean_score

CHARACTERS_A_TOKEN = 4.0
VARIED = 1.0
"""Temperature of proposals."""


@dataclass(frozen=True)
class Optimised:
    """What the search left behind."""

    arms: tuple[Arm, ...] = ()
    ceiling: Interval | None = None
    not_run: tuple[NotRun, ...] = ()


def optimise(runner: Runner, winners: Sequence[Arm], models: ChatModels, dev: Sequence[Example]) -> Optimised:
    """Search for a better instruction for the best prompt, and measure it on dev.

    Args:
        winners: the best arm of each prompting family.
        models: the task's models, and the one that proposes.
        dev: in an order that says nothing about the items.

    """
    ranked = sorted(
        (arm for arm in winners if isinstance(arm, ChatPrompt) and arm.rung.samples == 1),
        key=lambda arm: -mean_score(runner.study.dev.of(arm.name)),
    )
    fixed = [arm for arm in ranked if not arm.rung.retrieved]
    if not fixed:
        return Optimised()
    budget = runner.task.search
    if budget.calls == 0 or models.proposer is None:
        return Optimised(not_run=(NotRun("optimised prompt", "search.calls is 0"),))
    known = runner.study.manifest.get("search")
    if known is None:
        try:
            found = _search(runner, fixed[0], models.proposer, dev)
        except MissingExtra as error:
            return Optimised(not_run=(NotRun("optimised prompt", str(error)),))
        known = _facts(fixed[0], found)
        runner.study.manifest["search"] = known
        runner.study.save()
    arms = [
        _with(arm, known["instruction"]) for arm in (fixed[0], *(a for a in ranked[:1] if a.rung.retrieved))
    ]
    if known["kept"]:
        arms = []
    for arm in arms:
        runner.measure(arm, runner.study.dev, runner.prepared.split.dev, runner.prepared.split.train)
    return Optimised(tuple(arms), Interval(**known["ceiling"]))


def _with(arm: ChatPrompt, instruction: str) -> ChatPrompt:
    return replace(arm, instruction=instruction)


def _facts(base: ChatPrompt, found: SearchResult) -> dict[str, Any]:
    return {"base": base.name, **asdict(found)}


def _search(runner: Runner, base: ChatPrompt, proposer: TextModel, dev: Sequence[Example]) -> SearchResult:
    """GEPA over the instruction of one arm; every call is recorded, so a killed one repeats it for free."""
    budget, spent = runner.task.search, 0.0
    seed = int(runner.study.manifest["seed"])
    train = runner.prepared.split.train
    runner.progress(f"searching from {base.name}", runner.done_seconds, runner.planned_seconds)

    def dollars(usage: Usage) -> float:
        price = runner.prices.get(usage.model)
        return 0.0 if price is None else price.dollars(usage)

    def fitted(instruction: str) -> FittedChatPrompt:
        return _with(base, instruction).fit(runner.task, train, stream(seed, Stream.FIT))

    def evaluate(instruction: str, examples: Sequence[Example]) -> list[SearchAnswer]:
        nonlocal spent
        replies = fitted(instruction).answer([example.input for example in examples])
        gradings = runner.grade(replies, examples)
        spent += sum(dollars(reply.usage) for reply in replies)
        spent += sum(dollars(grading.usage) for grading in gradings if grading.usage is not None)
        return _answered(replies, gradings)

    def propose(prompt: str, number: int) -> str:
        nonlocal spent
        arrived: dict[int, Completion] = {}
        request = Request((Turn("user", prompt),), LONG, VARIED, number)
        proposer.endpoint.complete([request], arrived.__setitem__, always)
        spent += dollars(arrived[0].usage)
        return arrived[0].text or f"```\n{runner.task.instruction}\n```"

    start = runner.task.instruction
    shown = {demonstration.input for demonstration in fitted(start).template.demonstrations}
    return search(
        start,
        evaluate,
        propose,
        [example for example in train if example.input not in shown],
        dev,
        asks=budget.calls,
        clusters=runner.prepared.split.clusters,
        price=lambda instruction: _price(runner, base, instruction),
        stop=lambda: budget.usd is not None and spent >= budget.usd,
        seed=seed,
    )


def _answered(replies: Sequence[Reply], gradings: Sequence[Grading]) -> list[SearchAnswer]:
    """What the search sees; an answer without a grade counts as the mean of those with one."""
    known = [grading.score for grading in gradings if grading.score is not None]
    if not known:
        raise ModelError(f"the judge gave no grade to any of {len(gradings)} answers: {gradings[0].why}")
    return [
        SearchAnswer(
            float(np.mean(known)) if grading.score is None else grading.score,
            reply.text if reply.format_ok else f"{reply.text} ({reply.error})",
            grading.why,
        )
        for reply, grading in zip(replies, gradings, strict=True)
    ]


def _price(runner: Runner, base: ChatPrompt, instruction: str) -> float:
    """What the tokens of an instruction cost, in score, against those of the task's own.

    With `error_usd` their dollars over it: so many errors they must save. Without it, an
    instruction that doubles the prompt must be better by the margin.
    """
    more = (len(instruction) - len(runner.task.instruction)) / CHARACTERS_A_TOKEN
    price, error_usd = runner.prices.get(base.model.name), runner.task.value.error_usd
    if error_usd and price is not None:
        million = price.dollars(Usage(base.model.name, input_tokens=1_000_000))
        return more * million / 1e6 / error_usd
    fitted = base.fit(runner.task, runner.prepared.split.train, np.random.default_rng(0))
    dev = [example.input for example in runner.prepared.split.dev[:5]]
    whole = np.mean([sum(len(t.content) for t in messages(p)) for p in fitted.prompts(dev)])
    return runner.task.limits.margin * more / (float(whole) / CHARACTERS_A_TOKEN)
