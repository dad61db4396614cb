"""What API keys have spent: reserved before a call, settled in the transaction that keeps its answer."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tunepoint.capture import schema
from tunepoint.capture.records import CapturedRequest

if TYPE_CHECKING:
    from tunepoint.capture.store import Store

COMPLETE, INTERRUPTED, TOO_LATE = 200, 499, 504
PERHAPS_BILLED = (COMPLETE, INTERRUPTED, TOO_LATE)
"""HTTP statuses after which a server may send a bill although we know of no cost: it counted no tokens, the
client disconnected, or the answer came too late. Other failures count what is known of them."""
_Account = tuple[str, str]
"""Name of a key, and month."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call may cost, and the budget that it has to fit into."""

    attempt: str
    """Id of the attempt: `attempt_id` of the request and the arm."""
    key: str
    at: float
    """When the request came, in seconds since 1970."""
    cost_nanousd: int
    """What the call is estimated to cost."""
    limit_nanousd: int
    """The key's budget for the month."""
    guessed: bool = False
    """Whether nothing limits the answer, so that the cost is a guess. Then what is left of the budget is
    enough; a call that says how much it may cost has to fit whole."""

    def fitting(self, taken_nanousd: int) -> int | None:
        """Return what to reserve where so much of the budget is taken; None if nothing fits."""
        left = self.limit_nanousd - taken_nanousd
        cost = min(self.cost_nanousd, left) if self.guessed else self.cost_nanousd
        return cost if left > 0 and cost <= left else None


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of a reservation."""

    granted: bool
    spent_nanousd: int
    """By answers before, in this month."""
    reserved_nanousd: int
    """By other calls that are on their way."""


def month_of(at: float) -> str:
    """Return the month of a time (UTC), as in `2026-05`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m}"


def reserve(store: Store, wanted: Sequence[Reservation]) -> list[Balance]:
    """Reserve what calls may cost, in one transaction; those that do not fit reserve nothing.

    Raises:
        StoreError: the store cannot be written; nothing is reserved.

    """
    positions: dict[_Account, list[int]] = defaultdict(list)
    for position, reservation in enumerate(wanted):
        positions[reservation.key, month_of(reservation.at)].append(position)
    balances: dict[int, Balance] = {}
    with store.transaction("written") as connection:
        # In a fixed order: two gateways that lock the same keys must not wait for each other.
        for account in sorted(positions):
            here = positions[account]
            granted = _reserve_for_key(store, connection, account, [wanted[position] for position in here])
            balances.update(zip(here, granted, strict=True))
    return [balances[position] for position in range(len(wanted))]


def _reserve_for_key(
    store: Store, connection: sa.Connection, account: _Account, wanted: Sequence[Reservation]
) -> list[Balance]:
    # The account is written to before it is read: from here on no other process changes it.
    _add(store, connection, {account: 0})
    spent, reserved = _spent(connection, account), _reserved(connection, account)
    rows, balances = [], []
    for reservation in wanted:
        cost = reservation.fitting(spent + reserved)
        balances.append(Balance(cost is not None, spent, reserved))
        if cost:
            reserved += cost
            rows.append(_row(reservation, account, cost))
    if rows:
        connection.execute(sa.insert(schema.key_reservations), rows)
    return balances


def _row(reservation: Reservation, account: _Account, cost: int) -> dict[str, Any]:
    key, month = account
    names = {"attempt": reservation.attempt, "key": key, "month": month}
    return {**names, "at": reservation.at, "cost_nanousd": cost}


def release(store: Store, attempts: Sequence[str]) -> None:
    """Give back what was reserved for attempts that were never made."""
    with store.transaction("written") as connection:
        _delete(connection, attempts)


def settle(store: Store, connection: sa.Connection, requests: Sequence[CapturedRequest]) -> None:
    """Count what answers cost against their keys, in place of what was reserved for them.

    Part of the transaction that writes the answers: each is written once, so each is counted once.
    """
    reserved = _reservations(connection, [request.attempt for request in requests])
    costs: Counter[_Account] = Counter()
    for request in requests:
        if request.key is None:
            continue
        account, estimate = reserved.get(request.attempt, ((request.key, month_of(request.at)), 0))
        costs[account] += _counted(request, estimate)
    _add(store, connection, costs)
    _delete(connection, list(reserved))


def _counted(request: CapturedRequest, estimate: int) -> int:
    """What an answer counts; an interrupted one at least its estimate, as the server may have gone on."""
    known = request.cost_nanousd
    if request.status not in PERHAPS_BILLED:
        return known or 0
    if known is None:
        return estimate
    return known if request.status == COMPLETE else max(known, estimate)


def absorb(store: Store, before: float) -> None:
    """Count reservations from before a time as spent: the process that made them was killed."""
    columns = schema.key_reservations.c
    take = sa.delete(schema.key_reservations).where(columns.at < before)
    costs: Counter[_Account] = Counter()
    with store.transaction("written") as connection:
        for key, month, cost in connection.execute(
            take.returning(columns.key, columns.month, columns.cost_nanousd)
        ):
            costs[key, month] += cost
        _add(store, connection, costs)


def spending(store: Store, at: float | None = None) -> dict[str, int]:
    """Return what each key has spent in the month of a time (now if None), in billionths of a dollar.

    Calls on their way count with what is reserved for them, as do those of killed processes.
    """
    month = month_of(time.time() if at is None else at)
    totals: Counter[str] = Counter()
    with store.transaction("read") as connection:
        for table in (schema.key_spending, schema.key_reservations):
            query = sa.select(table.c.key, table.c.cost_nanousd).where(table.c.month == month)
            for key, cost in connection.execute(query):
                totals[key] += cost
    return dict(sorted(totals.items()))


# -- rows --------------------------------------------------------------------------------------------


def _spent(connection: sa.Connection, account: _Account) -> int:
    columns = schema.key_spending.c
    query = sa.select(columns.cost_nanousd).where(columns.key == account[0], columns.month == account[1])
    return int(connection.scalar(query) or 0)


def _reserved(connection: sa.Connection, account: _Account) -> int:
    columns = schema.key_reservations.c
    query = sa.select(sa.func.sum(columns.cost_nanousd))
    return int(connection.scalar(query.where(columns.key == account[0], columns.month == account[1])) or 0)


def _reservations(connection: sa.Connection, attempts: Sequence[str]) -> Mapping[str, tuple[_Account, int]]:
    """Attempt -> its account and what is reserved; attempts without a reservation are left out."""
    columns = schema.key_reservations.c
    reserved: dict[str, tuple[_Account, int]] = {}
    for page in _pages(attempts):
        query = sa.select(schema.key_reservations).where(columns.attempt.in_(page))
        for row in connection.execute(query).mappings():
            reserved[row["attempt"]] = ((row["key"], row["month"]), int(row["cost_nanousd"]))
    return reserved


def _add(store: Store, connection: sa.Connection, costs: Mapping[_Account, int]) -> None:
    """Add costs to accounts, which are made where there is none; their rows are locked in order."""
    table = schema.key_spending
    insert = store.insert(table)
    total = table.c.cost_nanousd + insert.excluded.cost_nanousd
    upsert = insert.on_conflict_do_update(index_elements=["key", "month"], set_={"cost_nanousd": total})
    for key, month in sorted(costs):
        connection.execute(upsert, [{"key": key, "month": month, "cost_nanousd": costs[key, month]}])


def _delete(connection: sa.Connection, attempts: Sequence[str]) -> None:
    for page in _pages(attempts):
        connection.execute(
            sa.delete(schema.key_reservations).where(schema.key_reservations.c.attempt.in_(page))
        )


def _pages(attempts: Sequence[str]) -> Iterable[Sequence[str]]:
    """Split a list: databases limit the parameters of a statement."""
    return (attempts[start : start + 500] for start in range(0, len(attempts), 500))
