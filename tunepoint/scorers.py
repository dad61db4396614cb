"""How right an answer is, from 0 to 1."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunepoint.data.examples import Example
from tunepoint.errors import TaskError, nearest

Scorer = Callable[[str, Example], float]
"""(answer, example) -> score in 0..1; higher is better. It must not raise."""


def exact(answer: str, example: Example) -> float:
    """1 when the answer is the target, up to case and outer spaces; else 0."""
    return float(answer.strip().casefold() == example.target.strip().casefold())


SCORERS: dict[str, Scorer] = {"exact": exact}


def scorer(name: str, folder: Path = Path()) -> Scorer:
    """The scorer of that name, or the user's own that `package.module:function` names.

    Args:
        folder: of task.toml; modules beside it can be named.

    Raises:
        TaskError: no such scorer, nothing to import under that name, or (when it is
            called) a result that is not a number from 0 to 1.

    """
    if name in SCORERS:
        return SCORERS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise TaskError(
            f"score.metric {name!r} is not one of the scorers of this version; "
            f"{nearest(name, SCORERS)} Your own is named as 'package.module:function'"
        )
    with _importing_from(folder):
        try:
            found = getattr(importlib.import_module(module), function)
        except Exception as error:  # the user's module may raise anything
            raise TaskError(
                f"score.metric {name!r} cannot be imported from {folder.resolve()}: "
                f"{type(error).__name__}: {error}"
            ) from None
    if not callable(found):
        raise TaskError(f"score.metric {name!r} is {found!r}; a function of answer and example is expected")
    return _checked(name, found)


def scorer_code(name: str, folder: Path = Path()) -> str | None:
    """SHA-256 of the module of a user's scorer; None for those that come along."""
    if name in SCORERS or ":" not in name:
        return None
    with _importing_from(folder):
        try:
            spec = importlib.util.find_spec(name.partition(":")[0])
        except (ImportError, ValueError):
            return None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _checked(name: str, function: Callable[[str, Example], Any]) -> Scorer:
    """The user's function, whose faults are said in the user's words."""

    def score(answer: str, example: Example) -> float:
        try:
            value = function(answer, example)
        except Exception as error:
            raise TaskError(
                f"score.metric {name!r} raised {type(error).__name__}: {error} on {example.id} "
                f"(answer {answer!r}); it is called with the answer and the example"
            ) from None
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise TaskError(
                f"score.metric {name!r} gave {value!r} on {example.id}; a number from 0 to 1 is expected"
            )
        return float(value)

    return score


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let modules in the folder, and in the working directory, be imported."""
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before
