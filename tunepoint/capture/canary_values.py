"""Outcomes of a canary from all processes: written with the answers, read by whoever decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tunepoint.capture import schema
from tunepoint.capture.records import CanaryValue

if TYPE_CHECKING:
    from tunepoint.capture.store import Store


@dataclass(frozen=True, slots=True)
class NumberedValue:
    """An outcome as the store has numbered it."""

    number: int
    side: str
    measure: str
    value: float


def add_values(store: Store, connection: sa.Connection, values: Sequence[CanaryValue]) -> None:
    """Write outcomes; of a unit that has one on a measure already, the first stays."""
    unit = ["task", "since", "side", "measure", "unit"]
    insert = store.insert(schema.canary_values).on_conflict_do_nothing(index_elements=unit)
    connection.execute(insert, [asdict(value) for value in values])


def count_values(store: Store, task: str, since: float) -> int:
    """Return how many outcomes a canary has."""
    query = sa.select(sa.func.count()).select_from(schema.canary_values).where(_of(task, since))
    with store.transaction("read") as connection:
        return int(connection.scalar(query) or 0)


def read_values(store: Store, task: str, since: float, after: int = 0) -> list[NumberedValue]:
    """Return the outcomes of a canary whose numbers are higher, in their order.

    A process may commit a lower number after a higher one was read: compare with `count_values`.
    """
    columns = schema.canary_values.c
    query = sa.select(columns.number, columns.side, columns.measure, columns.value)
    query = query.where(_of(task, since), columns.number > after).order_by(columns.number)
    with store.transaction("read") as connection:
        return [NumberedValue(*row) for row in connection.execute(query)]


def drop_values(store: Store, task: str, before: float) -> None:
    """Delete the outcomes of a task's earlier canaries."""
    columns = schema.canary_values.c
    old = sa.delete(schema.canary_values).where(columns.task == task, columns.since < before)
    with store.transaction("written") as connection:
        connection.execute(old)


def _of(task: str, since: float) -> sa.ColumnElement[bool]:
    return (schema.canary_values.c.task == task) & (schema.canary_values.c.since == since)
