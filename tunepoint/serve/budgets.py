"""Budgets of API keys: what a call may cost is reserved before it is made."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from math import inf

from tunepoint.capture.records import NANO
from tunepoint.capture.spending import Balance, Reservation, month_of, release, reserve, spending
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError
from tunepoint.serve.protocol import RequestError

RETRY_SECONDS = 1.0
"""When to try again, if calls on their way hold what is left of a budget."""
STORE_SECONDS = 5.0
"""Wait for the store before this process decides alone. A store that is away says so at once.
One that is busy must not be taken for that: each gateway alone could spend what is left of a budget."""
AWAY_SECONDS = 5.0
"""How long the store is left alone after it did not reply in time."""
_Pending = tuple[Reservation, "Future[Balance]"]


class Budgets:
    """Reserves in the store, from a thread of its own.

    The store and not this process decides: several gateways share a budget, and a killed one forgets
    nothing. Reservations that come while others are being written share the next transaction. While the
    store is away this process decides by what it knows, so that a budget holds and answers go out.

    Args:
        store: of keys and spending.
        clock: seconds, monotonic.

    Raises:
        StoreError: what was spent cannot be read.

    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._pending: deque[_Pending] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="budgets")
        self._away_until = -inf
        month = month_of(time.time())
        self._known = {(key, month): nanousd for key, nanousd in spending(store).items()}
        """Key and month -> what it has spent and reserved, by the store's last word and ours since."""

    async def reserve(self, reservation: Reservation) -> bool:
        """Reserve what a call may cost.

        Returns:
            Whether the store has the reservation; False while it is away.

        Raises:
            RequestError: the budget is spent, what is left of it does not suffice, or calls on their way
                hold it.

        """
        if self._clock() < self._away_until:
            self._reserve_alone(reservation)
            return False
        try:
            balance = await self._reserve_in_store(reservation)
        except (StoreError, TimeoutError):
            self._away_until = self._clock() + AWAY_SECONDS
            self._reserve_alone(reservation)
            return False
        if not balance.granted:
            raise _refusal(reservation, balance)
        return True

    async def _reserve_in_store(self, reservation: Reservation) -> Balance:
        pending: Future[Balance] = Future()
        self._pending.append((reservation, pending))
        self._thread.submit(self._reserve_pending)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                balance = await asyncio.shield(asyncio.wrap_future(pending))
        except (asyncio.CancelledError, TimeoutError):
            # Nobody will use it. There is one thread, so this comes after the grant.
            self._thread.submit(self._release, reservation)
            raise
        cost = reservation.cost_nanousd if balance.granted else 0
        self._known[_account(reservation)] = balance.spent_nanousd + balance.reserved_nanousd + cost
        return balance

    def _reserve_alone(self, reservation: Reservation) -> None:
        """Reserve in memory: what was known, and the estimates of all calls since."""
        account = _account(reservation)
        balance = self._known.get(account, 0)
        cost = reservation.fitting(balance)
        if cost is None:
            raise _refusal(reservation, Balance(False, balance, 0))
        self._known[account] = balance + cost

    def _reserve_pending(self) -> None:
        pending = [self._pending.popleft() for _ in range(len(self._pending))]
        if not pending:
            return
        try:
            balances = reserve(self.store, [reservation for reservation, _ in pending])
        except Exception as error:
            for _, waiting in pending:
                waiting.set_exception(error)
            return
        for (_, waiting), balance in zip(pending, balances, strict=True):
            waiting.set_result(balance)

    def _release(self, reservation: Reservation) -> None:
        with suppress(StoreError):  # then it counts as spent: rather too much than too little
            release(self.store, [reservation.attempt])

    def close(self) -> None:
        """End the thread once everything is written."""
        self._thread.shutdown()


def _account(reservation: Reservation) -> tuple[str, str]:
    return reservation.key, month_of(reservation.at)


def _refusal(reservation: Reservation, balance: Balance) -> RequestError:
    """Say why a call does not fit into its key's budget, and what to do."""
    limit, spent = reservation.limit_nanousd, balance.spent_nanousd
    known = f"the key {reservation.key!r} has spent {_dollars(spent)} of {_dollars(limit)} this month"
    cost = 1 if reservation.guessed else max(1, reservation.cost_nanousd)
    if spent + cost <= limit:
        return RequestError(
            429,
            f"{known}, and calls on their way may take the rest; try again",
            kind="rate_limit_error",
            code="rate_limit_exceeded",
            wait=RETRY_SECONDS,
        )
    if spent < limit:
        known += f", and this call may cost {_dollars(cost)}; set a lower max_completion_tokens"
    return RequestError(429, known, kind="insufficient_quota", code="insufficient_quota")


def _dollars(nanousd: int) -> str:
    """Dollars in cents; amounts below a cent with as many digits as they need."""
    dollars = nanousd * NANO
    return f"${dollars:.2f}" if not nanousd or abs(nanousd) >= 10_000_000 else f"${dollars:.6f}"
