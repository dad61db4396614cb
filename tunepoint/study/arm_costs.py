"""What a measured arm costs.

Its calls where they have a price, its machines where some are reserved for it, else its seconds here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np

from tunepoint.arms.cascade import Cascade
from tunepoint.arms.contract import Arm, HasTrainingTime, OnReservedMachines, TunedByProvider
from tunepoint.arms.incumbent import Incumbent
from tunepoint.costs.arm_cost import NOTHING, ArmCost
from tunepoint.costs.caching import CachedPrefix
from tunepoint.decision.sides import CONTROL_KINDS, PROMPTED_KINDS
from tunepoint.files.machine import cores
from tunepoint.models.batch.terms import batch_discount
from tunepoint.stats.moments import Mean, mean_of, sum_of
from tunepoint.stats.ranges import Range
from tunepoint.study.cached_prefixes import cached_prefix, uncached_dollars
from tunepoint.study.directory import Study
from tunepoint.study.records import MeasuredArm
from tunepoint.task.hosting import Dedicated
from tunepoint.task.sections import EMBEDDED
from tunepoint.task.task import Task
from tunepoint.trials.table import Table

UNTRAINED_KINDS = (*PROMPTED_KINDS, *CONTROL_KINDS)
"""Kinds that take little work to put into production, and no retraining."""


def measured_costs(arms: Sequence[Arm], study: Study, table: Table, task: Task) -> list[ArmCost]:
    """Return the costs of arms of a study, by the trials of a table and what their training took."""
    return [_measured_cost(arm, study, table, task) for arm in arms]


def _measured_cost(arm: Arm, study: Study, table: Table, task: Task) -> ArmCost:
    fits = list(study.manifest.arms[arm.name].fits.values())
    hosting, hosting_beside = hosting_of(arm, task)
    priced = answer_cost(arm, table, task, study.manifest.arms)
    dollars, seconds = priced.dollars, priced.seconds
    return ArmCost(
        arm.name,
        arm.kind,
        labels=max(fit.examples for fit in fits),
        training_core_seconds=float(np.mean([fit.seconds for fit in fits])) * cores(),
        training_usd=float(np.mean([fit.usd for fit in fits])),
        hours=_hours(arm, task),
        monthly_usd=NOTHING if hosting_beside is None else monthly_usd(hosting_beside, task),
        usd_per_query=Range.parse(dollars.value),
        query_error_usd=dollars.error,
        query_skew=dollars.skew,
        batch_discount=_batch_discount(arm, table),
        core_seconds_per_query=seconds.value,
        core_seconds_error=seconds.error,
        core_seconds_skew=seconds.skew,
        retrain_hours=task.costs.retrain_hours if arm.kind not in UNTRAINED_KINDS else NOTHING,
        rented=_has_price(arm, table) and hosting is None,
        replaced=any(model.replaced and model.name == arm.base_model for model in task.models),
        retires_months=_retires(arm, task),
        deterministic=arm.seeds == 1 and not isinstance(arm, HasTrainingTime),
        dedicated=hosting,
        prefixes=priced.prefixes,
        notes=_unknown_cache(arm, table, priced),
        label=arm.label,
    )


def _unknown_cache(arm: Arm, table: Table, priced: AnswerCost) -> tuple[str, ...]:
    """A caveat where a provider found prompts in a cache of which nothing is known."""
    if priced.prefixes or not _has_price(arm, table):
        return ()
    tokens = table.arms[table.names.index(arm.name)].tokens
    prompt, cached = float(np.nansum(tokens[:, 0])), float(np.nansum(tokens[:, 1]))
    if not cached or arm.kind == "incumbent":
        return ()
    return (
        f"{arm.label}: {cached / prompt:.0%} of its input came from a cache during the study, which asks in "
        "one burst; production's share is not known, so its price is the study's. [[models]] cache says how "
        "its server caches",
    )


def _has_price(arm: Arm, table: Table) -> bool:
    """Whether its answers were paid for."""
    return arm.name in table.names and len(table.arms[table.names.index(arm.name)].cost_usd) > 0


class AnswerCost(NamedTuple):
    """What an answer costs on average."""

    dollars: Mean
    """Of its calls; where there are prefixes, as if nothing were cached."""
    seconds: Mean
    """Of this machine's cores."""
    prefixes: tuple[CachedPrefix, ...] = ()
    """What caches save of the dollars, as traffic has it."""


def answer_cost(arm: Arm, table: Table, task: Task, measured: Mapping[str, MeasuredArm]) -> AnswerCost:
    """Return the dollars and core seconds of an answer; reserved machines add none.

    The cost of a cascade that has a half on reserved machines, behind a cache, or on this machine as a
    language model, is that of its halves: the cheap one answers everything, the strong one the share that
    the gate passed on in the validation set.
    """
    reserved = any(hosting_of(arm, task))
    scores = table.arms[table.names.index(arm.name)] if arm.name in table.names else None
    if isinstance(arm, Cascade):
        halves = [(arm.cheap, 1.0), (arm.strong, arm.escalation_rate)]
        costs = [
            (answer_cost(half, table, task, measured), share)
            for half, share in halves
            if half.name in table.names
        ]
        cached = len(costs) == len(halves) and any(cost.prefixes for cost, _ in costs)
        # Only the answers that a language model of this machine gave have their processor time.
        partly_measured = scores is not None and len(scores.core_seconds) > 0
        if reserved or partly_measured or cached:
            return _sum_of_halves(costs)
    if reserved:
        return AnswerCost(Mean(), Mean())
    assert scores is not None, "what is priced by its answers is in the table"
    if _has_price(arm, table):
        prefix = cached_prefix(scores, measured, task)
        if prefix is None:
            return AnswerCost(mean_of(scores.cost_usd), Mean())
        return AnswerCost(mean_of(uncached_dollars(scores, measured)), Mean(), (prefix,))
    if len(scores.core_seconds):
        return AnswerCost(Mean(), mean_of(scores.core_seconds))
    return AnswerCost(Mean(), mean_of(scores.seconds) * cores())


def _batch_discount(arm: Arm, table: Table) -> float:
    """The share of its price that an arm's answers save by batch; that of a cascade is its paid half's."""
    if isinstance(arm, Cascade):
        # most of its dollars are the strong half's
        paid = [half for half in (arm.strong, arm.cheap) if _has_price(half, table)]
        return _batch_discount(paid[0], table) if paid else 0.0
    model = f"{arm.provider_name}/{arm.base_model}" if isinstance(arm, TunedByProvider) else arm.base_model
    return 0.0 if model is None else batch_discount(model)


def _sum_of_halves(costs: Sequence[tuple[AnswerCost, float]]) -> AnswerCost:
    """The cost of an answer that takes each half with its share."""
    return AnswerCost(
        sum_of([cost.dollars * share for cost, share in costs]),
        sum_of([cost.seconds * share for cost, share in costs]),
        tuple(
            prefix.model_copy(update={"calls": prefix.calls * share})
            for cost, share in costs
            for prefix in cost.prefixes
            if share > 0
        ),
    )


def hosting_of(arm: Arm, task: Task) -> tuple[Dedicated | None, Dedicated | None]:
    """Return the machines reserved for an arm, and those for the cheap half of a cascade beside them.

    The strong half of a cascade gets only the share of the requests that the gate passed on in the
    validation set, so its machines sustain a higher rate of all requests.
    """
    if isinstance(arm, Cascade):
        cheap, strong = hosting_of(arm.cheap, task)[0], hosting_of(arm.strong, task)[0]
        if strong is None:
            return None, cheap
        rate = strong.requests_per_second / max(arm.escalation_rate, 1e-3)
        return strong.model_copy(update={"requests_per_second": rate}), cheap
    if isinstance(arm, OnReservedMachines):
        return arm.hosting, None
    name = arm.base_model if isinstance(arm, Incumbent) else None if arm.remote else EMBEDDED
    return next((model.hosting for model in task.models if model.name == name), None), None


def monthly_usd(hosting: Dedicated, task: Task) -> Range:
    """Return the dollars a month of machines at the task's traffic, growth left out."""
    queries = task.traffic.queries_per_month
    machines = hosting.machines(np.array([queries.low, queries.likely, queries.high]))
    hourly = hosting.usd_per_hour
    rates = (hourly.low, hourly.likely, hourly.high)
    return Range(
        *(float(n) * rate * hosting.hours_per_month for n, rate in zip(machines, rates, strict=True))
    )


def _retires(arm: Arm, task: Task) -> float | None:
    """Months until the announced end of the model that an arm prompts, or is tuned from."""
    day = last_day(arm, task)
    return None if day is None else max(0.1, (day - datetime.now(UTC).date()).days * 12 / 365.25)


def last_day(arm: Arm, task: Task) -> date | None:
    """Return the day on which the first of an arm's models is shut down; None where none is announced."""
    if isinstance(arm, Cascade):
        days = [day for half in (arm.cheap, arm.strong) if (day := last_day(half, task)) is not None]
        return min(days, default=None)
    if isinstance(arm, TunedByProvider):
        base = (arm.base_model, arm.provider_name)
        declared = (tune.retires for tune in task.tune if (tune.base, tune.provider) == base)
        return next(declared, None) or arm.announced_end
    if arm.kind in ("prompt", "incumbent"):
        return next((model.last_day for model in task.models if model.name == arm.base_model), None)
    return None


def _hours(arm: Arm, task: Task) -> Range:
    """Hours of people to put an arm into production; the incumbent is there already."""
    if arm.kind == "incumbent":
        return NOTHING
    return task.costs.prompt_hours if arm.kind in UNTRAINED_KINDS else task.costs.engineering_hours
