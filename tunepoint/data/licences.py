"""Which examples may be trained on, by their licenses and by the terms of the models that wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from tunepoint.data.examples import Example
from tunepoint.errors import DataError
from tunepoint.task.task import Task


def forbids_training(task: Task, example: Example) -> str | None:
    """Return why an example may not be trained on; None if it may."""
    closed = task.data.no_training if task.data else ()
    if example.licence and example.licence.casefold() in [name.casefold() for name in closed]:
        return f"licence {example.licence}"
    name = example.writer.casefold()
    writer = next((model for model in task.models if model.name.casefold() == name), None)
    if writer is not None and writer.train_on_outputs is False:
        return f"written by {writer.name}"
    return None


def open_to_training(task: Task, examples: Sequence[Example]) -> list[Example]:
    """Return the examples that may be trained on, perhaps none."""
    return [example for example in examples if forbids_training(task, example) is None]


def trainable(task: Task, examples: Sequence[Example]) -> list[Example]:
    """Return the examples that weights may learn from; a prompt may show the others as well.

    Raises:
        DataError: there are examples, but none may be trained on.

    """
    allowed = open_to_training(task, examples)
    if examples and not allowed:
        raise DataError(
            f"none of the {len(examples)} training examples may be trained on "
            f"({forbids_training(task, examples[0])}, ...): add rows under another license, or correct "
            "data.no_training and [[models]] train_on_outputs"
        )
    return allowed


def why_untrainable(task: Task, train: Sequence[Example]) -> str | None:
    """Return why no example may be trained on; None if some may."""
    try:
        trainable(task, train)
    except DataError as error:
        return str(error)
    return None
