"""How right an answer is, from 0 to 1."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from tunepoint.data.examples import Example
from tunepoint.errors import TaskError, nearest

Scorer = Callable[[str, Example], float]
"""(answer, example) -> score in 0..1; higher is better. It must not raise."""


def exact(answer: str, example: Example) -> float:
    """1 when the answer is the target, up to case and outer spaces; else 0."""
    return float(answer.strip().casefold() == example.target.strip().casefold())


SCORERS: dict[str, Scorer] = {"exact": exact}


def scorer(name: str) -> Scorer:
    """The scorer of that name, or the function that `package.module:function` names.

    Raises:
        TaskError: no such scorer, or nothing to import under that name.

    """
    if name in SCORERS:
        return SCORERS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise TaskError(
            f"score.metric {name!r} is not one of the scorers of this version; "
            f"{nearest(name, SCORERS)} Your own is named as 'package.module:function'"
        )
    try:
        return cast(Scorer, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as error:
        raise TaskError(f"score.metric {name!r} cannot be imported: {error}") from None
