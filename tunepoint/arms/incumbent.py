"""What runs today, as an arm: its recorded outputs are scored, and nothing is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm, NotRun
from tunepoint.arms.templates import base_template
from tunepoint.data.examples import Example
from tunepoint.models.chat import Prompt, Reply, Usage
from tunepoint.models.endpoints import reply_of
from tunepoint.models.recording import Log, read_log
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

COVERED = 0.9
"""Share of the test that a log must cover: what it leaves out is left out for every arm."""


@dataclass
class FittedIncumbent(LocalFittedArm):
    """A log that answers."""

    name: str
    outputs: Log
    template: Prompt
    ids: Mapping[Input, str]
    built: Built = field(default_factory=lambda: Built(0))

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """The recorded replies, read as any model's are."""
        return [self._reply(text) for text in inputs]

    def _reply(self, text: Input) -> Reply:
        found = self.outputs.of(self.ids.get(text, ""), text)
        if found is None:
            return Reply("", None, Usage(self.name), format_ok=False, error="not in the log")
        return reply_of(replace(self.template, input=text), found)


@dataclass
class Incumbent:
    """The system in production, from its log of inputs and outputs."""

    name: str
    outputs: Log
    ids: Mapping[Input, str] = field(repr=False)
    """Input -> id of the example, for logs that name ids."""
    kind: ArmKind = "incumbent"
    family: str = "incumbent"
    label: str = "what runs today"
    remote: ClassVar[bool] = True
    seeds: int = 1

    @property
    def base_model(self) -> str:
        """The name of its log in task.toml."""
        return self.name

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedIncumbent:
        """Nothing is learnt; `train` only says which labels there are."""
        return FittedIncumbent(self.name, self.outputs, base_template(task, train), self.ids)

    def covered(self, examples: Sequence[Example]) -> list[Example]:
        """The examples that the log has an output for."""
        return [e for e in examples if self.outputs.of(e.id, e.input) is not None]


def incumbent_arms(
    task: Task, examples: Sequence[Example], test: Sequence[Example]
) -> tuple[list[Incumbent], list[NotRun]]:
    """The incumbents that a task names as `recorded:LOG.jsonl`, and those whose log covers too little.

    Raises:
        DataError: a log that is missing or cannot be read.

    """
    ids = {example.input: example.id for example in examples}
    found, left = [], []
    for name, path in task.logs().items():
        arm = Incumbent(path.stem, read_log(path, name), ids)
        known = len(arm.covered(test))
        if known < COVERED * len(test):
            left.append(
                NotRun(
                    arm.name,
                    f"its log answers {known} of {len(test)} test items, {COVERED:.0%} are needed: log more, "
                    "or take the examples from what is logged",
                )
            )
        else:
            found.append(arm)
    return found, left
