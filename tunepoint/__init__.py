"""Tunepoint measures whether to prompt or to fine-tune, on the user's own task.

The public names, in the order in which data flows. They are loaded when first used, so that
`import tunepoint` is quick and brings neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunepoint.arms import Arm, FittedArm
    from tunepoint.cost.prices import ArmCost
    from tunepoint.data.examples import Example
    from tunepoint.decisions import Decision, decide
    from tunepoint.errors import TunepointError
    from tunepoint.measure.prepare import prepare
    from tunepoint.measure.tables import tabulate
    from tunepoint.measure.trials import Trial, read_trials
    from tunepoint.models.chat import Prompt, Reply
    from tunepoint.studies import Result, decide_trials, run
    from tunepoint.task import Task

__version__ = "0.1.0"

_HOMES = {
    "Task": "tunepoint.task",
    "Example": "tunepoint.data.examples",
    "prepare": "tunepoint.measure.prepare",
    "Prompt": "tunepoint.models.chat",
    "Reply": "tunepoint.models.chat",
    "Arm": "tunepoint.arms",
    "FittedArm": "tunepoint.arms",
    "Trial": "tunepoint.measure.trials",
    "read_trials": "tunepoint.measure.trials",
    "tabulate": "tunepoint.measure.tables",
    "ArmCost": "tunepoint.cost.prices",
    "Decision": "tunepoint.decisions",
    "decide": "tunepoint.decisions",
    "Result": "tunepoint.studies",
    "decide_trials": "tunepoint.studies",
    "run": "tunepoint.studies",
    "TunepointError": "tunepoint.errors",
}

__all__ = [
    "Arm",
    "ArmCost",
    "Decision",
    "Example",
    "FittedArm",
    "Prompt",
    "Reply",
    "Result",
    "Task",
    "Trial",
    "TunepointError",
    "decide",
    "decide_trials",
    "prepare",
    "read_trials",
    "run",
    "tabulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunepoint' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
