"""Scorers: how right an answer is, from 0 to 1."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tunepoint.data.examples import Example
from tunepoint.errors import TaskError, nearest
from tunepoint.models.label_matching import caseless_key
from tunepoint.models.numbers import equal_numbers, plain_number
from tunepoint.task.sections import JUDGE

Scorer = Callable[[str, Example], float]
"""(answer, example) -> score in 0..1; higher is better. A bad answer scores 0 and never raises."""


def exact(answer: str, example: Example) -> float:
    """Return 1 if the answer is the target, up to case and outer spaces; else 0."""
    return float(caseless_key(answer) == caseless_key(example.target))


def f1(answer: str, example: Example) -> float:
    """Return the F1 of two sets: JSON lists, or what stands between commas, semicolons, bars or line ends."""
    return f1_of_sets(_set(answer), _set(example.target))


def f1_of_sets(answer: Set[Any], target: Set[Any]) -> float:
    """Return the harmonic mean of precision and recall (van Rijsbergen 1979); two empty sets agree."""
    if not answer and not target:
        return 1.0
    return 2 * len(answer & target) / (len(answer) + len(target))


def _set(text: str) -> set[str]:
    """Return the members of a list, which people write with separators and models as JSON too."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    members = map(_member, value) if isinstance(value, list) else re.split(r"[,;|\n]", text.strip("[](){}"))
    keys = (caseless_key(member.strip(" \t\"'")) for member in members)
    return {key for key in keys if key}


def _member(value: Any) -> str:
    """Return a member of a JSON list as text: an object with its keys in order."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def numeric(answer: str, example: Example, tolerance: float = 1e-6) -> float:
    """Return 1 if both are numbers that differ by at most `tolerance`, absolutely or relatively; else 0.

    Both are read as people write them, by `plain_number`. A target that is no number is right
    where the answer is the same text.
    """
    number, target = plain_number(answer), plain_number(example.target)
    if number is None or target is None:
        return exact(answer, example)
    return float(equal_numbers(number, target, tolerance))


def json_fields(answer: str, example: Example) -> float:
    """Return the share of fields that are right: the F1 of the (path, value) pairs of both objects."""
    fields, target = json_leaves(answer), json_leaves(example.target)
    if fields is None or target is None:
        return exact(answer, example)  # a target that is no JSON is right where the answer is the same text
    return f1_of_sets(fields, target)


def json_whole(answer: str, example: Example) -> float:
    """Return 1 if every field is right and none is superfluous; else 0."""
    fields, target = json_leaves(answer), json_leaves(example.target)
    return exact(answer, example) if fields is None or target is None else float(fields == target)


def json_leaves(text: str) -> set[tuple[str, str]] | None:
    """Return the leaves of a JSON value as (path, value), without empty ones; None if it is not JSON."""
    try:
        return set(_leaves("", json.loads(text)))
    except (ValueError, RecursionError):
        return None


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every leaf."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _leaves(f"{path}/{key}", member)
    elif isinstance(value, list):
        # Without positions: the same members in another order are as right.
        for member in value:
            yield from _leaves(f"{path}/*", member)
    elif value is not None and value != "":
        # A field that is null or missing says the same, and so does a number as text.
        yield path, " ".join(str(value).split()).casefold()


def similarity(answer: str, example: Example) -> float:
    """Return the normalized Indel similarity of two texts, 0..1, up to case and spaces."""
    from rapidfuzz.distance import Indel

    text, target = (" ".join(text.split()).casefold() for text in (answer, example.target))
    return float(Indel.normalized_similarity(text, target))


SCORERS: dict[str, Scorer] = {
    "exact": exact,
    "f1": f1,
    "numeric": numeric,
    "json_fields": json_fields,
    "json_whole": json_whole,
    "similarity": similarity,
}
"""By the name in `score.metric`."""


def scorer(name: str, folder: Path = Path(), *, tolerance: float | None = None) -> Scorer:
    """Return the scorer of a name, or the user's own, named as `package.module:function`.

    Args:
        name: as in `score.metric`.
        folder: of task.toml; modules beside it can be named.
        tolerance: of `numeric`; its default if None.

    Raises:
        TaskError: the name is unknown or cannot be imported, or (when the scorer is
            called) its result is not a number from 0 to 1.

    """
    if name == "numeric" and tolerance is not None:
        return partial(numeric, tolerance=tolerance)
    if name in SCORERS:
        return SCORERS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise TaskError(
            f"score.metric {name!r} is not a scorer; {nearest(name, (*SCORERS, JUDGE))} "
            "Name your own as 'package.module:function'"
        )
    with _importing_from(folder):
        try:
            own = getattr(importlib.import_module(module), function)
        except Exception as error:  # the user's module may raise anything
            raise TaskError(
                f"score.metric {name!r} cannot be imported from {folder.resolve()}: "
                f"{type(error).__name__}: {error}"
            ) from None
    if not callable(own):
        raise TaskError(f"score.metric {name!r} is {own!r}; expected a function of answer and example")
    return _checked(name, own)


def scorer_code(name: str, folder: Path = Path()) -> str | None:
    """Return the SHA-256 of the module of a user's scorer, without running it.

    None for Tunepoint's own, and for a module that is not found.
    """
    # Part of a study's identity: scores by another version of the scorer are not comparable.
    if name in SCORERS or ":" not in name:
        return None
    # Found as a file and not by the import system, which would run the packages above the module.
    parts = name.partition(":")[0].split(".")
    for root in (folder, Path.cwd(), *map(Path, sys.path)):
        stem = root.joinpath(*parts)
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def _checked(name: str, function: Callable[[str, Example], Any]) -> Scorer:
    """Wrap a user's function, so that its faults become errors that name it and the example."""

    def score(answer: str, example: Example) -> float:
        try:
            value = function(answer, example)
        except Exception as error:
            raise TaskError(
                f"score.metric {name!r} raised {type(error).__name__}: {error} on {example.id} "
                f"(answer {answer!r}); Tunepoint calls it with the answer and the example"
            ) from None
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise TaskError(
                f"score.metric {name!r} returned {value!r} on {example.id}; expected a number from 0 to 1"
            )
        return float(value)

    return score


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Make the modules in the folder and in the working directory importable."""
    original = list(sys.path)
    sys.path[:0] = [str(folder.resolve()), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = original
