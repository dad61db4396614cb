"""What an encoder can read out of an input: values that stand in it, and choices among a few values.

A JSON target becomes places in its input to learn from, and places become JSON again.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunepoint.data.examples import Example
from tunepoint.errors import DataError

STANDS = 0.8
"""Share of a field's values that must stand in their inputs for the field to be looked for there."""
MOST_CHOICES = 100
FEWEST_EACH = 5
"""Examples for each value, on average, of a field that is chosen."""
ABSENT = "absent"
Path = tuple[str, ...]
Place = tuple[int, int]
"""Where a value starts and ends in its input, in characters."""


@dataclass(frozen=True)
class Field:
    """One field of the answers, named by its path through nested objects."""

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


@dataclass(frozen=True)
class Marked:
    """An input with the places of its values."""

    text: str
    spans: tuple[tuple[int, Place], ...]
    """(number of the field, place)"""
    unclear: tuple[Place, ...]
    """Further places of the same values: they may be meant or not, and are not learnt from."""
    choices: tuple[int, ...]
    """The value of each choice, by its number; -1 for one that training did not have."""


@dataclass(frozen=True)
class Fields:
    """The fields of a task's answers that an encoder can give, and those that it cannot."""

    spans: tuple[Field, ...]
    choices: tuple[Field, ...]
    left_out: tuple[str, ...] = ()
    """Why, one sentence a field."""

    @classmethod
    def read(cls, train: Sequence[Example]) -> Fields:
        """The fields of training targets.

        Raises:
            DataError: a target is not a JSON object, or no field can be read out of the inputs.

        """
        seen: dict[Path, list[tuple[Example, Any]]] = {}
        for example in train:
            for path, value in leaves(target_of(example)):
                seen.setdefault(path, []).append((example, value))
        objects = {path[:depth] for path in seen for depth in range(1, len(path))}
        found = [
            f"{'/'.join(path)} is an object in some targets and none in others"
            if path in objects and any(_values(value) for _, value in seen[path])
            else _field(path, seen[path], len(train))
            for path in sorted(seen)
            if path not in objects or any(_values(value) for _, value in seen[path])
        ]
        fields = [one for one in found if isinstance(one, Field)]
        reasons = tuple(one for one in found if isinstance(one, str))
        if not fields:
            raise DataError(
                f"no field of the {len(train)} targets can be read out of its input: "
                + ("; ".join(reasons[:3]) or "the targets are empty")
            )
        return cls(
            tuple(one for one in fields if one.how == "span"),
            tuple(one for one in fields if one.how == "choice"),
            reasons,
        )

    def mark(self, example: Example) -> Marked:
        """The places of an example's values in its input."""
        given = dict(leaves(target_of(example)))
        wanted = [
            (number, _shown(value))
            for number, field in enumerate(self.spans)
            for value in _values(given.get(field.path))
        ]
        spans, taken = [], list[Place]()
        for number, value in sorted(wanted, key=lambda pair: -len(pair[1])):  # long ones hold short ones
            place = next((one for one in places(example.input, value) if not _meets(one, taken)), None)
            if place is not None:
                spans.append((number, place))
                taken.append(place)
        further = {
            place for _, value in wanted for place in places(example.input, value) if not _meets(place, taken)
        }
        choices = tuple(
            field.choices.index(key) if (key := _key(given.get(field.path))) in field.choices else -1
            for field in self.choices
        )
        return Marked(example.input, tuple(spans), tuple(sorted(further)), choices)

    def missing(self, marked: Sequence[Marked], train: Sequence[Example]) -> int:
        """Values of spans that do not stand in their inputs."""
        values = sum(
            len(_values(dict(leaves(target_of(example))).get(field.path)))
            for example in train
            for field in self.spans
        )
        return values - sum(len(one.spans) for one in marked)

    def answer(self, text: str, spans: Sequence[tuple[int, Place, float]], choices: Sequence[int]) -> str:
        """The JSON object of what was found.

        Args:
            spans: (number of the field, place, probability), in the order of the text.
            choices: the value of each choice, by its number.

        """
        content: dict[str, Any] = {}
        for number, field in enumerate(self.spans):
            mine = [(odds, text[slice(*place)]) for which, place, odds in spans if which == number]
            _put(content, field, _found(field, mine))
        for field, choice in zip(self.choices, choices, strict=True):
            key = field.choices[choice]
            _put(content, field, None if key == ABSENT else [json.loads(key)])
        return json.dumps(content, ensure_ascii=False, sort_keys=True)

    def document(self) -> dict[str, Any]:
        """The fields as JSON keeps them."""
        return {"spans": [vars(one) for one in self.spans], "choices": [vars(one) for one in self.choices]}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Fields:
        """What `document` wrote."""

        def field(facts: Mapping[str, Any]) -> Field:
            return Field(**{**facts, "path": tuple(facts["path"]), "choices": tuple(facts["choices"])})

        return cls(tuple(map(field, content["spans"])), tuple(map(field, content["choices"])))


def target_of(example: Example) -> dict[str, Any]:
    """The target as an object.

    Raises:
        DataError: it is none.

    """
    try:
        value = json.loads(example.target)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{example.id}: its target is not JSON ({error}); mend or remove it") from None
    if not isinstance(value, dict):
        raise DataError(f"{example.id}: its target is {example.target[:60]!r}, a JSON object is expected")
    return value


def leaves(content: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Scalars and lists of an object with their paths."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def places(text: str, value: str) -> list[Place]:
    """Where a value stands in a text as whole words, whatever the spaces; in other case if not as it is."""
    words = value.split()
    if not words:
        return []
    start, end = words[0][0], words[-1][-1]
    pattern = r"\s+".join(map(re.escape, words))
    pattern = pattern if _unspaced(start) else r"(?<!\w)" + pattern
    pattern = pattern if _unspaced(end) else pattern + r"(?!\w)"
    found = [match.span() for match in re.finditer(pattern, text)]
    return found or [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]


def _unspaced(letter: str) -> bool:
    """Whether words of its script stand without spaces between them, as in Chinese, Japanese or Thai."""
    return unicodedata.category(letter) == "Lo" and not unicodedata.name(letter, "").startswith(SPACED)


SPACED = ("ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU", "HANGUL", "ETHIOPIC", "GEORGIAN")
"""Scripts whose letters have no case, and whose words have spaces."""


def _field(path: Path, uses: Sequence[tuple[Example, Any]], examples: int) -> Field | str:
    """What kind of field this is, or why it is none that can be read."""
    name, given = "/".join(path), [value for _, value in uses]
    many = any(isinstance(value, list) for value in given)
    values = [(example, one) for example, value in uses for one in _values(value)]
    if not values:
        return f"{name} is empty in all {len(given)} targets that have it"
    if any(isinstance(one, (dict, list)) for _, one in values):
        return f"{name} holds lists of objects"
    empty = Counter(json.dumps(value) for value in given if not _values(value))
    empty[ABSENT] = examples - len(given)
    nothing = empty.most_common(1)[0][0]
    standing = sum(bool(places(example.input, _shown(one))) for example, one in values)
    if standing >= STANDS * len(values) and not any(isinstance(one, bool) for _, one in values):
        return Field(
            path,
            "span",
            many,
            repeats=many and any(len(set(map(str, value))) < len(value) for value in map(_values, given)),
            numeric=all(isinstance(one, (int, float)) for _, one in values),
            empty=nothing,
        )
    keys = sorted({json.dumps(one, ensure_ascii=False) for _, one in values})
    if many or len(keys) > MOST_CHOICES or len(keys) * FEWEST_EACH > len(values):
        return (
            f"{name}: {standing} of its {len(values)} values stand in the input, and it has {len(keys)} "
            "different ones: it can neither be found there nor be chosen"
        )
    if any(not _values(value) for value in given) or len(given) < examples:
        keys.append(ABSENT)
    return Field(path, "choice", empty=nothing, choices=tuple(keys))


def _values(value: Any) -> list[Any]:
    """The values of a field, none for an empty one."""
    several = value if isinstance(value, list) else [value]
    return [one for one in several if one is not None and one not in ("", {})]


def _key(value: Any) -> str:
    values = _values(value)
    return json.dumps(values[0], ensure_ascii=False) if values else ABSENT


def _shown(value: Any) -> str:
    """A value as an input would have it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _meets(place: Place, taken: Sequence[Place]) -> bool:
    return any(place[0] < end and start < place[1] for start, end in taken)


def _found(field: Field, mine: Sequence[tuple[float, str]]) -> list[Any] | None:
    """The values of a field, the most probable one where it has one; None for nothing."""
    if not mine:
        return None
    chosen = [text for _, text in mine] if field.many else [max(mine)[1]]
    if not field.repeats:
        chosen = list(dict.fromkeys(chosen))
    return [_number(text) for text in chosen] if field.numeric else list(chosen)


_NUMBER = re.compile(r"[-+]?(\d{1,3}(?:[, ]\d{3})+|\d+)(?:([.,])(\d+))?")


def _number(text: str) -> int | float | str:
    """A number as people write it, `1,500` and `1,5` and `1.5`; the text where it is none."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return text
    sign = -1 if text.strip().startswith("-") else 1
    whole, _, rest = found.groups()
    digits = re.sub(r"[, ]", "", whole)
    return sign * (float(f"{digits}.{rest}") if rest else int(digits))


def _put(content: dict[str, Any], field: Field, values: list[Any] | None) -> None:
    """Set a field of a nested object, or what stands there when nothing is found."""
    for key in field.path[:-1]:
        content = content.setdefault(key, {})
    if values is not None:
        content[field.path[-1]] = values if field.many else values[0]
    elif field.empty != ABSENT:
        content[field.path[-1]] = json.loads(field.empty)
