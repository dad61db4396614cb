"""What runs today, as an arm: its logged outputs are scored, and nothing is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm, NotRun
from tunepoint.arms.templates import base_template
from tunepoint.data.examples import Example
from tunepoint.errors import StudyError
from tunepoint.models.chat import Prompt, Reply, Usage
from tunepoint.models.endpoints import reply_of
from tunepoint.models.production_log import ProductionLog, read_production_log
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

MIN_LOG_COVERAGE = 0.9
"""Share of the test set that a log must answer.

Items without an output are dropped for every arm, so a thin log would cost all of them evidence.
"""


@dataclass
class FittedIncumbent(LocalFittedArm):
    """A log that answers."""

    name: str
    outputs: ProductionLog
    template: Prompt
    ids: Mapping[Input, str]
    built: Built = field(default_factory=lambda: Built(0))

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return the logged replies, parsed like those of any model."""
        return [self._reply(text) for text in inputs]

    def _reply(self, text: Input) -> Reply:
        output = self.outputs.output_for(self.ids.get(text, ""), text)
        if output is None:
            return Reply("", None, Usage(self.name), format_ok=False, error="not in the log")
        return reply_of(replace(self.template, input=text), output)


@dataclass
class Incumbent:
    """The system in production, from its log of inputs and outputs."""

    name: str
    outputs: ProductionLog
    ids: Mapping[Input, str] = field(repr=False)
    """Input -> id of the example, for logs that name ids."""
    base_model: str
    """As the task names the log, `recorded:LOG.jsonl`: which model is behind it, the log does not say."""
    kind: ArmKind = "incumbent"
    family: str = "incumbent"
    label: str = "what runs today"
    remote: ClassVar[bool] = True
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedIncumbent:
        """Learn nothing; `train` only gives the labels."""
        return FittedIncumbent(self.name, self.outputs, base_template(task, train), self.ids)

    def covered(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples that the log has an output for."""
        return [
            example for example in examples if self.outputs.output_for(example.id, example.input) is not None
        ]


def incumbent_arms(
    task: Task, examples: Sequence[Example], test: Sequence[Example]
) -> tuple[list[Incumbent], list[NotRun]]:
    """Return the incumbents that a task names as `recorded:LOG.jsonl`, and those with too thin a log.

    Raises:
        DataError: a log is missing or cannot be read.
        StudyError: the log of what has to be replaced is too thin.

    """
    ids = {example.input: example.id for example in examples}
    logs = task.logs()
    replaced = {model.name for model in task.models if model.replaced}
    incumbents, not_run = [], []
    for name, path in logs.items():
        arm = Incumbent(path.stem, read_production_log(path, name), ids, name)
        if len(logs) > 1:
            arm.label = f"{arm.label} ({arm.name})"  # readers must be able to tell them apart
        answered = len(arm.covered(test))
        if answered < MIN_LOG_COVERAGE * len(test) and name in replaced:
            raise StudyError(
                f"{path}: what has to be replaced cannot be compared: {_too_thin(answered, len(test))}"
            )
        if answered < MIN_LOG_COVERAGE * len(test):
            not_run.append(NotRun(arm.name, _too_thin(answered, len(test))))
        else:
            incumbents.append(arm)
    return incumbents, not_run


def _too_thin(answered: int, items: int) -> str:
    return (
        f"its log answers {answered} of {items} test items, and {MIN_LOG_COVERAGE:.0%} are needed: log more "
        "requests, or build the examples from requests in the log"
    )
