"""A gate for CI: is a changed prompt or model no worse than a baseline, on a fixed set of examples?"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import scipy

from tunepoint.arms.prompting.candidates import chat_arms
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.written import WrittenPromptArm
from tunepoint.data.examples import Example
from tunepoint.data.prepare import prepare
from tunepoint.decision.numbers import percent, points, points_range, rounded_up, tiny_usd
from tunepoint.errors import StudyError, TaskError, nearest
from tunepoint.files.machine import cores
from tunepoint.files.text import make_folder, write_text
from tunepoint.models.budget import Budget
from tunepoint.models.chat import Reply
from tunepoint.models.opening import ChatModels
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.chat_models import open_chat_models
from tunepoint.task.task import Task
from tunepoint.trials.grading import grade_replies, task_scorer
from tunepoint.trials.judge import Judge
from tunepoint.trials.table import joint_of
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import Trial, read_trials

Status = Literal["passed", "failed", "unclear"]
LEVEL = 0.90
"""Of the two-sided interval: one side fails with 5%, as non-inferiority is tested (ICH E9, section 3.3.2)."""
BATCH = 50
"""Answers between two looks at the budget."""
MIN_COMMON = 0.5
"""Share of the examples that candidate and baseline must have in common: new rows move the split."""
MIN_LOSING = 3
"""Groups that got worse from which their own spread says enough."""
MAX_WORSE_SHOWN = 20
CANDIDATE, BASELINE = "candidate", "baseline"
Arm = WrittenPromptArm | ChatPrompt


@dataclass(frozen=True)
class Check:
    """One thing that must not get worse."""

    name: str
    status: Status
    words: str


@dataclass(frozen=True)
class Regression:
    """An example that the baseline got right, or more right."""

    item: str
    before: str
    now: str


@dataclass(frozen=True)
class Gate:
    """What the gate found."""

    candidate: str
    baseline: str
    items: int
    checks: tuple[Check, ...]
    worse: tuple[Regression, ...]
    better: int
    """Examples that are more right now."""

    @property
    def status(self) -> Status:
        """Failed if any check is, else unclear if any is."""
        statuses = {check.status for check in self.checks}
        return "failed" if "failed" in statuses else "unclear" if "unclear" in statuses else "passed"


@dataclass(frozen=True)
class Limits:
    """What may get worse, and by how much."""

    margin: float
    """Of the score and of the share of readable answers, 0..1."""
    cost_increase: float | None = None
    """Of an answer's cost, as a share; None for no limit."""


def measure_candidate(
    task: Task, option: str | None, items: int, calls: Path, max_usd: float | None, seed: int = 0
) -> list[Trial]:
    """Ask a prompt about the fixed set: the first examples outside the sealed test set, by the seed's order.

    Args:
        task: with the prompt in [[prompts]], or an instruction, and a chat model.
        option: name of the option; the only written prompt if None, else the plain instruction.
        items: examples.
        calls: recording, from which what was asked before is answered for free.
        max_usd: stop before spending more on calls.
        seed: of the split.

    Raises:
        TunepointError: there is no such option, a model cannot be called, or the cap is reached; answers
            are kept in the recording.

    """
    prepared = prepare(task, seed)
    split = prepared.split
    pool = [*split.dev, *split.train]
    # by their content, not by their place: a row that is added moves no other example
    examples = sorted((replace(e, id=_identity(e, seed)) for e in pool), key=lambda e: e.id)[:items]
    clusters = {_identity(e, seed): split.clusters.get(e.id) for e in pool}
    make_folder(calls.parent)
    budget = Budget(max_usd, task.costs.core_hour_usd.likely / 3600 * cores())
    with open_chat_models(task, calls, budget) as models:
        arm = _chosen(task, models, option)
        fitted = arm.fit(task, split.train, np.random.default_rng(seed))
        scorer = task_scorer(task) if models.judge is None else Judge(models.judge, task)
        trials: list[Trial] = []
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            replies = fitted.answer([example.input for example in batch])
            gradings = grade_replies(scorer, replies, batch)
            for example, reply, grading in zip(batch, replies, gradings, strict=True):
                if grading.score is not None:
                    cluster = clusters[example.id]
                    trials.append(_trial(arm.label, example, reply, grading.score, cluster, models))
    if not trials:
        raise StudyError(f"{task.name}: no answer was graded, so there is nothing to compare")
    return trials


def _identity(example: Example, seed: int) -> str:
    """A name of an example by what it asks and what is right."""
    content = f"{seed}\n{example.input}\n{example.target}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _trial(
    arm: str, example: Example, reply: Reply, score: float, cluster: str | None, models: ChatModels
) -> Trial:
    price = models.prices.get(reply.usage.model)
    return Trial(
        arm=arm,
        item=example.id,
        score=score,
        cluster=cluster,
        format_ok=reply.format_ok,
        input_tokens=reply.usage.input_tokens or None,
        output_tokens=reply.usage.output_tokens or None,
        cost_usd=None if price is None else round(price.dollars(reply.usage), 12),
        answer=reply.answer if reply.answer is not None else reply.text,
    )


def _chosen(task: Task, models: ChatModels, option: str | None) -> Arm:
    """The option to ask.

    Raises:
        TaskError: there is none, or several and none was named.

    """

    def embed(texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        raise TaskError("a prompt that retrieves examples has no fixed words; gate another one")

    arms = chat_arms(task, models.chats, embed)
    fixed: list[Arm] = [
        arm
        for arm in arms
        if isinstance(arm, WrittenPromptArm)
        or (isinstance(arm, ChatPrompt) and not arm.style.retrieved and not arm.style.shows_examples)
    ]
    if not fixed:
        raise TaskError(f"{task.folder}: names no chat model, so there is no prompt to gate ([[models]])")
    if option is not None:
        named = next((arm for arm in fixed if option in (arm.name, arm.label)), None)
        if named is None:
            raise TaskError(f"--option {option!r}: {nearest(option, [arm.name for arm in fixed])}")
        return named
    written = [arm for arm in fixed if isinstance(arm, WrittenPromptArm)]
    if len(written) > 1:
        names = "; ".join(arm.name for arm in written)
        raise TaskError(f"{len(written)} prompts could be meant; name one with --option: {names}")
    return (written or fixed)[0]


def read_baseline(path: Path) -> list[Trial]:
    """Return the trials of a baseline.

    Raises:
        StudyError: the file is missing.
        TrialsError: the file is damaged.

    """
    if not path.exists():
        raise StudyError(f"{path}: no baseline yet; --update writes one from today's prompt and model")
    return read_trials(path)


def write_baseline(path: Path, trials: Sequence[Trial]) -> None:
    """Write the trials of an option as the baseline of later gates."""
    make_folder(path.parent)
    write_text(path, "".join(trial.line() for trial in trials))


def compare_with_baseline(
    candidate: Sequence[Trial], baseline: Sequence[Trial], limits: Limits, seed: int = 0
) -> Gate:
    """Compare two options on the examples that both have answered.

    Args:
        candidate: trials of the changed option.
        baseline: of the option that it is compared with.
        limits: what may get worse.
        seed: of the draws behind the intervals.

    Raises:
        StudyError: they share too few examples, or one of them holds several options.
        EvidenceError: fewer than two independent groups of examples.

    """
    pairs = [_named(candidate, CANDIDATE), _named(baseline, BASELINE)]
    common = {trial.item for trial in pairs[0]} & {trial.item for trial in pairs[1]}
    if len(common) < MIN_COMMON * min(len({trial.item for trial in trials}) for trials in pairs):
        raise StudyError(
            f"candidate and baseline share {len(common)} of {len(pairs[0])} examples: the data has changed; "
            "write the baseline anew (--update)"
        )
    pairs = _grouped_alike(pairs, common)
    score = _difference(pairs, seed)
    readable = _difference([[_as_readable(trial) for trial in trials] for trials in pairs], seed)
    before, now = (_by_item(trials) for trials in pairs[::-1])
    worse = sorted(item for item in common if now[item].score < before[item].score)
    shown = [Regression(item, before[item].answer or "", now[item].answer or "") for item in worse]
    checks = [
        _checked("right answers", score, limits.margin, len(common)),
        _checked("readable answers", readable, limits.margin, len(common)),
        *_cost_checks(before, now, sorted(common), limits.cost_increase),
    ]
    return Gate(
        candidate[0].arm,
        baseline[0].arm,
        len(common),
        tuple(checks),
        tuple(shown),
        sum(now[item].score > before[item].score for item in common),
    )


def _by_item(trials: Sequence[Trial]) -> dict[str, Trial]:
    """The first answer to each item, with the mean score of all answers to it."""
    grouped: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        grouped[trial.item].append(trial)
    return {
        item: own[0].model_copy(update={"score": float(np.mean([trial.score for trial in own]))})
        for item, own in grouped.items()
    }


def _named(trials: Sequence[Trial], name: str) -> list[Trial]:
    arms = sorted({trial.arm for trial in trials})
    if len(arms) != 1:
        raise StudyError(f"the {name} holds {len(arms)} options ({', '.join(arms)}); give one")
    return [trial.model_copy(update={"arm": name}) for trial in trials]


def _grouped_alike(pairs: Sequence[Sequence[Trial]], common: Set[str]) -> list[list[Trial]]:
    """The trials of the common examples, both sides in the candidate's groups, whose names are today's."""
    clusters = {trial.item: trial.cluster for trials in pairs[::-1] for trial in trials}
    kept = [[trial for trial in trials if trial.item in common] for trials in pairs]
    return [[t.model_copy(update={"cluster": clusters[t.item]}) for t in trials] for trials in kept]


def _as_readable(trial: Trial) -> Trial:
    return trial.model_copy(update={"score": float(trial.format_ok), "grades": None, "human": None})


def _difference(pairs: Sequence[Sequence[Trial]], seed: int) -> Interval:
    """Candidate less baseline, with an interval of 90%."""
    table = tabulate([*pairs[0], *pairs[1]], [CANDIDATE, BASELINE])
    interval = compare(joint_of(table), [(0, 1)], stream(seed, Stream.DECISION), level=LEVEL)[0].difference
    if table.clusters is None:
        return interval
    # A whole group may fail together. Too few have lost for the bootstrap to show it, so the largest group
    # stands for the losses that were not seen.
    sizes = np.bincount(np.unique(table.clusters, return_inverse=True)[1])
    lead = table.arms[0].scores.mean(axis=0) - table.arms[1].scores.mean(axis=0)
    losing = len(np.unique(table.clusters[lead < 0]))
    if losing >= MIN_LOSING:
        return interval
    unseen = float(scipy.stats.beta.ppf(0.95, losing + 1, len(sizes) - losing))
    reach = unseen * float(sizes.max()) * len(sizes) / len(lead)
    return replace(interval, low=min(interval.low, max(-1.0, -reach)))


def _checked(name: str, difference: Interval, margin: float, items: int) -> Check:
    words = f"{points(difference.estimate)} ({points_range(difference.low, difference.high)}, 90%)"
    if difference.low > -margin:
        return Check(name, "passed", f"{words}: not worse by more than {100 * margin:g} points")
    if difference.high < -margin:
        return Check(name, "failed", f"{words}: worse by more than {100 * margin:g} points")
    return Check(name, "unclear", f"{words}: {_more_examples(difference, margin, items)}")


def _more_examples(difference: Interval, margin: float, items: int) -> str:
    """What would settle it: the interval shrinks with the root of the examples, its middle stays."""
    reach, room = difference.estimate - difference.low, difference.estimate + margin
    if room <= 0:
        return f"no number of examples shows a difference of {points(difference.estimate)} to be above it"
    needed = rounded_up(max(1, int(np.ceil(items * ((reach / room) ** 2 - 1)))))
    return f"could be worse by more than {100 * margin:g} points; about {needed:,} more examples would tell"


def _cost_checks(
    before: dict[str, Trial], now: dict[str, Trial], items: Sequence[str], most: float | None
) -> list[Check]:
    """The mean cost of an answer, where both have one."""
    costs = [(before[item].cost_usd, now[item].cost_usd) for item in items]
    known = [(was, is_now) for was, is_now in costs if was is not None and is_now is not None]
    if len(known) < len(costs):
        words = f"{len(costs) - len(known)} of {len(costs)} answers have no cost on one of the sides"
        return [] if most is None else [Check("cost", "unclear", f"{words}, so a limit cannot be checked")]
    was, is_now = (float(np.mean(side)) for side in zip(*known, strict=True))
    change = is_now / was - 1 if was else float("inf") if is_now else 0.0
    grown = "from nothing" if change == float("inf") else f"{100 * change:+.0f}%"
    words = f"{tiny_usd(is_now)} an answer, before {tiny_usd(was)} ({grown})"
    failed = most is not None and change > most
    limit = "" if most is None else f"; the limit is {percent(most)} more"
    return [Check("cost", "failed" if failed else "passed", words + limit)]


def limits_of(task: Task, margin: float | None, cost_increase: float | None) -> Limits:
    """Return the limits of a gate: the task's margin, unless another is asked for."""
    return Limits(float(task.limits.margin) if margin is None else margin, cost_increase)
