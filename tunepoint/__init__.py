"""Tunepoint measures whether to prompt or to fine-tune, on the user's own task.

The public names, in the order in which data flows. They are loaded when first used, so that
`import tunepoint` is quick and brings neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunepoint.arms.contract import Arm, FittedArm
    from tunepoint.costs.arm_cost import ArmCost
    from tunepoint.data.examples import Example
    from tunepoint.data.prepare import prepare
    from tunepoint.decision.verdict import Decision, decide
    from tunepoint.errors import TunepointError
    from tunepoint.models.chat import Prompt, Reply
    from tunepoint.study.conclusion import Result
    from tunepoint.study.external import decide_trials
    from tunepoint.study.run import run
    from tunepoint.task.task import Task
    from tunepoint.trials.tabulation import tabulate
    from tunepoint.trials.trial import Trial, read_trials

__version__ = "0.1.0"

_HOMES = {
    "Task": "tunepoint.task.task",
    "Example": "tunepoint.data.examples",
    "prepare": "tunepoint.data.prepare",
    "Prompt": "tunepoint.models.chat",
    "Reply": "tunepoint.models.chat",
    "Arm": "tunepoint.arms.contract",
    "FittedArm": "tunepoint.arms.contract",
    "Trial": "tunepoint.trials.trial",
    "read_trials": "tunepoint.trials.trial",
    "tabulate": "tunepoint.trials.tabulation",
    "ArmCost": "tunepoint.costs.arm_cost",
    "Decision": "tunepoint.decision.verdict",
    "decide": "tunepoint.decision.verdict",
    "Result": "tunepoint.study.conclusion",
    "decide_trials": "tunepoint.study.external",
    "run": "tunepoint.study.run",
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
