"""What a study may spend: the cap, and endpoints whose calls are paid from it."""

from __future__ import annotations

from collections.abc import Sequence

from tunepoint.errors import BudgetReached
from tunepoint.models.endpoints import Allow, Completion, Done, Endpoint, Request
from tunepoint.models.prices import CallPrice


class Budget:
    """What the study has spent and may spend; this machine's time counts as money."""

    def __init__(self, cap_usd: float | None, usd_per_second: float, spent_usd: float = 0.0) -> None:
        self.cap_usd = cap_usd
        self.usd_per_second = usd_per_second
        self.spent_usd = spent_usd
        self._held: dict[int, float] = {}
        self._calls = 0

    @property
    def held_usd(self) -> float:
        """Set aside for calls on their way."""
        return sum(self._held.values())

    def check(self, seconds: float, rest_seconds: float) -> None:
        """Raise before a step that would pass the cap.

        Raises:
            BudgetReached: with what the step and the rest of the study would cost.

        """
        step = seconds * self.usd_per_second
        if self.cap_usd is not None and self.spent_usd + step > self.cap_usd:
            rest = rest_seconds * self.usd_per_second
            raise BudgetReached(
                f"spending cap: ${self.spent_usd:.6f} of ${self.cap_usd:.6f} are spent and the next "
                f"step costs about ${step:.6f}; the rest of the study would cost about ${rest:.6f}. "
                "What was measured is kept: run again with a higher --max-usd to go on"
            )

    def charge_seconds(self, seconds: float) -> None:
        """Add time that was used."""
        self.spent_usd += seconds * self.usd_per_second

    def reserve(self, dollars: float) -> int | None:
        """Set money aside for a call; its receipt, or None if it must wait for calls on their way.

        Raises:
            BudgetReached: the call could pass the cap, with nothing on its way.

        """
        if self.cap_usd is not None and self.spent_usd + self.held_usd + dollars > self.cap_usd:
            if self._held:
                return None
            raise BudgetReached(
                f"spending cap: ${self.spent_usd:.6f} of ${self.cap_usd:.6f} are spent and the next call "
                f"may cost ${dollars:.6f}. What was answered is kept: run again with a higher --max-usd "
                "to go on"
            )
        self._calls += 1
        self._held[self._calls] = dollars
        return self._calls

    def settle(self, receipt: int, dollars: float) -> None:
        """Replace money set aside by what the call took."""
        del self._held[receipt]
        self.spent_usd += dollars


class BudgetedEndpoint:
    """An endpoint whose calls are paid from a meter, and stop before they would pass its cap."""

    def __init__(self, endpoint: Endpoint, budget: Budget, price: CallPrice | None) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.budget = budget
        self.price = price

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests that the meter allows."""
        price = self.price
        if price is None:
            self.endpoint.complete(requests, done, allow)
            return

        held: dict[int, int] = {}

        def reserve(request: Request) -> bool:
            receipt = self.budget.reserve(price.max_dollars(request))
            if receipt is None:
                return False
            held[id(request)] = receipt
            return True

        def settled(position: int, completion: Completion) -> None:
            receipt = held.pop(id(requests[position]))
            self.budget.settle(receipt, price.dollars(completion.usage))
            done(position, completion)

        try:
            self.endpoint.complete(requests, settled, reserve)
        finally:
            for receipt in held.values():
                self.budget.settle(receipt, 0.0)  # calls that were stopped on their way
