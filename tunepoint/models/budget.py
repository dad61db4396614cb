"""The spending cap of a study, and endpoints whose calls are paid from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tunepoint.errors import BudgetReached, TunepointError
from tunepoint.models.endpoints import Allow, Completion, Done, Endpoint, Request
from tunepoint.models.payments import PaymentLog
from tunepoint.models.prices import CallPrice


class Budget:
    """What the study has spent and may spend; seconds of this machine count as money."""

    def __init__(
        self,
        cap_usd: float | None,
        usd_per_second: float,
        spent_usd: float = 0.0,
        payments: PaymentLog | None = None,
    ) -> None:
        """Start with what was spent before.

        Args:
            cap_usd: what may be spent in all; None for no limit.
            usd_per_second: of this machine.
            spent_usd: so far, all calls in `payments` included.
            payments: where calls are written down; nowhere if None.

        """
        self.cap_usd = cap_usd
        self.usd_per_second = usd_per_second
        self.spent_usd = spent_usd
        self.calls_usd = 0.0 if payments is None else payments.usd
        """The part of `spent_usd` that went to calls of chat models."""
        self.calls = 0
        """Calls of chat models that were paid for since the start."""
        self.before_spending: Callable[[], None] = lambda: None
        """Called before anything is spent; may raise."""
        self._payments = payments
        self._charged_until: float | None = None
        """Time of the clock up to which rented machines are paid for; None where none are rented."""
        self._reserved: dict[int, float] = {}
        self._reservations = 0

    @property
    def reserved_usd(self) -> float:
        """Dollars set aside for calls that are under way."""
        return sum(self._reserved.values())

    def rent(self, usd_per_hour: float) -> None:
        """Charge by the clock from now on: machines that are rented cost as much while they wait."""
        self.usd_per_second = usd_per_hour / 3600
        self._charged_until = time.monotonic()

    def charge_rent(self) -> None:
        """Add what rented machines have cost since the last time."""
        if self._charged_until is not None:
            now = time.monotonic()
            self.spent_usd += (now - self._charged_until) * self.usd_per_second
            self._charged_until = now

    def check(self, seconds: float, rest_seconds: float) -> None:
        """Raise if a step on this machine would exceed the cap.

        Args:
            seconds: that the step takes.
            rest_seconds: that the rest of the study takes, the step included; for the message.

        Raises:
            BudgetReached: with the cost of the step and of the rest of the study.

        """
        self.before_spending()
        self.charge_rent()
        step = seconds * self.usd_per_second
        if self.cap_usd is not None and self.spent_usd + step > self.cap_usd:
            rest = rest_seconds * self.usd_per_second
            raise BudgetReached(
                f"spending cap: ${self.spent_usd:.6f} of ${self.cap_usd:.6f} are spent, the next step costs "
                f"about ${step:.6f} and the rest of the study about ${rest:.6f}. "
                "All measurements are kept: run again with a higher --max-usd to resume"
            )

    def charge_seconds(self, seconds: float) -> None:
        """Add time on this machine; negative seconds give back what was charged too much."""
        if self._charged_until is None:
            self.spent_usd += seconds * self.usd_per_second
        else:
            self.charge_rent()

    def reserve(self, dollars: float) -> int | None:
        """Set money aside for a call, the most that it can cost.

        Returns:
            the number of the reservation, or None if the call must wait for others to settle.

        Raises:
            BudgetReached: the call could exceed the cap, and no call under way can settle for less.

        """
        self.before_spending()
        self.charge_rent()
        if self.cap_usd is not None and self.spent_usd + self.reserved_usd + dollars > self.cap_usd:
            # Calls under way have reserved their worst case: when they settle, there may be room.
            if self._reserved:
                return None
            raise BudgetReached(
                f"spending cap: ${self.spent_usd:.6f} of ${self.cap_usd:.6f} are spent, and the next call "
                f"may cost ${dollars:.6f}. All answers are kept: run again with a higher --max-usd to resume"
            )
        self._reservations += 1
        number = self._reservations if self._payments is None else self._payments.intend(dollars)
        self._reserved[number] = dollars
        return number

    def settle(self, reservation: int, dollars: float | None) -> None:
        """Replace a reservation by what the call cost; None if nobody knows, so that all of it counts.

        A reservation of an earlier run, of a call that went by batch, counts as spent since the start.
        """
        counted = 0.0
        reserved = self._reserved.pop(reservation, None)
        if reserved is None:
            reserved = counted = 0.0 if self._payments is None else self._payments.usd_of(reservation)
        dollars = reserved if dollars is None else dollars
        if self._payments is not None:
            self._payments.settle(reservation, dollars)
        self.spent_usd += dollars - counted
        self.calls_usd += dollars - counted
        self.calls += dollars > 0


class BudgetedEndpoint:
    """An endpoint whose calls are paid from a budget, and stop before they would exceed its cap."""

    def __init__(self, endpoint: Endpoint, budget: Budget, price: CallPrice | None) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.budget = budget
        self.price = price
        self._excess_usd = 0.0
        """The most by which a call has cost more than its limits allow: servers may ignore these."""
        self._answered = False
        """Whether a call was answered. Under a cap the first goes alone, to show what the server charges."""

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests that the budget allows."""
        price = self.price
        if price is None:
            self.endpoint.complete(requests, done, allow)
            return

        # By identity: equal requests are calls of their own, each with its own reservation.
        reservations: dict[int, int] = {}

        def reserve(request: Request) -> bool:
            if self.budget.cap_usd is not None and not self._answered and reservations:
                return False
            reservation = self.budget.reserve(price.max_dollars(request) + self._excess_usd)
            if reservation is None:
                return False
            # a call that is sent again, for whoever made it has died, may have been paid for
            before = reservations.get(id(request))
            if before is not None:
                self.budget.settle(before, None)
            reservations[id(request)] = reservation
            return True

        def settle(position: int, completion: Completion) -> None:
            request, dollars = requests[position], price.dollars(completion.usage)
            self._excess_usd = max(self._excess_usd, dollars - price.max_dollars(request))
            self._answered = self._answered or (completion.error is None and completion.lasting)
            self.budget.settle(reservations.pop(id(request)), dollars)
            done(position, completion)

        refused = False
        try:
            self.endpoint.complete(requests, settle, reserve)
        except TunepointError:
            refused = True  # calls that no server took cost nothing
            raise
        finally:
            for reservation in reservations.values():
                self.budget.settle(reservation, 0.0 if refused else None)
