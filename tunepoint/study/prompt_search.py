"""The best prompt of a chat model, its instruction optimized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunepoint.arms.contract import Arm, NotRun
from tunepoint.arms.prompting.chat_prompts import ChatPrompt, FittedChatPrompt
from tunepoint.arms.prompting.headroom import HEADROOM_ANSWERS, REWORDINGS, headroom
from tunepoint.arms.prompting.search import SearchAnswer, SearchProblem, SearchResult, search
from tunepoint.arms.prompting.written import FittedWrittenPrompt, WrittenPromptArm
from tunepoint.data.examples import Example
from tunepoint.decision.numbers import percent
from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.chat import Message, Reply, Usage
from tunepoint.models.endpoints import LONG_ANSWER_TOKENS, Completion, Request, TextModel, allow_all
from tunepoint.models.templates import render
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream
from tunepoint.study.records import Ceiling, PromptSearch, SearchHeadroom
from tunepoint.study.runner import Runner
from tunepoint.task.task import Task
from tunepoint.trials.grading import Grading
from tunepoint.trials.trial import Trial, mean_score

CHARACTERS_PER_TOKEN = 4.0
PROPOSAL_TEMPERATURE = 1.0
"""High, so that the same failures lead to different instructions."""
MAX_SEARCHES = 3
SEARCH_OVER_TEST = 4
"""Answers of a search over those of the test before it, from which the test is worth its own."""
MINIBATCH_ANSWERS = 60
"""Answers of a search besides those on the validation set, about."""
SEED_STEP = 1_000_003
"""Between the seeds of repeated searches."""
Base = ChatPrompt | WrittenPromptArm
"""An arm whose instruction, or opening words, a search changes."""


@dataclass(frozen=True)
class OptimizedPrompts:
    """What the search for a better instruction left behind."""

    arms: tuple[Arm, ...] = ()
    ceiling: Interval | None = None
    """What one more proposal would gain."""
    not_run: tuple[NotRun, ...] = ()


def optimize(runner: Runner, winners: Sequence[Arm], dev: Sequence[Example]) -> OptimizedPrompts:
    """Search for a better instruction for the best prompt, and measure it on dev.

    Args:
        winners: the best arm of each prompting family.
        dev: in an order that says nothing about the items.

    """
    ranked = sorted(
        (arm for arm in winners if isinstance(arm, ChatPrompt | WrittenPromptArm)),
        key=lambda arm: -mean_score(runner.study.dev.of(arm.name)),
    )
    result = runner.study.manifest.search
    hopeless = _hopeless(runner.study.manifest.headroom)
    if hopeless is not None:
        return hopeless
    if result is None and runner.study.manifest.sealed_test is not None:
        return OptimizedPrompts()  # no search begins once the test is open
    fixed = [arm for arm in ranked if _can_begin(arm, runner.task)]
    if result is not None:  # a search of older versions never began with a written prompt
        fixed = [arm for arm in fixed if arm.name == result.base]
    if not fixed:
        return OptimizedPrompts()
    proposer = runner.models.proposer
    if runner.task.search.calls == 0 or proposer is None:
        return OptimizedPrompts(not_run=(NotRun("optimised prompt", "search.calls is 0"),))
    base = fixed[0]
    if result is None:
        left = 1 - mean_score(runner.study.dev.of(base.name))
        if left <= _least_gain(runner.task):
            why = (
                f"the best prompt leaves {percent(left)} of the validation set to gain, which changes nothing"
            )
            return OptimizedPrompts(not_run=(NotRun("optimised prompt", why),))
        try:
            searching = _Search(runner, base, proposer, dev)
            hopeless = _hopeless(searching.headroom())
            if hopeless is not None:
                return hopeless
            result = _recorded(base, searching.run())
        except MissingExtra as error:
            return OptimizedPrompts(not_run=(NotRun("optimised prompt", str(error)),))
        runner.study.update(search=result)
    arms: list[Base] = []
    if not result.kept:
        arms = [replace(arm, instruction=result.instruction) for arm in (base, *_helped(ranked, base))]
    for arm in arms:
        runner.measure(arm, runner.study.dev, runner.prepared.split.dev, runner.prepared.split.train)
    ceiling = result.ceiling
    return OptimizedPrompts(tuple(arms), Interval(ceiling.estimate, ceiling.low, ceiling.high))


def _can_begin(arm: Base, task: Task) -> bool:
    """Whether a search may begin with an arm: one call an answer, and words that are the same for all."""
    if isinstance(arm, WrittenPromptArm):
        return bool(arm.opening(task))
    return arm.style.samples == 1 and not arm.style.retrieved


def _helped(ranked: Sequence[Base], base: Base) -> list[Base]:
    """The best prompt if it retrieves examples: an instruction found without them may help it too."""
    chat = [arm for arm in ranked if isinstance(arm, ChatPrompt) and arm.style.samples == 1]
    return [arm for arm in chat[:1] if arm.style.retrieved] if isinstance(base, ChatPrompt) else []


def _hopeless(tested: SearchHeadroom | None) -> OptimizedPrompts | None:
    """What is left to say where a test before the search has shown that it is not worth it; else None."""
    if tested is None or tested.gain > tested.needed:
        return None
    why = (
        f"{REWORDINGS} new instructions cured {tested.cured} of {tested.tried} failures. A search would gain "
        f"about {percent(tested.gain)} (95% sure: under {percent(tested.most)}) and pays from "
        f"{percent(tested.needed)} on"
    )
    ceiling = Interval(tested.gain, 0.0, max(tested.gain, tested.most))
    return OptimizedPrompts(ceiling=ceiling, not_run=(NotRun("optimised prompt", why),))


def _least_gain(task: Task) -> float:
    """The gain that changes nothing: half of the margin, or none if errors have a price."""
    return 0.0 if task.value.error_usd is not None else float(task.limits.margin) / 2


def _recorded(base: Base, results: Sequence[SearchResult]) -> PromptSearch:
    """The best result as it stands in the manifest, beside where the others ended."""
    best = max(results, key=lambda result: result.objective)
    ceiling = best.ceiling
    return PromptSearch(
        base=base.name,
        instruction=best.instruction,
        trajectory=list(best.trajectory),
        proposals=sum(result.proposals for result in results),
        asked=sum(result.answers for result in results),
        ceiling=Ceiling(estimate=ceiling.estimate, low=ceiling.low, high=ceiling.high),
        kept=best.kept,
        ends=[result.objective for result in results] if len(results) > 1 else None,
    )


def searches_of(calls: int, dev: int) -> int:
    """Return how many searches a budget allows: each has room for three instructions on the validation set.

    Args:
        calls: answers in all.
        dev: validation items.

    """
    return max(1, min(MAX_SEARCHES, calls // (3 * dev + MINIBATCH_ANSWERS)))


class _Search:
    """GEPA over the instruction of one arm.

    Every call is recorded, so a search that was killed repeats its calls for free.
    """

    def __init__(self, runner: Runner, base: Base, proposer: TextModel, dev: Sequence[Example]) -> None:
        self.runner = runner
        self.base = base
        self.start = base.opening(runner.task)
        self.proposer = proposer
        self.spent_usd = 0.0
        self.calls = runner.task.search.calls
        demonstrations = {shown.input for shown in self._fitted(self.start).template.demonstrations}
        self.problem = SearchProblem(
            self._evaluate,
            self._propose,
            # a prompt that shows an example cannot fail on it
            [example for example in runner.prepared.split.train if example.input not in demonstrations],
            dev,
            clusters=runner.prepared.split.clusters,
            price=self._price,
        )

    def headroom(self) -> SearchHeadroom | None:
        """Test whether a search is worth its calls, and record that; None where a test tells nothing.

        The test is not worth its own calls where a search has hardly more, or costs nothing and errors have a
        price: then any gain pays.
        """
        study, base, needed = self.runner.study, self.base, self._needed()
        if self.calls < SEARCH_OVER_TEST * HEADROOM_ANSWERS or needed <= 0:
            return None
        self.runner.announce(f"trying new instructions on failures: {base.label}")
        answered = {trial.item: trial for trial in study.dev.of(base.name)}
        pairs = [(e, _as_answer(answered[e.id])) for e in self.problem.dev if e.id in answered]
        tested = headroom(self.problem, self.start, pairs)
        if tested is None:
            return None
        self.calls -= tested.answers
        recorded = SearchHeadroom(
            base=base.name,
            failing=tested.failing,
            tried=tested.tried,
            cured=tested.cured,
            gain=tested.gain,
            most=tested.most,
            needed=needed,
            asked=tested.answers,
        )
        study.update(headroom=recorded)
        return recorded

    def _needed(self) -> float:
        """The gain in score that is worth a search: the least that matters, or what pays its calls."""
        task, trials = self.runner.task, self.runner.study.dev.of(self.base.name)
        if task.value.error_usd is None:
            return _least_gain(task)
        costs = [trial.cost_usd for trial in trials if trial.cost_usd is not None]
        usd = self.calls * float(np.mean(costs)) if costs else 0.0
        traffic = task.traffic
        errors = float(task.value.error_usd) * traffic.queries_per_month.likely * traffic.horizon_months
        return usd / errors if errors else 0.0

    def run(self) -> list[SearchResult]:
        """Search within the task's limits of calls and dollars, from the same words more than once.

        One search tells nothing of how much luck is in what it finds.
        """
        runner, limits = self.runner, self.runner.task.search
        runner.announce(f"searching for a better instruction: {self.base.label}")
        searches = searches_of(self.calls, len(self.problem.dev))
        return [
            search(
                self.problem,
                self.start,
                max_answers=self.calls // searches,
                stop=lambda: limits.usd is not None and self.spent_usd >= limits.usd,
                seed=runner.study.manifest.seed + SEED_STEP * number,
            )
            for number in range(searches)
        ]

    def _fitted(self, instruction: str) -> FittedChatPrompt | FittedWrittenPrompt:
        arm = replace(self.base, instruction=instruction)
        train = self.runner.prepared.split.train
        return arm.fit(self.runner.task, train, self.runner.study.rng(Stream.FIT))

    def _evaluate(self, instruction: str, examples: Sequence[Example]) -> list[SearchAnswer]:
        replies = self._fitted(instruction).answer([example.input for example in examples])
        gradings = self.runner.grade(replies, examples)
        usages = [reply.usage for reply in replies]
        usages += [grading.usage for grading in gradings if grading.usage is not None]
        self.spent_usd += sum(map(self.runner.usd, usages))
        return _search_answers(replies, gradings)

    def _propose(self, prompt: str, number: int) -> str:
        arrived: dict[int, Completion] = {}
        request = Request((Message("user", prompt),), LONG_ANSWER_TOKENS, PROPOSAL_TEMPERATURE, number)
        self.proposer.endpoint.complete([request], arrived.__setitem__, allow_all)
        self.spent_usd += self.runner.usd(arrived[0].usage)
        # an empty proposal is the first instruction once more, which the search rejects as no better
        return arrived[0].text or f"```\n{self.start}\n```"

    def _price(self, instruction: str) -> float:
        """What the tokens of an instruction cost, in score, against those of the first one.

        With `error_usd`, the errors that pay for their dollars. Without it, an instruction that
        doubles the prompt must be better by the margin.
        """
        runner, base = self.runner, self.base
        tokens = (len(instruction) - len(self.start)) / CHARACTERS_PER_TOKEN
        price, error_usd = runner.prices.get(base.model.name), runner.task.value.error_usd
        if error_usd and price is not None:
            million = price.dollars(Usage(base.model.name, input_tokens=1_000_000))
            return tokens * million / 1e6 / error_usd
        fitted = base.fit(runner.task, runner.prepared.split.train, np.random.default_rng(0))
        inputs = [example.input for example in runner.prepared.split.dev[:5]]
        lengths = [sum(len(message.content) for message in render(p)) for p in fitted.prompts(inputs)]
        return runner.task.limits.margin * tokens / (float(np.mean(lengths)) / CHARACTERS_PER_TOKEN)


def _as_answer(trial: Trial) -> SearchAnswer:
    text = trial.answer or "" if trial.format_ok else f"an unreadable answer ({trial.error})"
    return SearchAnswer(trial.score, text, trial.why or "")


def _search_answers(replies: Sequence[Reply], gradings: Sequence[Grading]) -> list[SearchAnswer]:
    """What the search sees; an answer without a grade counts as the mean of those with one."""
    scores = [grading.score for grading in gradings if grading.score is not None]
    if not scores:
        raise ModelError(f"the judge graded none of {len(gradings)} answers: {gradings[0].why}")
    return [
        SearchAnswer(
            float(np.mean(scores)) if grading.score is None else grading.score,
            str(reply.answer) if reply.format_ok else f"{reply.text} ({reply.error})",
            grading.why,
        )
        for reply, grading in zip(replies, gradings, strict=True)
    ]
