"""What went wrong during a study that the reader should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from tunepoint.arms.baselines.neighbor_vote import vote_name
from tunepoint.arms.contract import Arm
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.prices import OLD_DAYS
from tunepoint.decision.caveats import MAX_FAILURES_NAMED
from tunepoint.decision.numbers import points_interval
from tunepoint.models.batch.terms import BATCH_WAIT
from tunepoint.models.chat_completions import CHARACTERS_PER_TOKEN, UNCOUNTED
from tunepoint.models.endpoints import AS_USUAL, CallSettings
from tunepoint.models.prices import UNKNOWN_PRICE
from tunepoint.models.replies import ReplyOrigin
from tunepoint.models.retirements import announced_retirement
from tunepoint.stats.comparisons import compare
from tunepoint.study.directory import Study
from tunepoint.study.expected_calls import ITEMS_ASKED_AT_ONCE
from tunepoint.task.sections import EFFORT
from tunepoint.task.task import Task
from tunepoint.trials.table import joint_of
from tunepoint.trials.tabulation import tabulate

MAX_REPLY_CHARACTERS = 120
"""Of a reply that a warning quotes."""


def training_warnings(study: Study) -> list[str]:
    """Return what looked wrong in the training runs, each with its arm and seed."""
    curve = {trial.arm for trial in study.curve.trials}  # runs on part of the data look odd by nature
    return [
        f"{study.manifest.title(name)}, seed {seed}: {warning}"
        for name, arm in study.manifest.arms.items()
        if name not in curve
        for seed, fit in arm.fits.items()
        for warning in fit.warnings
    ]


def _refused(abilities: Mapping[str, Any], settings: CallSettings) -> list[str]:
    """The settings of a task that a server does not take."""
    own = {"temperature": settings.temperature is not None, "seed": settings.seed != 0}
    without = [name for name, given in own.items() if given and abilities.get(name) is False]
    return [*abilities.get("refused", ()), *without]


def model_warnings(study: Study, task: Task, today: date) -> list[str]:
    """Return what servers refused, which calls failed, and which prices are unknown or old."""
    notices = {model.name: announced_retirement(model.name) for model in task.models if not model.retires}
    warnings = [notice.sentence(name, today) for name, notice in notices.items() if notice]
    settings = {model.name: model.settings for model in task.models}
    efforts = {model.name: model.efforts for model in task.models}
    for name, facts in study.manifest.models.items():
        failures = dict(facts.asked_again)
        uncounted = failures.pop(UNCOUNTED, 0)
        if uncounted:
            warnings.append(
                f"{name}: its server counted no tokens in {uncounted} replies; their cost is estimated "
                f"by their length, {CHARACTERS_PER_TOKEN} characters a token"
            )
        refused = _refused(facts.abilities or {}, settings.get(name, AS_USUAL))
        if EFFORT in refused and efforts.get(name):
            refused.remove(EFFORT)
            warnings.append(
                f"{name}: its server refused one of the efforts {', '.join(efforts[name])}. From then on it "
                "was asked without any, so its options are not what their names say. Leave out the effort "
                "that it does not take, and run a new study"
            )
        if refused:
            warnings.append(
                f"{name}: its server takes no {', '.join(refused)}, so it was asked without; take it out of "
                "[[models]], or name another model"
            )
        reasons = ", ".join(f"{reason} ({count})" for reason, count in failures.items())
        if reasons:
            warnings.append(f"{name}: calls that failed or were repeated: {reasons}")
        if facts.price == UNKNOWN_PRICE:
            warnings.append(f"{name}: {UNKNOWN_PRICE}")
        if facts.price_checked is None:
            continue
        days = (today - date.fromisoformat(facts.price_checked)).days
        if days > OLD_DAYS:
            warnings.append(
                f"{name}: its price was checked {days} days ago ({facts.price_checked}, {facts.price}); "
                "[[models]] price overrides it"
            )
    return warnings


def unreadable_warnings(study: Study) -> list[str]:
    """Return which prompts were stopped because their answers cannot be read, each with a reply."""
    warnings = []
    for name, result in study.manifest.races.items():
        if result.unreadable is None:
            continue
        unread = sum(not trial.format_ok for trial in study.dev.of(name))
        reply = " ".join(result.unreadable.split())[:MAX_REPLY_CHARACTERS]
        warnings.append(
            f"{study.manifest.title(name)} ({name}): stopped after {result.items} validation examples; "
            f"{unread} of its answers could not be read, as in {reply!r}"
        )
    return warnings


def recording_warnings(recorded: Mapping[str, ReplyOrigin]) -> list[str]:
    """Return which models were not asked now, and where their seconds come from."""
    return [
        f"{origin.title}: it was not asked now; its replies, seconds and costs are a recording of "
        f"{origin.day.isoformat()} ({origin.runtime} on {origin.processor}, {origin.settings}; weights "
        f"SHA-256 {origin.weights_sha256})"
        for origin in recorded.values()
    ]


def anew_warnings(study: Study) -> list[str]:
    """Return which answers got a second chance."""
    return [
        f"{study.manifest.title(entry.arm)}: {entry.answers} {entry.part} answers could not be read and were "
        f"asked for once more on {entry.on} (--fresh); an option with a second chance looks better than it is"
        for entry in study.manifest.asked_anew
    ]


def batch_warnings(task: Task, costs: Sequence[ArmCost]) -> list[str]:
    """Return which prices count on answers that wait, and which seconds are those of few answers."""
    warnings = []
    discounted = [cost.title for cost in costs if cost.batch_discount]
    if discounted and task.traffic.batch_share:
        warnings.append(
            f"{task.traffic.batch_share:.0%} of the queries are priced by batch (traffic.batch_share): these "
            f"wait {BATCH_WAIT}. It makes these cheaper: {', '.join(discounted)}"
        )
    elif task.traffic.batch_share:
        warnings.append(
            "traffic.batch_share changes nothing: no option's model has a batch API that is known"
        )
    asked = [model.name for model in task.models if model.batch]
    if asked:
        warnings.append(
            f"{', '.join(asked)}: calls went by batch, so its seconds are those of the first "
            f"{ITEMS_ASKED_AT_ONCE} test answers, which were asked at once"
        )
    return warnings


def judge_warnings(study: Study, task: Task, finalists: Sequence[str]) -> list[str]:
    """Return which test answers the judge could not grade, and whether it grades its own answers."""
    if task.score.judge is None:
        return []
    warnings = []
    test = set(study.manifest.items.test)
    for name in finalists:
        reasons = [
            f"{item}: {reason}"
            for item, reason in study.manifest.ungraded.get(name, {}).items()
            if item in test
        ]
        if reasons:
            warnings.append(
                f"{study.manifest.title(name)}: the judge could not grade {len(reasons)} of its answers "
                f"({'; '.join(reasons[:MAX_FAILURES_NAMED])}); their items are left out for every option"
            )
    if task.score.judge.name in [model.name for model in task.models]:
        warnings.append(
            f"{task.score.judge.name} also grades its own answers, and models favor what they wrote: name "
            "another score.judge, or let people grade"
        )
    return warnings


def copying_warnings(study: Study, winners: Sequence[Arm]) -> list[str]:
    """Return which retrieved prompts are no better than the vote of the examples that they show.

    Args:
        study: with the validation set measured.
        winners: the best prompt of each family.

    """
    warnings = []
    for arm in winners:
        if not isinstance(arm, ChatPrompt) or not arm.style.retrieved:
            continue
        vote = vote_name(arm.style.retrieved)
        trials = [trial for trial in study.dev.trials if trial.arm in (arm.name, vote)]
        if len({trial.arm for trial in trials}) < 2:
            continue
        difference = compare(joint_of(tabulate(trials, [arm.name, vote])), [(0, 1)], np.random.default_rng(0))
        gain = difference[0].difference
        if gain.low <= 0:
            warnings.append(
                f"{arm.label}: a vote of the same {arm.style.retrieved} examples, without any model, does as "
                f"well on the validation set (the model adds {points_interval(gain)})"
            )
    return warnings
