"""Another volume, horizon or price on what a study has measured: decided again, and nobody asked."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.arms_toml import declared_cost, read_arms
from tunepoint.costs.prices import money
from tunepoint.decision.verdict import Decision, decide
from tunepoint.errors import StudyError, TaskError, nearest
from tunepoint.files.amounts import TokenPrice, as_given
from tunepoint.stats.arrays import Floats
from tunepoint.stats.moments import mean_of
from tunepoint.stats.ranges import Range, quantiles
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.directory import read_manifest
from tunepoint.task.task import Task
from tunepoint.trials.human_grades import apply_grades
from tunepoint.trials.table import ArmScores, Table, tabulate
from tunepoint.trials.trial import Trial, read_trials

ECONOMIC = ("traffic", "limits", "value", "costs")
"""Sections of a task that decide anew and measure nothing."""
RATES = ("input", "cached_input", "output")


@dataclass(frozen=True)
class Scenario:
    """What shall be otherwise."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the task, as in `traffic.queries_per_month`, and their values."""
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Model -> `input`, `cached_input`, `output` in dollars per million tokens; the others stay."""
    cache_hit: float | None = None
    """Share of the calls whose static prompt is found in the cache, 0..1; as measured if None."""


@dataclass(frozen=True)
class WhatIf:
    """A study as it was decided, and under a scenario."""

    before: Decision
    after: Decision
    notes: tuple[str, ...] = ()
    """What the scenario could not change, and why."""


@dataclass(frozen=True)
class Reopened:
    """A study's trials, costs and assumptions, as they were decided on."""

    manifest: Mapping[str, Any]
    task: Task
    table: Table
    costs: Sequence[ArmCost]

    def decide(self, task: Task, costs: Sequence[ArmCost]) -> Decision:
        """Decide on the same trials, with the randomness of then."""
        return decide(self.table, costs, task, stream(int(self.manifest["seed"]), Stream.DECISION))


def reopen(study: Path) -> Reopened:
    """What a study decided on.

    Raises:
        StudyError: the folder is no study that has decided.

    """
    manifest = read_manifest(study)
    task = task_of(study)
    table = tabulate(_trials(study, manifest), manifest["sealed_test"]["finalists"])
    declared = read_arms(study / "arms.toml")
    costs = [declared_cost(declared[scores.arm], scores) for scores in table.arms]
    return Reopened(manifest, task, table, costs)


def what_if(study: Path, scenario: Scenario) -> WhatIf:
    """Decide on a study's trials again, as it was and under a scenario.

    Raises:
        StudyError: the folder is no study that has decided.
        TaskError: a key or a value that a task does not have, or a model that no arm asks.

    """
    found = reopen(study)
    before = found.decide(found.task, found.costs)
    changed = _changed(found.task, scenario.settings)
    others, notes = _priced(found.costs, found.table, found.manifest, scenario)
    return WhatIf(before, found.decide(changed, others), tuple(notes))


def _trials(study: Path, manifest: Mapping[str, Any]) -> list[Trial]:
    """The trials that the study decided on, with what people gave them."""
    found = read_trials(study / "trials.jsonl")
    decided = manifest.get("decided")
    if decided is None:
        return found
    runs = {tuple(run) for run in decided["runs"]}
    used = [trial for trial in found if (trial.arm, trial.seed, trial.decode) in runs]
    return apply_grades(used, {(item, answer): grade for item, answer, grade in decided["people"]})


def task_of(study: Path) -> Task:
    """Traffic, limits, value and costs with which a study was decided.

    Raises:
        StudyError: it has not decided yet.

    """
    path = study / "decision.json"
    if not path.exists():
        raise StudyError(f"{study}: no decision.json; `tunepoint run` goes on until there is one")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Task.parse(
        {"name": content["task"], **as_given(content["provenance"]["assumptions"])}, where=str(path)
    )


def _changed(task: Task, settings: Mapping[str, Any]) -> Task:
    content: dict[str, Any] = {
        "name": task.name,
        **as_given(task.model_dump(mode="json", include={*ECONOMIC, "currencies"})),
    }
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if section not in ECONOMIC or not key:
            raise TaskError(
                f"{name!r} cannot be asked for: give a key of {', '.join(ECONOMIC)}, as in "
                "traffic.queries_per_month; anything else has to be measured"
            )
        content[section][key] = value
    return Task.parse(content, where="the scenario")


def _priced(
    costs: Sequence[ArmCost], table: Table, manifest: Mapping[str, Any], scenario: Scenario
) -> tuple[list[ArmCost], list[str]]:
    """The costs with answers at other prices, and what could not be priced anew."""
    asked: dict[str, dict[str, dict[str, float] | None]] = {
        scores.arm: manifest["arms"][scores.arm].get("models", {}) for scores in table.arms
    }
    known = sorted({name for models in asked.values() for name, rates in models.items() if rates})
    for name, rates in scenario.prices.items():
        if name not in known:
            raise TaskError(f"no finalist pays for {name!r}; {nearest(name, known)}")
        for rate in rates:
            if rate not in RATES:
                raise TaskError(f"price {name}.{rate}: {nearest(rate, RATES)}")
    found, notes = [], []
    for cost, scores in zip(costs, table.arms, strict=True):
        models = asked[scores.arm]
        touched = scenario.cache_hit is not None or bool(models.keys() & scenario.prices.keys())
        paid = len(scores.cost_usd) > 0 and cost.dedicated is None
        single = len(models) == 1 and cost.kind != "cascade"
        if touched and paid and single and not np.isnan(scores.tokens[:, [0, 2]]).any():
            ((name, rates_),) = models.items()
            price = {**(rates_ or {}), **scenario.prices.get(name, {})}
            paid_now = mean_of(_dollars(scores, price, scenario.cache_hit))
            at = Range.parse(paid_now.value)
            found.append(
                replace(cost, usd_per_query=at, query_error_usd=paid_now.error, query_skew=paid_now.skew)
            )
        else:
            found.append(cost)
            if touched and cost.dedicated is not None:
                notes.append(f"{scores.arm}: runs on reserved machines, which no price of tokens changes")
            elif touched and paid and not single:
                notes.append(f"{scores.arm}: several models answer for it, so its price stays as measured")
            elif touched and paid:
                notes.append(f"{scores.arm}: its trials lack tokens, so its price stays as measured")
    return found, notes


def _dollars(scores: ArmScores, price: Mapping[str, float], cache_hit: float | None) -> Floats:
    """Dollars of each answer at these rates per million tokens."""
    given, cached, output = scores.tokens[:, 0], np.nan_to_num(scores.tokens[:, 1]), scores.tokens[:, 2]
    if cache_hit is not None:
        cached = np.full(len(given), cache_hit * given.min())  # no more can be common to all prompts
    return TokenPrice(**price).dollars(given, cached, output)


VOLUMES = tuple(float(f"{10**k * step:g}") for k in range(2, 8) for step in (1, 2, 5))
"""Queries a month in the table of costs."""


def costs_csv(found: WhatIf) -> str:
    """Costs of every arm by volume, both scenarios: a header and a row for each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    bands = [f"{what}_{name}" for what in ("month_usd", "horizon_usd") for name in ("low", "likely", "high")]
    writer.writerow(["scenario", "arm", "kind", "queries_per_month", *bands])
    for name, decision in (("as decided", found.before), ("what if", found.after)):
        costs = decision.evidence.costs
        for volume in VOLUMES:
            month, horizon = costs.per_month(volume), costs.horizon(volume)
            for i, arm in enumerate(costs.arms):
                band = [quantiles(values[:, i]) for values in (month, horizon)]
                numbers = [money(value) for one in band for value in (one.low, one.likely, one.high)]
                writer.writerow([name, arm, decision.finalist(arm).kind, f"{volume:g}", *numbers])
    return out.getvalue()
