"""A pool out of more inputs than memory holds: which are drawn, and from which files."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from tunepoint.errors import DataError
from tunepoint.study.labelling import sampling
from tunepoint.study.labelling.inputs import PoolInputs, extended, inputs_of_file
from tunepoint.study.labelling.sampling import Brought, PoolInput, drawn, streamed_rows
from tunepoint.task.sections import Data


def texts(brought: Brought) -> list[str]:
    return [new.text for new in brought.inputs]


def inputs(numbers: range | list[int]) -> list[PoolInput]:
    return [PoolInput(f"message {number}", f"user {number % 7}") for number in numbers]


def test_few_inputs_are_all_there_as_they_came() -> None:
    few = [*inputs(range(5)), PoolInput("message 1"), PoolInput("")]
    assert drawn(few, 7) == Brought(few, 7)


def test_of_many_a_sample_is_drawn_whatever_their_order() -> None:
    numbers = list(range(1_000))
    first = drawn(inputs(numbers), 50)
    random.Random(1).shuffle(numbers)
    again = drawn(inputs(numbers), 50)
    assert len(first.inputs) == 50 and first.seen == again.seen == 1_000
    assert set(texts(first)) == set(texts(again))
    assert texts(first) == sorted(texts(first), key=lambda text: int(text.split()[1]))  # as they came


def test_a_text_that_comes_often_has_the_chance_of_one() -> None:
    many = [PoolInput("How do I PAIR it?"), PoolInput("how do i  pair it?")] * 2_000 + inputs(range(2_000))
    sample = drawn(many, 1_000)
    assert len(set(texts(sample))) == 1_000  # none twice
    assert sample.seen == 6_000


def test_every_part_of_the_traffic_has_its_share() -> None:
    sample = drawn(inputs(range(20_000)), 2_000)
    parts = Counter(int(text.split()[1]) // 5_000 for text in texts(sample))
    assert all(400 < count < 600 for count in parts.values())


@pytest.fixture
def rows() -> list[dict[str, str]]:
    return [
        {
            "id": str(n),
            "text": f'message {n}, "quoted"\nand a line',
            "label": "a" if n % 2 else "",
            "who": f"u{n}",
        }
        for n in range(300)
    ]


def written(folder: Path, ending: str, rows: list[dict[str, str]]) -> Path:
    path = folder / f"pool{ending}"
    if ending == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=64)
    elif ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ending == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_large_file_is_streamed_and_gives_what_a_small_one_does(
    tmp_path: Path, rows: list[dict[str, str]], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, ending, rows)
    data = Data.model_validate({"path": "x.csv", "input": "text", "target": "label", "group": "who"})
    small = list(inputs_of_file(data, path))
    unlabelled = list(inputs_of_file(data, path, unlabelled=True))
    monkeypatch.setattr(sampling, "LARGE_BYTES", 10)
    monkeypatch.setattr("tunepoint.study.labelling.inputs.read_table", lambda path: pytest.fail("read whole"))
    assert list(inputs_of_file(data, path)) == small and len(small) == 300
    assert list(inputs_of_file(data, path, unlabelled=True)) == unlabelled and len(unlabelled) == 150


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pool.json", "[" + " " * 50 + "]", "cannot be read piece by piece; save it as"),
        ("pool.parquet", "no parquet, though it says so", r"cannot be read piece by piece \("),
        ("pool.csv", "text,other\n1,2,3\n", r"cannot be read piece by piece \("),
        ("pool.jsonl", "[1, 2]\n{}\n", "pool.jsonl:1: expected one JSON object per row"),
    ],
)
def test_a_large_file_that_cannot_be_streamed_is_an_error(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        list(streamed_rows(path, ["text"]))


def test_a_column_that_a_large_file_lacks_is_an_error(tmp_path: Path) -> None:
    for ending in (".csv", ".parquet", ".jsonl"):
        path = written(tmp_path, ending, [{"text": "a"}, {"text": "b"}])
        with pytest.raises(DataError, match="no column 'missing'"):
            list(streamed_rows(path, ["text", "missing"]))


def test_what_was_added_says_that_it_is_a_sample() -> None:
    _, added = extended(PoolInputs(), drawn(inputs(range(500)), 100), (), "file")
    assert added.new <= 100 and added.drawn_from == 500
    _, added = extended(PoolInputs(), drawn(inputs(range(50)), 100), (), "file")
    assert added.drawn_from is None
