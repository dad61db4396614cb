"""A pool out of more inputs than anybody answers or any memory holds: a sample, drawn while they are read."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from csv import reader
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.data.table import Row
from tunepoint.errors import DataError, MissingExtra, nearest
from tunepoint.files.foreign_json import json_values
from tunepoint.files.text import reading

MOST_INPUTS = 20_000
"""Inputs that are taken at once: of more, a sample. A share in so many is known to .7 points (95%)."""
FIRST_ROWS = 1_000
"""Rows of JSON after which every column must have occurred."""
LARGE_BYTES = 200 * 2**20
"""Size from which a file is streamed; a smaller one is read as any table is, with all its care."""


@dataclass(frozen=True)
class PoolInput:
    """One input that may be added to a pool."""

    text: str
    group: str | None = None
    """Inputs of one group are no independent evidence."""
    slice: str | None = None
    """A named part of the traffic."""


@dataclass(frozen=True)
class Brought:
    """Inputs that somebody brings."""

    inputs: Sequence[PoolInput] = ()
    seen: int = 0
    """Inputs among which they were drawn; as many where all are there."""


def drawn(inputs: Iterable[PoolInput], most: int = MOST_INPUTS) -> Brought:
    """Return all inputs, or a sample of them where they are many.

    Each distinct text has the same chance, however often it comes, and the sample of the same inputs is the
    same in any order: it is those whose texts have the smallest hashes (Broder 1997, bottom-k sketch).

    Args:
        inputs: read once; `most` of them are in memory.
        most: to return.

    """
    kept: list[PoolInput] = []
    heap: list[tuple[int, int, PoolInput]] = []
    """(minus the hash, number, input), the largest hash first."""
    hashes: set[int] = set()
    seen = 0
    for seen, new in enumerate(inputs, start=1):
        if seen <= most:
            kept.append(new)
            continue
        if seen == most + 1:
            for number, old in enumerate(kept):
                _keep(heap, hashes, number, old, most)
        _keep(heap, hashes, seen, new, most)
    if seen <= most:
        return Brought(kept, seen)
    return Brought([new for _, _, new in sorted(heap, key=lambda entry: entry[1])], seen)


def _keep(
    heap: list[tuple[int, int, PoolInput]], hashes: set[int], number: int, new: PoolInput, most: int
) -> None:
    text = " ".join(new.text.casefold().split())
    key = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())
    if not text or key in hashes or (len(heap) == most and key >= -heap[0][0]):
        return
    hashes.add(key)
    if len(heap) < most:
        heapq.heappush(heap, (-key, number, new))
    else:
        largest, _, _ = heapq.heapreplace(heap, (-key, number, new))
        hashes.discard(-largest)


def is_large(path: Path) -> bool:
    """Return whether a file is streamed."""
    return path.is_file() and path.stat().st_size > LARGE_BYTES


def streamed_rows(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of a large file in constant memory, of which only some columns are needed.

    Raises:
        MissingExtra: pyarrow, which reads CSV and Parquet piece by piece, is not installed.
        DataError: the file cannot be read, lacks a column, or is of a kind that is read as a whole.

    """
    ending = path.suffix.lower()
    if ending in (".jsonl", ".ndjson"):
        yield from _json_rows(path, needed)
    elif ending in (".parquet", ".csv", ".tsv"):
        yield from _arrow_rows(path, needed, optional, ending)
    else:
        raise DataError(
            f"{path}: {path.stat().st_size / 2**20:,.0f} MiB of {ending or 'unknown kind'} cannot be read "
            "piece by piece; save it as .parquet, .csv or .jsonl"
        )


def _json_rows(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    names: set[str] = set()
    for number, (place, value) in enumerate(json_values(path, DataError)):
        if not isinstance(value, dict):
            raise DataError(f"{place}: expected one JSON object per row, got {type(value).__name__}")
        if number < FIRST_ROWS:
            names |= value.keys()
        elif number == FIRST_ROWS:
            _check_columns(path, needed, names)
        yield value
    _check_columns(path, needed, names)


def _check_columns(path: Path, needed: Sequence[str], existing: Collection[str]) -> None:
    for name in needed:
        if name not in existing:
            raise DataError(f"{path}: no column {name!r}; {nearest(name, existing)}")


def _arrow_rows(path: Path, needed: Sequence[str], optional: Sequence[str], ending: str) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import csv, parquet
    except ImportError:
        raise MissingExtra(f"{path}: reading a file of this size needs pyarrow", "parquet") from None
    try:
        with reading(path, DataError):
            if ending == ".parquet":
                file = parquet.ParquetFile(path)
                existing = list(file.schema_arrow.names)
            else:
                delimiter = "\t" if ending == ".tsv" else ","
                with path.open(newline="", encoding="utf-8-sig") as lines:
                    existing = next(reader(lines, delimiter=delimiter), [])
            _check_columns(path, needed, existing)
            wanted = [name for name in dict.fromkeys((*needed, *optional)) if name in existing]
            batches: Any
            if ending == ".parquet":
                batches = file.iter_batches(columns=wanted)
            else:
                batches = csv.open_csv(
                    path,
                    parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                    convert_options=csv.ConvertOptions(
                        include_columns=wanted, column_types=dict.fromkeys(wanted, pyarrow.string())
                    ),
                )
            for batch in batches:
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        fault = str(error).split("\n")[0]
        raise DataError(f"{path}: cannot be read piece by piece ({fault}); save it as .parquet") from None
