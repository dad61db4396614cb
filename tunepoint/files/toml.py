"""Reads task.toml and serve.toml; what is wrong with one is said key by key, with the nearest known one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tunepoint.errors import TaskError, nearest
from tunepoint.files.currencies import in_dollars
from tunepoint.files.text import text_of


class Section(BaseModel):
    """A part of a task file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, otherwise: str) -> dict[str, Any]:
    """The content of a file.

    Args:
        otherwise: what to do where it is not there.

    Raises:
        TaskError: no such file, or not TOML.

    """
    if not path.exists():
        raise TaskError(f"{path}: no such file; {otherwise}")
    try:
        return tomllib.loads(text_of(path, TaskError))
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path}: not valid TOML: {error}") from None


def validated(root: type[Model], content: Mapping[str, Any], *, where: str, folder: Path) -> Model:
    """Settings from a file's content, with money in dollars, and the folder that its paths start from.

    Raises:
        TaskError: an unknown key, a value out of its range.

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
    """Every fault of a task in one paragraph, each with its key."""
    return "; ".join(_fault(dict(fault), root) for fault in error.errors())


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys that a file may give."""
    return [name for name in model.model_fields if name != "folder"]


def _fault(fault: dict[str, Any], root: type[BaseModel]) -> str:
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {nearest(location[-1], keys_of(_section(root, location[:-1])))}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if fault["type"] == "model_type":
        message = "a [section] with keys is expected"
    given = fault.get("input")
    shown = "" if isinstance(given, (dict, list)) else f" (it is {given!r})"
    return f"{key or 'task'}: {message}{shown}"


def _section(root: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """The section at `location`; places in a list are passed over."""
    model = root
    for part in location:
        if part in model.model_fields:
            model = next(_sections(model.model_fields[part].annotation), model)
    return model


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Sections that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _sections(inner)
