"""Targets by their kind: which say the same, which cannot be read, which stand for no value."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tunepoint.data.examples import Example
from tunepoint.data.table import counted, python_literal
from tunepoint.models.chat import AnswerKind
from tunepoint.models.numbers import plain_number

MAX_QUOTED_CHARACTERS = 60
"""Characters of a target that a message repeats."""
MISSING_WORDS = frozenset({"nan", "<na>", "n/a", "#n/a", "na", "nat", "null", "none"})
"""What programs write for a value that is not there; each may be a label all the same."""
_WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0+)?")
"""A whole number, perhaps with the decimals that pandas adds to a column with gaps."""


@dataclass(frozen=True)
class UnreadableTarget:
    """A target that is not what its task says it is. It counts as right only if an answer repeats it."""

    id: str
    """Of the example."""
    target: str
    """Its beginning."""
    reason: str
    """What it is not."""


def meaning_of(kind: AnswerKind) -> Callable[[str], str]:
    """Return the function that writes equal targets of a kind alike, such as the numbers `4` and `4.0`."""
    return {"number": _number_meaning, "json": _json_meaning}.get(kind, str)


def _number_meaning(target: str) -> str:
    number = plain_number(target)
    if number is None:
        return target
    return f"{float(number.rstrip('%'))!r}{'%' if number.endswith('%') else ''}"


def _json_meaning(target: str) -> str:
    try:
        return json.dumps(json.loads(target), sort_keys=True)
    except (ValueError, RecursionError):
        return target


def unreadable_targets(kind: AnswerKind, examples: Sequence[Example]) -> tuple[UnreadableTarget, ...]:
    """Return the targets that are no number or no JSON, in tasks of these kinds."""
    fault_of = {"number": _number_fault, "json": _json_fault}.get(kind)
    if fault_of is None:
        return ()
    faults = ((example, fault_of(example.target)) for example in examples)
    return tuple(
        UnreadableTarget(example.id, example.target[:MAX_QUOTED_CHARACTERS], fault)
        for example, fault in faults
        if fault
    )


def _number_fault(target: str) -> str | None:
    return None if plain_number(target) is not None else "no number"


def _json_fault(target: str) -> str | None:
    try:
        value = json.loads(target)
    except (ValueError, RecursionError):
        is_python = in_python_notation(target)
        return "Python's notation, not JSON; write it with json.dumps" if is_python else "no JSON"
    return None if isinstance(value, (dict, list)) else "no JSON object or list"


def in_python_notation(text: str) -> bool:
    """Whether a text is a dictionary or list as Python prints it, with `None`, `True` or single quotes."""
    return text[:1] in ("{", "[") and isinstance(python_literal(text), (dict, list))


def unify_labels(
    parts: Mapping[str, Sequence[Example]], declared: Sequence[str]
) -> tuple[dict[str, list[Example]], list[str]]:
    """Write labels such as `1` and `1.0` alike, in all parts.

    Args:
        parts: examples of each file.
        declared: labels of task.toml; their spelling counts, else that of the whole number.

    Returns:
        The parts, and a note of each label that was written in two ways.

    """
    targets = Counter(example.target for part in parts.values() for example in part)
    spelling = label_spellings(list(targets), declared)
    unified = {
        name: [replace(example, target=spelling.get(example.target, example.target)) for example in part]
        for name, part in parts.items()
    }
    notes = [
        f"{counted(targets[other], 'target')} {other!r} counted as the label {label!r}"
        for other, label in spelling.items()
    ]
    return unified, notes


def label_spellings(targets: Sequence[str], declared: Sequence[str] = ()) -> dict[str, str]:
    """Return the targets that are another spelling of a label: target -> label."""
    labels = {key: label for label in declared if (key := _whole_number(label)) is not None}
    for target in sorted(targets, key=len):
        key = _whole_number(target)
        if key is not None and target not in declared:
            labels.setdefault(key, target)
    spellings = {}
    for target in targets:
        label = labels.get(_whole_number(target) or "", target)
        if label != target and target not in declared:
            spellings[target] = label
    return spellings


def _whole_number(text: str) -> str | None:
    match = _WHOLE_NUMBER.fullmatch(text)
    return match[1] if match else None


def missing_values(examples: Sequence[Example]) -> list[str]:
    """Return a note of each target that reads like a missing value."""
    suspects = [example for example in examples if example.target.casefold() in MISSING_WORDS]
    counts = Counter(example.target for example in suspects)
    first = {example.target: example.id for example in reversed(suspects)}
    return [
        f"{counted(count, 'target')} {target!r}, the first at {first[target]}: if that means a missing "
        "value, leave those cells empty"
        for target, count in counts.items()
    ]
