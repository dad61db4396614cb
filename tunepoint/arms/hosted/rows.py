"""Rows to train on, in the chat form that providers take, and their limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.errors import DataError

Row = Mapping[str, Any]
"""`{"messages": [{"role": ..., "content": ...}, ...]}`, the assistant's message last."""
BYTES_PER_TOKEN = 4
"""For estimates: OpenAI's rule of thumb for English text (help.openai.com/en/articles/4936856)."""


def jsonl(rows: Sequence[Row]) -> bytes:
    """Return rows as the file that is uploaded."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def tokens_of(row: Row) -> int:
    """Estimate the tokens of a row: UTF-8 bytes of its contents / 4, rounded up."""
    return -(-bytes_of(row) // BYTES_PER_TOKEN)


def bytes_of(row: Row) -> int:
    """Return the UTF-8 bytes of the contents of a row's messages."""
    return sum(len(message["content"].encode()) for message in row["messages"])


def validate(rows: Sequence[Row], provider: TuningProvider, *, ids: Sequence[str] = ()) -> None:
    """Check that rows can be trained on, by the provider's limits and by common sense.

    Args:
        rows: what is to be uploaded.
        provider: whose limits hold; a limit that nobody knows is not checked.
        ids: of the examples that the rows came from, for the message.

    Raises:
        DataError: too few examples, an empty target, a row or the file too large, all rows or all
            targets the same.

    """
    minimum = max(1, provider.min_examples or 1)
    if len(rows) < minimum:
        raise DataError(
            f"{provider.name}: {len(rows)} examples are too few, it trains on at least {minimum}: "
            f"add {minimum - len(rows)}"
        )
    for number, row in enumerate(rows):
        _validate_row(row, provider, f"row {number + 1}" + (f" ({ids[number]})" if ids else ""))
    size, limit = len(jsonl(rows)), provider.max_file_bytes
    if limit is not None and size > limit:
        raise DataError(
            f"{provider.name}: the file of {len(rows)} rows has {size:,} bytes, and at most {limit:,} are "
            "allowed: leave examples out, or shorten the longest"
        )
    answers = {row["messages"][-1]["content"] for row in rows}
    if len(rows) > 1 and len(answers) == 1:
        inputs = {str(row["messages"][:-1]) for row in rows}
        what = "the same" if len(inputs) == 1 else f"answered with {next(iter(answers))[:60]!r}"
        raise DataError(
            f"all {len(rows)} rows are {what}, so a model learns nothing from them: add examples that differ"
        )


def _validate_row(row: Row, provider: TuningProvider, where: str) -> None:
    if not row["messages"][-1]["content"].strip():
        raise DataError(f"{where}: the target is empty; fill it in, or leave the example out")
    tokens, limit = tokens_of(row), provider.max_example_tokens
    if limit is not None and tokens > limit:
        raise DataError(
            f"{where}: about {tokens:,} tokens (an estimate: {bytes_of(row):,} bytes / {BYTES_PER_TOKEN}), "
            f"and {provider.name} takes at most {limit:,}: shorten the example, or leave it out"
        )
