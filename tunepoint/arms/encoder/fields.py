"""The fields that an encoder reads out of an input: from a JSON target to places in the input, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunepoint.arms.encoder.detection import Field, detect_fields
from tunepoint.arms.encoder.json_values import (
    ABSENT,
    as_text,
    choice_key,
    leaves,
    parse_number,
    target_of,
    values_of,
)
from tunepoint.arms.encoder.places import Place, find_places, overlaps
from tunepoint.data.examples import Example
from tunepoint.errors import DataError

MAX_NAMED_REASONS = 3


@dataclass(frozen=True)
class Marked:
    """An input with the places of its values."""

    text: str
    spans: tuple[tuple[int, Place], ...]
    """(number of the field, place)"""
    unclear: tuple[Place, ...]
    """Further places of the same values, which may be meant or not; the loss leaves them out."""
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
        """Detect the fields of training targets.

        Raises:
            DataError: a target is not a JSON object, or no field can be read out of the inputs.

        """
        detected = detect_fields(train)
        fields = [field for field in detected if isinstance(field, Field)]
        reasons = tuple(reason for reason in detected if isinstance(reason, str))
        if not fields:
            raise DataError(
                f"no field of the {len(train)} targets can be read out of its input: "
                + ("; ".join(reasons[:MAX_NAMED_REASONS]) or "the targets are empty")
            )
        return cls(
            tuple(field for field in fields if field.how == "span"),
            tuple(field for field in fields if field.how == "choice"),
            reasons,
        )

    def mark(self, example: Example) -> Marked:
        """Return an example with the places of its values."""
        contents = dict(leaves(target_of(example)))
        values = [
            (number, as_text(value))
            for number, field in enumerate(self.spans)
            for value in values_of(contents.get(field.path))
        ]
        spans, occupied = [], list[Place]()
        # Long values first: "York" must not take its place inside of "New York".
        for number, value in sorted(values, key=lambda pair: -len(pair[1])):
            free = (place for place in find_places(example.input, value) if not overlaps(place, occupied))
            place = next(free, None)
            if place is not None:
                spans.append((number, place))
                occupied.append(place)
        unclear = {
            place
            for _, value in values
            for place in find_places(example.input, value)
            if not overlaps(place, occupied)
        }
        choices = tuple(
            field.choices.index(key) if (key := choice_key(contents.get(field.path))) in field.choices else -1
            for field in self.choices
        )
        return Marked(example.input, tuple(spans), tuple(sorted(unclear)), choices)

    def missing(self, marked: Sequence[Marked], train: Sequence[Example]) -> int:
        """Count the values of spans that do not stand in their inputs."""
        values = sum(
            len(values_of(dict(leaves(target_of(example))).get(field.path)))
            for example in train
            for field in self.spans
        )
        return values - sum(len(example.spans) for example in marked)

    def answer(self, text: str, spans: Sequence[tuple[int, Place, float]], choices: Sequence[int]) -> str:
        """Return the JSON object of an input's fields.

        Args:
            text: the input.
            spans: (number of the field, place, probability), in the order of the text.
            choices: the value of each choice, by its number.

        """
        content: dict[str, Any] = {}
        for number, field in enumerate(self.spans):
            texts = [(odds, text[slice(*place)]) for which, place, odds in spans if which == number]
            _put(content, field, _values(field, texts))
        for field, choice in zip(self.choices, choices, strict=True):
            key = field.choices[choice]
            _put(content, field, None if key == ABSENT else [json.loads(key)])
        return json.dumps(content, ensure_ascii=False, sort_keys=True)

    def document(self) -> dict[str, Any]:
        """Return the fields as files keep them, without those that were left out."""
        return {
            "spans": [vars(field) for field in self.spans],
            "choices": [vars(field) for field in self.choices],
        }

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Fields:
        """Read what `document` returned, also after a round trip through JSON."""

        def field(facts: Mapping[str, Any]) -> Field:
            return Field(**{**facts, "path": tuple(facts["path"]), "choices": tuple(facts["choices"])})

        return cls(tuple(map(field, content["spans"])), tuple(map(field, content["choices"])))


def _values(field: Field, texts: Sequence[tuple[float, str]]) -> list[Any] | None:
    """Return the values of a field, or None for nothing.

    Args:
        field: takes all texts if it is a list, the most probable one if it is not.
        texts: (probability, text) of each place.

    """
    if not texts:
        return None
    values = [text for _, text in texts] if field.many else [max(texts)[1]]
    if not field.repeats:
        values = list(dict.fromkeys(values))
    return [parse_number(text) for text in values] if field.numeric else list(values)


def _put(content: dict[str, Any], field: Field, values: list[Any] | None) -> None:
    """Set a field of a nested object, or what stands there when nothing is found."""
    for key in field.path[:-1]:
        content = content.setdefault(key, {})
    if values is not None:
        content[field.path[-1]] = values if field.many else values[0]
    elif field.empty != ABSENT:
        content[field.path[-1]] = json.loads(field.empty)
