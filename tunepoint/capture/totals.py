"""Sums over captured answers, by arm and role: means and their errors follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from tunepoint.capture import schema


@dataclass(frozen=True)
class ServedTotals:
    """What one arm answered in one role over a time.

    The fields stand in the order of the columns of `totals_query`.
    """

    arm: str
    role: str
    requests: int
    failed: int
    """Answers with an HTTP status of 400 and more."""
    formatted: int
    """Answers that could be parsed."""
    unreadable: int
    """Answers that could not."""
    priced: int
    """Answers with a known cost; the sums of money are over them."""
    cost_nanousd: int
    cost_squares: float
    """Sum of the squared costs, in squared billionths of a dollar: the variance follows."""
    timed: int
    """Answers with core seconds of this machine; the sums of core seconds are over them."""
    core_seconds: float
    core_squares: float
    """Sum of the squared core seconds."""
    counted: int
    """Answers with token counts; the sums of tokens are over them."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    clocked: int
    """Answers that succeeded and have seconds."""
    seconds: float
    """Sum over answers that succeeded."""
    first: float
    """Time of the first request, in seconds since 1970."""
    last: float
    """Time of the last request, in seconds since 1970."""


def totals_query(task: str, since: float, until: float) -> sa.Select[Any]:
    """Select the totals of a task's requests in [since, until), by arm and role."""
    columns = schema.requests.c

    def count(condition: sa.ColumnElement[bool]) -> Any:
        return total(sa.case((condition, 1), else_=0))

    def total(value: Any) -> Any:
        return sa.func.coalesce(sa.func.sum(value), 0)

    # In floating point: squares of billionths overflow a 64-bit integer from three dollars on.
    cost_squares = sa.cast(columns.cost_nanousd, sa.Double) * columns.cost_nanousd
    query = sa.select(
        columns.arm,
        columns.role,
        sa.func.count(),
        count(columns.status >= 400),
        count(columns.format_ok.is_(True)),
        count(columns.format_ok.is_(False)),
        sa.func.count(columns.cost_nanousd),
        total(columns.cost_nanousd),
        total(cost_squares),
        sa.func.count(columns.core_seconds),
        total(columns.core_seconds),
        total(columns.core_seconds * columns.core_seconds),
        sa.func.count(columns.input_tokens),
        total(columns.input_tokens),
        total(columns.cached_tokens),
        total(columns.output_tokens),
        count(columns.seconds.is_not(None) & (columns.status < 400)),
        total(sa.case((columns.status < 400, columns.seconds), else_=0.0)),
        sa.func.min(columns.at),
        sa.func.max(columns.at),
    ).where(columns.task == task, columns.at >= since)
    if math.isfinite(until):
        query = query.where(columns.at < until)
    return query.group_by(columns.arm, columns.role).order_by(columns.arm, columns.role)


def read_totals(row: Sequence[Any]) -> ServedTotals:
    """Convert a row to the types of the fields: sums come as Decimal from PostgreSQL."""
    types = {"str": str, "int": int, "float": float}
    names = [ServedTotals.__annotations__[field.name] for field in fields(ServedTotals)]
    return ServedTotals(*(types[name](value) for name, value in zip(names, row, strict=True)))
