"""The one reader of task.toml and serve.toml; its errors name the key and the nearest known one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tunepoint.errors import TaskError, TunepointError, nearest
from tunepoint.files.currencies import in_dollars
from tunepoint.files.text import read_text


class Section(BaseModel):
    """A section of task.toml or serve.toml; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


Model = TypeVar("Model", bound=BaseModel)


def quoted(text: str) -> str:
    """Return a text as a TOML string: a JSON string is one too, but for the sign DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path, hint: str) -> dict[str, Any]:
    """Return the content of a TOML file.

    Args:
        path: of the file.
        hint: what to do if there is no such file.

    Raises:
        TaskError: no such file, or not TOML.

    """
    if not path.exists():
        raise TaskError(f"{path}: no such file; {hint}")
    return parse_toml(path, TaskError)


def parse_toml(path: Path, kind: type[TunepointError]) -> dict[str, Any]:
    """Return the content of a TOML file; failures to read it raise `kind`.

    Raises:
        TunepointError: of the given kind.

    """
    try:
        return tomllib.loads(read_text(path, kind))
    except ValueError as error:  # no TOML, or an integer with thousands of digits
        raise kind(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise kind(f"{path}: not valid TOML: arrays or tables are nested too deeply") from None


def validated(root: type[Model], content: Mapping[str, Any], *, where: str, folder: Path) -> Model:
    """Return settings from a file's content, with money converted to dollars.

    Args:
        root: the model of the whole file; its field `folder` is ours and no key of the file.
        content: as `read_toml` returns it.
        where: the file, for messages.
        folder: where relative paths in the file start.

    Raises:
        TaskError: an unknown key, or a value out of its range.

    """
    if "folder" in content:
        raise TaskError(f"{where}: unknown key 'folder'; {nearest('folder', keys_of(root))}")
    try:
        return root.model_validate({**in_dollars(content), "folder": folder})
    except ValidationError as error:
        raise TaskError(f"{where}: {explain(error, root)}") from None
    except ValueError as error:
        raise TaskError(f"{where}: {error}") from None


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Return all errors of a file in one paragraph, each with its key."""
    return "; ".join(_explain_one(fault, root) for fault in error.errors())


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys that a file may have."""
    return [name for name in model.model_fields if name != "folder"]


def _explain_one(fault: ErrorDetails, root: type[BaseModel]) -> str:
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {nearest(location[-1], keys_of(_section(root, location[:-1])))}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")  # pydantic's prefix for errors of our validators
    message = message[:1].lower() + message[1:]
    if fault["type"] == "model_type":
        message = "expected a [section] with keys"
    value = fault.get("input")
    quoted = "" if isinstance(value, (dict, list)) else f" (it is {value!r})"
    return f"{key or 'task'}: {message}{quoted}"


def _section(root: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """Return the section at `location`, where numbers of list entries are skipped."""
    model = root
    for part in location:
        if part in model.model_fields:
            model = next(_sections(model.model_fields[part].annotation), model)
    return model


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections in an annotation, such as Tune in `tuple[Tune, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
