"""Outcomes of a canary from all processes: written with the answers, read by whoever decides."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tunepoint.capture import schema
from tunepoint.capture.records import CanaryValue

if TYPE_CHECKING:
    from tunepoint.capture.store import Store

UNIT = ["task", "since", "side", "measure", "unit"]
"""Of which there is one outcome."""
PAGE_VALUES = 10_000
"""Outcomes that are read at once."""


@dataclass
class ValueColumns:
    """Outcomes of a canary as read so far, eight bytes each."""

    last: int = 0
    """The highest number that the store has given one of them."""
    count: int = 0
    by_measure: dict[tuple[str, str], array[float]] = field(
        default_factory=lambda: defaultdict(lambda: array("d"))
    )
    """(side, measure) -> values, in their order."""


def add_values(store: Store, connection: sa.Connection, values: Sequence[CanaryValue]) -> None:
    """Write outcomes; of a unit that has one on a measure already, the first stays."""
    insert = store.insert(schema.canary_values).on_conflict_do_nothing(index_elements=UNIT)
    # in a fixed order: two processes that write the same units must not wait for each other
    rows = sorted(map(asdict, values), key=lambda row: [row[name] for name in UNIT])
    connection.execute(insert, rows)


def count_values(store: Store, task: str, since: float) -> int:
    """Return how many outcomes a canary has."""
    query = sa.select(sa.func.count()).select_from(schema.canary_values).where(_of(task, since))
    with store.transaction("read") as connection:
        return int(connection.scalar(query) or 0)


def read_values(store: Store, task: str, since: float, known: ValueColumns) -> ValueColumns:
    """Add the outcomes of a canary to those that are known, all of them anew where some came late.

    A process may commit a lower number after a higher one was read, so the count decides.
    """
    count = count_values(store, task, since)
    if count == known.count:
        return known
    _read_after(store, task, since, known)
    if known.count < count:
        known = ValueColumns()
        _read_after(store, task, since, known)
    return known


def _read_after(store: Store, task: str, since: float, known: ValueColumns) -> None:
    columns = schema.canary_values.c
    query = sa.select(columns.number, columns.side, columns.measure, columns.value)
    query = query.where(_of(task, since)).order_by(columns.number).limit(PAGE_VALUES)
    while True:
        with store.transaction("read") as connection:
            rows = connection.execute(query.where(columns.number > known.last)).all()
        for number, side, measure, value in rows:
            known.by_measure[side, measure].append(value)
            known.last = number
        known.count += len(rows)
        if len(rows) < PAGE_VALUES:
            return


def drop_values(store: Store, task: str, before: float) -> None:
    """Delete the outcomes of a task's earlier canaries."""
    columns = schema.canary_values.c
    old = sa.delete(schema.canary_values).where(columns.task == task, columns.since < before)
    with store.transaction("written") as connection:
        connection.execute(old)


def _of(task: str, since: float) -> sa.ColumnElement[bool]:
    return (schema.canary_values.c.task == task) & (schema.canary_values.c.since == since)
