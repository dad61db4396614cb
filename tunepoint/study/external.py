"""Trials that another tool measured, decided."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.arms_toml import read_arms
from tunepoint.costs.declared_costs import declared_cost, guessed_cost
from tunepoint.decision.document import document
from tunepoint.decision.economics import economics
from tunepoint.decision.signals import Facts, measure_signals
from tunepoint.decision.slices import by_slice
from tunepoint.decision.verdict import decide
from tunepoint.errors import StudyError, TrialsError, nearest
from tunepoint.files.text import make_folder
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.conclusion import Result, write_files
from tunepoint.study.items import write_items
from tunepoint.study.manifest import MANIFEST
from tunepoint.task.task import Task
from tunepoint.trials.table import Table
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import read_trials


def decide_trials(
    trials: Path | str,
    task: Task,
    *,
    arms: Path | str | None = None,
    out: Path | str | None = None,
    seed: int = 0,
) -> Result:
    """Decide on trials that any tool measured.

    Args:
        trials: a JSONL file with `arm`, `item` and `score` on every line.
        task: its traffic, limits, value and costs.
        arms: arms.toml with kind and cost of each arm; guessed from names and trials if None.
        out: folder for decision.json and the report; nothing is written if None.
        seed: of the decision's draws.

    Raises:
        TrialsError: the files do not follow their format, or name different arms.

    """
    measured = read_trials(Path(trials))
    table = tabulate(measured)
    costs = _costs(table, Path(arms) if arms is not None else None)
    decision = decide(table, costs, task, stream(seed, Stream.DECISION))
    content = document(
        decision,
        task,
        measure_signals(decision, task, Facts()),
        slices=by_slice(table, [cost.kind for cost in costs], stream(seed, Stream.SLICES)),
        provenance={"trials": Path(trials).name, "seed": seed},
        today=datetime.now(UTC).date(),
    )
    measurements = {"economics": economics(decision, task)}
    folder = None if out is None else Path(out)
    if folder is not None:
        if (folder / MANIFEST).exists():
            raise StudyError(f"{folder}: is a study that was measured here; choose another --out")
        make_folder(folder)
        write_items(folder, measured, table.names)
        write_files(folder, content, measurements)
    return Result(decision, content, folder)


def _costs(table: Table, arms: Path | None) -> list[ArmCost]:
    """The costs that arms.toml declares, or guesses without it."""
    if arms is None:
        return [guessed_cost(scores) for scores in table.arms]
    declared = read_arms(arms)
    for name in table.names:
        if name not in declared:
            raise TrialsError(f"{arms}: no [[arm]] named {name!r}; {nearest(name, declared)}")
    return [declared_cost(declared[scores.arm], scores) for scores in table.arms]
