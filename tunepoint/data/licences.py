"""Which examples may be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from tunepoint.data.examples import Example
from tunepoint.errors import DataError
from tunepoint.task.task import Task


def forbids_training(task: Task, example: Example) -> str | None:
    """Why an example may not be trained on; None if it may."""
    closed = task.data.no_training if task.data else ()
    if example.licence and example.licence.casefold() in [name.casefold() for name in closed]:
        return f"licence {example.licence}"
    origin = example.origin.split(",")[0].strip().casefold()
    writer = next((model for model in task.models if model.name.casefold() == origin), None)
    if writer is not None and writer.train_on_outputs is False:
        return f"written by {writer.name}"
    return None


def open_to_training(task: Task, examples: Sequence[Example]) -> list[Example]:
    """The examples that may be trained on; perhaps none."""
    return [example for example in examples if forbids_training(task, example) is None]


def trainable(task: Task, examples: Sequence[Example]) -> list[Example]:
    """The examples that weights may learn from; a prompt may show the others as well.

    Raises:
        DataError: none of them may be trained on.

    """
    kept = open_to_training(task, examples)
    if examples and not kept:
        raise DataError(
            f"none of the {len(examples)} training examples may be trained on "
            f"({forbids_training(task, examples[0])}, ...): bring rows of another licence, or correct "
            "data.no_training and [[models]] train_on_outputs"
        )
    return kept
