"""Outputs of a system in production, from the log that it or another tool wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunepoint.errors import DataError
from tunepoint.files.text import reading
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Completion


class _Line(BaseModel):
    """One line of a log: an input, its output, tokens and seconds."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)
    item: str | None = None
    input: str | None = None
    output: str
    input_tokens: Annotated[int, Field(ge=0)] = 0
    cached_tokens: Annotated[int, Field(ge=0)] = 0
    output_tokens: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class ProductionLog:
    """Outputs by the id of an example or by its input."""

    name: str
    outputs: Mapping[str, Completion]

    def output_for(self, item: str, text: str) -> Completion | None:
        """Return the output for an example, found by its id, else by its input."""
        return self.outputs.get(item) or self.outputs.get(text.strip())


def read_production_log(path: Path, name: str) -> ProductionLog:
    """Read a JSONL log of `output` with `item` or `input`, and tokens and seconds if known.

    Args:
        path: of the log.
        name: of the system, as usage reports it.

    Raises:
        DataError: the file is missing or empty, or a line is not such an object.

    """
    outputs: dict[str, Completion] = {}
    for number, text in _lines(path):
        line = _parse(path, number, text)
        key = line.item if line.item is not None else line.input
        if key is None:
            raise DataError(f"{path}:{number}: has neither item nor input; give one of them")
        usage = Usage(name, line.input_tokens, line.cached_tokens, line.output_tokens, seconds=line.seconds)
        outputs[key.strip()] = Completion(line.output, usage)
    if not outputs:
        raise DataError(f"{path}: the log is empty; each line needs output, and item or input")
    return ProductionLog(name, outputs)


def _parse(path: Path, number: int, text: bytes) -> _Line:
    try:
        return _Line.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise DataError(f"{path}:{number}: {key}: {fault['msg'].lower()}") from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines with text and their numbers, without a byte-order mark."""
    with reading(path, DataError):
        content = path.read_bytes()
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield number, line
