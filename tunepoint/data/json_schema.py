"""A JSON schema that covers all targets: for a first task.toml, and for prompts of a task without one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunepoint.files.toml import quoted

MAX_KEYS = 40
"""Keys of an object up to which they are fields; more are rather data, such as names of people."""
MAX_DEPTH = 6
"""Nested objects and lists that a schema describes; deeper ones may hold anything."""
MAX_CHOICES = 12
"""Different texts of a field up to which they are its only values; more are rather data."""
USES_OF_A_CHOICE = 5
"""Texts per different one from which they are choices, where each occurs twice or more: the probability
of one that has not occurred is about the share of those that occurred once (Good 1953)."""
Schema = dict[str, Any]


def common_schema(targets: Sequence[str], *, choices: bool = False) -> Schema | None:
    """Return a schema that every target follows; None if one is not JSON, or there is nothing to describe.

    Keys that all targets have, never as null, are required. Servers that enforce a schema strictly want that
    of all keys; where it is so, no other key is allowed either, as they want too.

    Args:
        targets: JSON objects or lists.
        choices: name the values of a text that takes few, which is a guess: not for a schema that binds.

    """
    try:
        values = [json.loads(target) for target in targets if target]
    except (ValueError, RecursionError):
        return None
    if not values or not all(isinstance(value, (dict, list)) for value in values):
        return None
    schema = _schema(values, MAX_DEPTH, choices)
    return schema if schema.get("properties") or schema.get("items") else None


def _schema(values: Sequence[Any], depth: int, choices: bool) -> Schema:
    """Return a schema of values of any types."""
    types = sorted({_type(value) for value in values})
    if {"integer", "number"} <= set(types):
        types.remove("integer")
    schema: Schema = {"type": types[0] if len(types) == 1 else types}
    objects = [value for value in values if isinstance(value, dict)]
    if objects and depth:
        schema |= _of_objects(objects, depth, choices)
    if choices and types == ["string"] and (few := _choices(values)):
        schema["enum"] = few
    members = [member for value in values if isinstance(value, list) for member in value]
    if members and depth:
        schema["items"] = _schema(members, depth - 1, choices)
    return schema


def _choices(texts: Sequence[str]) -> list[str]:
    """The texts that a field takes, sorted; empty where others may well occur."""
    counts = Counter(texts)
    often = len(texts) >= USES_OF_A_CHOICE * len(counts) and min(counts.values()) > 1
    return sorted(counts) if 1 < len(counts) <= MAX_CHOICES and often else []


def _of_objects(objects: Sequence[Mapping[str, Any]], depth: int, choices: bool) -> Schema:
    keys = list(dict.fromkeys(key for content in objects for key in content))
    if not keys or len(keys) > MAX_KEYS:
        return {}
    fields = {key: [content[key] for content in objects if key in content] for key in keys}
    required = [
        key
        for key, values in fields.items()
        if len(values) == len(objects) and all(value is not None for value in values)
    ]
    properties = {key: _schema(values, depth - 1, choices) for key, values in fields.items()}
    schema: Schema = {"properties": properties}
    if required:
        schema["required"] = required
    if len(required) == len(keys):
        schema["additionalProperties"] = False
    return schema


def _type(value: Any) -> str:
    if value is None:
        return "null"
    types = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return types[type(value)]


def schema_toml(schema: Schema) -> str:
    """Return the section `[answer.json_schema]` of task.toml, with a line for each property."""
    properties = schema.get("properties", {})
    rest = {key: value for key, value in schema.items() if key != "properties"}
    lines = ["[answer.json_schema]", *(f"{toml_key(key)} = {_toml(value)}" for key, value in rest.items())]
    if properties:
        lines.append("[answer.json_schema.properties]")
        lines += [f"{toml_key(key)} = {_toml(value)}" for key, value in properties.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return strings, booleans, lists and objects as TOML."""
    if isinstance(value, dict):
        inner = ", ".join(f"{toml_key(key)} = {_toml(member)}" for key, member in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def toml_key(key: str) -> str:
    """Return a key of TOML, in quotes if it needs them."""
    bare = key.isascii() and all(sign.isalnum() or sign in "-_" for sign in key)
    return key if bare and key else quoted(key)
