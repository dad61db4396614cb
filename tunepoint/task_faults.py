"""What is wrong with a task.toml, key by key, with the nearest known one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from tunepoint.errors import nearest


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
