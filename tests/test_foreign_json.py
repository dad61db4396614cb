"""JSON of other programs, and of studies of somebody else: finite, bounded, and named where it is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunepoint.errors import DataError, TunepointError
from tunepoint.files.foreign_json import MAX_DEPTH, count, json_values, number
from tunepoint.study.manifest import MANIFEST, read_manifest


@pytest.mark.parametrize(
    ("text", "value"),
    [("NaN", None), ("[1e999]", [None]), ("9" * 5_000, None), ('"\\ud83d"', "?"), ('"\\ud83d\\ude00"', "😀")],
)
def test_values_that_json_cannot_hold(tmp_path: Path, text: str, value: Any) -> None:
    (tmp_path / "a.json").write_text(text)
    assert [read for _, read in json_values(tmp_path / "a.json", DataError)] == [value]


def test_broken_files_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, words in (
        (b'{"a": 1}\n{"a": }\n', "a.json:2: not JSON"),
        (b'[\n{"a": 1},\n{"a": }\n]', "a.json:3: not JSON"),
        (b'{"a": 1}\n{"a": "\xff"}', "a.json:2: byte 0xff is not UTF-8"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "a.json:1: lists and objects are nested"),
        (b"[" * 100_000, "a.json:1: "),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            list(json_values(path, DataError))


def test_numbers_are_finite_or_missing() -> None:
    assert [number(value) for value in ("1.5", 10**400, True, None, "nan", "x", "9" * 999)] == [
        1.5, None, None, None, None, None, None,
    ]  # fmt: skip
    assert [count(value) for value in (10.4, "7", -1, 2**40, [])] == [10, 7, None, None, None]


@pytest.mark.parametrize("content", ["{", "[]", "[" * 5_000, "9" * 5_000, '{"schema": 1e999}', "\ufeff"])
def test_a_damaged_manifest_is_an_error_of_the_study(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(TunepointError, match=str(MANIFEST)):
        read_manifest(tmp_path)
