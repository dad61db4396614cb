"""A study decided again at another volume, horizon or price; no model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.arms_toml import read_arms
from tunepoint.costs.declared_costs import declared_cost
from tunepoint.decision.verdict import Decision, decide
from tunepoint.errors import StudyError, TaskError
from tunepoint.files.amounts import as_file_content
from tunepoint.files.foreign_json import mapping, read_json
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.labelling.counting import pooled
from tunepoint.study.manifest import Manifest, read_manifest
from tunepoint.study.repricing import NewPrices, Rates, reprice
from tunepoint.task.task import Task
from tunepoint.trials.human_grades import apply_grades
from tunepoint.trials.table import Table
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import Trial, read_trials

ECONOMIC_SECTIONS = ("traffic", "limits", "value", "costs")
"""Sections of a task that change a decision and no measurement."""


@dataclass(frozen=True)
class Scenario:
    """What differs from the study."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the task, as in `traffic.queries_per_month`, and their values."""
    prices: Mapping[str, Rates] = field(default_factory=dict)
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

    manifest: Manifest
    task: Task
    table: Table
    costs: Sequence[ArmCost]

    def decide(self, task: Task, costs: Sequence[ArmCost]) -> Decision:
        """Decide on the same trials, with the same random draws."""
        return decide(self.table, costs, task, stream(self.manifest.seed, Stream.DECISION))


def reopen(study: Path) -> Reopened:
    """Read what a study decided on.

    Raises:
        StudyError: the folder is no study that has decided.

    """
    manifest = read_manifest(study)
    task = task_of(study)
    table = pooled(tabulate(_trials(study, manifest), manifest.finalists), study)
    declared = read_arms(study / "arms.toml")
    costs = [declared_cost(declared[scores.arm], scores) for scores in table.arms]
    return Reopened(manifest, task, table, costs)


def what_if(study: Path, scenario: Scenario) -> WhatIf:
    """Decide on a study's trials again, as it was and under a scenario.

    Raises:
        StudyError: the folder is no study that has decided.
        TaskError: a key or a value that a task does not have, or a model that no arm calls.

    """
    reopened = reopen(study)
    before = reopened.decide(reopened.task, reopened.costs)
    task = _changed(reopened.task, scenario.settings)
    changes = NewPrices(scenario.prices, scenario.cache_hit)
    costs, notes = reprice(reopened.costs, reopened.table, reopened.manifest, changes)
    return WhatIf(before, reopened.decide(task, costs), tuple(notes))


def _trials(study: Path, manifest: Manifest) -> list[Trial]:
    """The trials that the study decided on, with what people gave them."""
    trials = read_trials(study / "trials.jsonl")
    decided = manifest.decided
    if decided is None:
        return trials  # a study of before the manifest listed them: it decided on all
    runs = set(decided.runs)
    counted = [trial for trial in trials if (trial.arm, trial.seed, trial.decode) in runs]
    return apply_grades(counted, {(item, answer): grade for item, answer, grade in decided.people})


def task_of(study: Path) -> Task:
    """Read the traffic, limits, value and costs with which a study was decided.

    Raises:
        StudyError: it has not decided yet.

    """
    path = study / "decision.json"
    if not path.exists():
        raise StudyError(
            f"{study}: no decision.json, so it has not decided yet; resume it with `tunepoint run`"
        )
    content = mapping(read_json(path, StudyError, advice="run the study again"))
    assumptions = mapping(mapping(content.get("provenance")).get("assumptions"))
    if not assumptions:
        raise StudyError(f"{path}: holds no provenance.assumptions; run the study again")
    return Task.parse({"name": content.get("task"), **as_file_content(assumptions)}, where=str(path))


def _changed(task: Task, settings: Mapping[str, Any]) -> Task:
    content: dict[str, Any] = {
        "name": task.name,
        **as_file_content(task.model_dump(mode="json", include={*ECONOMIC_SECTIONS, "currencies"})),
    }
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if section not in ECONOMIC_SECTIONS or not key:
            raise TaskError(
                f"{name!r} cannot be changed here: give a key of {', '.join(ECONOMIC_SECTIONS)}, as in "
                "traffic.queries_per_month; anything else has to be measured"
            )
        content[section][key] = value
    return Task.parse(content, where="the scenario")
