"""What kind of field each path of the targets is: one to find in the input, one to choose, or neither."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunepoint.arms.encoder.json_values import ABSENT, Path, as_text, leaves, target_of, values_of
from tunepoint.arms.encoder.places import find_places
from tunepoint.data.examples import Example

MIN_STANDING_SHARE = 0.8
"""A field is looked for in the inputs if at least this share of its values stands there."""
MAX_CHOICES = 100
"""Different values of a field that is chosen."""
MIN_EXAMPLES_PER_CHOICE = 5
"""On average, for a field that is chosen."""


@dataclass(frozen=True)
class Field:
    """One field of the answers, named by its path through nested objects.

    Its attributes are keys of files: those of runs and of exported graphs.
    """

    path: Path
    how: Literal["span", "choice"]
    many: bool = False
    """Whether it is a list."""
    repeats: bool = False
    """Whether a list names the same value twice."""
    numeric: bool = False
    empty: str = ABSENT
    """What stands there when nothing is found: JSON, or `absent` where the key is left out."""
    choices: tuple[str, ...] = ()
    """The values of a choice, as JSON; `absent` among them where some examples lack the field."""

    @property
    def name(self) -> str:
        """The path, readable."""
        return "/".join(self.path)


def detect_fields(train: Sequence[Example]) -> list[Field | str]:
    """Return the fields of training targets, in the order of their paths; a sentence for each unusable one.

    Raises:
        DataError: a target is not a JSON object.

    """
    uses: dict[Path, list[tuple[Example, Any]]] = {}
    for example in train:
        for path, value in leaves(target_of(example)):
            uses.setdefault(path, []).append((example, value))
    objects = {path[:depth] for path in uses for depth in range(1, len(path))}
    fields: list[Field | str] = []
    for path in sorted(uses):
        if path not in objects:
            fields.append(_detect(path, uses[path], len(train)))
        elif any(values_of(value) for _, value in uses[path]):
            fields.append(f"{'/'.join(path)} is an object in some targets and none in others")
    return fields


def _detect(path: Path, uses: Sequence[tuple[Example, Any]], examples: int) -> Field | str:
    """Return what kind of field this is, or why it is unusable."""
    name, contents = "/".join(path), [content for _, content in uses]
    values = [(example, value) for example, content in uses for value in values_of(content)]
    if not values:
        return f"{name} is empty in all {len(contents)} targets that have it"
    if any(isinstance(value, (dict, list)) for _, value in values):
        return f"{name} holds lists of objects"
    many = any(isinstance(content, list) for content in contents)
    standing = sum(bool(find_places(example.input, as_text(value))) for example, value in values)
    is_boolean = any(isinstance(value, bool) for _, value in values)  # "true" in a text is a word like others
    if standing >= MIN_STANDING_SHARE * len(values) and not is_boolean:
        return Field(
            path,
            "span",
            many,
            repeats=many and any(len(set(map(str, vs))) < len(vs) for vs in map(values_of, contents)),
            numeric=all(isinstance(value, (int, float)) for _, value in values),
            empty=_usual_empty(contents, examples),
        )
    keys = sorted({json.dumps(value, ensure_ascii=False) for _, value in values})
    if many or len(keys) > MAX_CHOICES or len(keys) * MIN_EXAMPLES_PER_CHOICE > len(values):
        return (
            f"{name}: {standing} of its {len(values)} values stand in the input, and it has {len(keys)} "
            "different ones, so it can neither be found there nor be chosen"
        )
    if any(not values_of(content) for content in contents) or len(contents) < examples:
        keys.append(ABSENT)
    return Field(path, "choice", empty=_usual_empty(contents, examples), choices=tuple(keys))


def _usual_empty(contents: Sequence[Any], examples: int) -> str:
    """Return what the targets have most often where the field is empty: JSON, or `absent`."""
    counts = Counter(json.dumps(content) for content in contents if not values_of(content))
    counts[ABSENT] = examples - len(contents)
    return counts.most_common(1)[0][0]
