"""Which arm answers: the champion, and around it fallback, slices, shadow and canary.

What is decided here survives a restart, and every change of it stands in the audit log.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tunepoint.capture.records import Role
from tunepoint.capture.store import Store
from tunepoint.errors import TunepointError, nearest
from tunepoint.serve.canary import Canary
from tunepoint.serve.protocol import ChatRequest

TRIPS, OPEN_SECONDS = 5, 10.0
"""Failures in a row after which an arm is not asked, and for how long."""


class RouteError(TunepointError):
    """A route names an arm that does not serve, or makes no sense."""


@dataclass(frozen=True)
class Policy:
    """Who answers what."""

    champion: str
    fallback: tuple[str, ...] = ()
    """Asked in turn where the champion does not answer."""
    slices: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Slice -> the arm that answers it in the champion's place."""
    shadow: str | None = None
    """Answers a copy that nobody waits for."""
    shadow_share: float = 1.0
    canary: Canary | None = None

    def arms(self) -> set[str]:
        """All arms that it names."""
        named = {self.champion, *self.fallback, *self.slices.values()}
        return (
            named | ({self.shadow} if self.shadow else set()) | ({self.canary.arm} if self.canary else set())
        )

    def document(self) -> dict[str, Any]:
        """As the store keeps it."""
        return {
            "champion": self.champion,
            "fallback": list(self.fallback),
            "slices": dict(self.slices),
            "shadow": self.shadow,
            "shadow_share": self.shadow_share,
            "canary": None if self.canary is None else self.canary.document(),
        }

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Policy:
        """As the store kept it."""
        canary = content.get("canary")
        return cls(
            content["champion"],
            tuple(content["fallback"]),
            dict(content["slices"]),
            content["shadow"],
            content["shadow_share"],
            None if canary is None else Canary.read(canary),
        )


class Breaker:
    """Keeps from asking an arm that fails; lets one request through now and then to see.

    Closed, it lets all through; after some failures in a row it opens; when its time is over, one request
    is let through, and its end decides. Time is monotonic: no clock that is set moves it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._probing = False

    @property
    def opened(self) -> bool:
        """Whether requests are kept from the arm."""
        return self._clock() < self._until

    def allows(self) -> bool:
        """Whether to ask; a probe counts as asked."""
        if self._failures < TRIPS and self._until <= self._clock():
            return True
        if self._clock() < self._until or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """The arm has answered."""
        self._failures, self._until, self._probing = 0, 0.0, False

    def failed(self, wait: float | None = None) -> None:
        """It has not; `wait` seconds were asked for, if any."""
        self._failures += 1
        self._probing = False
        if wait is not None:
            self._until = self._clock() + min(wait, 300.0)
        elif self._failures >= TRIPS:
            self._until = self._clock() + OPEN_SECONDS

    def left(self) -> None:
        """The request ended without a word on the arm: the caller went away."""
        self._probing = False


def unit(task: str, salt: str, name: str) -> float:
    """A number in [0, 1) that only the names decide: the same user is always on the same side."""
    digest = hashlib.blake2b(f"{task}\x00{salt}\x00{name}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class Router:
    """The routes of one task."""

    def __init__(
        self,
        task: str,
        arms: Sequence[str],
        policy: Policy,
        store: Store | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task, self.arms, self.store = task, tuple(arms), store
        self.policy = policy
        self.given = policy.document()
        """What the settings say; they are followed anew only where they have changed."""
        self.breakers = {name: Breaker(clock) for name in arms}
        self._lock = threading.RLock()
        self.check(policy)
        kept = store.state(self.state) if store is not None else None
        if kept is None:
            self.change(policy, "gateway", "first start")
            return
        before = Policy.read(kept)
        gone = ", ".join(sorted(before.arms() - set(arms)))
        if gone:
            self.change(policy, "gateway", f"started anew: {gone} is served no more")
        elif kept.get("given") not in (None, self.given):
            self.change(policy, "gateway", "the settings have changed")
        else:
            self.policy = before

    @property
    def state(self) -> str:
        """Name of its state in the store."""
        return f"routes/{self.task}"

    def check(self, policy: Policy) -> None:
        """See that a policy can be followed.

        Raises:
            RouteError: it names an arm that does not serve, or a share that is none.

        """
        for name in sorted(policy.arms()):
            if name not in self.arms:
                raise RouteError(f"{self.task}: no arm {name!r}; {nearest(name, self.arms)}")
        if not 0 <= policy.shadow_share <= 1:
            raise RouteError(f"{self.task}: a shadow's share is 0..1, got {policy.shadow_share:g}")
        canary = policy.canary
        if canary is None:
            return
        if canary.arm == policy.champion:
            raise RouteError(f"{self.task}: {canary.arm!r} is the champion; a canary tries another arm")
        rising = all(0 < a < b for a, b in zip(canary.steps, canary.steps[1:], strict=False))
        if not canary.steps or not canary.steps[0] > 0 or canary.steps[-1] > 1 or not rising:
            raise RouteError(f"{self.task}: the steps of a canary are shares that rise, got {canary.steps}")

    def change(self, policy: Policy, who: str, why: str) -> None:
        """Follow another policy from now on; it is written down before it holds.

        Raises:
            RouteError: as `check`.
            StoreError: it could not be written; the old one holds.

        """
        self.check(policy)
        with self._lock:
            if self.store is not None:
                detail = {"from": self.policy.document(), "to": policy.document()}
                noted = {"task": self.task, "who": who, "what": why, "detail": detail}
                self.store.set_state(self.state, {**policy.document(), "given": self.given}, noted=noted)
            self.policy = policy

    def plan(self, request: ChatRequest) -> list[tuple[str, Role]]:
        """The arms to ask, in turn, each with its role; those that keep failing come last."""
        policy = self.policy
        first: tuple[str, Role] = (policy.champion, "champion")
        if request.slice is not None and request.slice in policy.slices:
            first = (policy.slices[request.slice], "slice")
        elif self.is_canary(request):
            assert policy.canary is not None
            first = (policy.canary.arm, "canary")
        others = [policy.champion, *policy.fallback]
        rest: list[tuple[str, Role]] = [
            (name, "fallback") for name in dict.fromkeys(others) if name != first[0]
        ]
        return [first, *rest]

    def is_canary(self, request: ChatRequest) -> bool:
        """Whether the canary's share has this user."""
        canary = self.policy.canary
        return canary is not None and unit(self.task, canary.arm, request.user or request.id) < canary.share

    def is_shadowed(self, request: ChatRequest) -> bool:
        """Whether the shadow answers a copy."""
        policy = self.policy
        return policy.shadow is not None and unit(self.task, "shadow", request.id) < policy.shadow_share

    # -- changes ---------------------------------------------------------------------------------

    def promote(self, arm: str, who: str, why: str) -> None:
        """Make an arm the champion; the one before becomes the first fallback."""
        policy = self.policy
        if arm == policy.champion:
            raise RouteError(f"{self.task}: {arm!r} is the champion already")
        fallback = tuple(dict.fromkeys((policy.champion, *(f for f in policy.fallback if f != arm))))
        shadow = None if policy.shadow == arm else policy.shadow
        new = replace(policy, champion=arm, fallback=fallback, canary=None, shadow=shadow)
        self.change(new, who, f"promoted {arm}: {why}")

    def roll_back(self, who: str, why: str) -> None:
        """End the canary; the champion answers all."""
        canary = self.policy.canary
        if canary is None:
            raise RouteError(f"{self.task}: no canary is running")
        self.change(replace(self.policy, canary=None), who, f"rolled back {canary.arm}: {why}")

    def start_canary(self, canary: Canary, who: str) -> None:
        """Give a challenger its first share."""
        policy = replace(self.policy, canary=replace(canary, since=time.time(), step=0, at_step=0))
        self.check(policy)
        self.change(policy, who, f"canary: {canary.arm} for {canary.steps[0]:.0%} of the users")

    def raise_canary(self, answered: int, who: str, why: str) -> None:
        """Give it the next one."""
        canary = self.policy.canary
        if canary is None or canary.step + 1 >= len(canary.steps):
            raise RouteError(f"{self.task}: no canary that could be raised")
        raised = canary.raised(answered)
        self.change(replace(self.policy, canary=raised), who, f"{canary.arm} for {raised.share:.0%}: {why}")
