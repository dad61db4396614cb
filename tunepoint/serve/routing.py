"""Routes: which arm answers a request, by champion, fallback, slices, shadow and canary.

Routes survive a restart, and every change of them is in the audit log. Processes that share a store follow
the same routes: each change names the version that it replaces, and is refused if that is not the latest.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tunepoint.capture.records import Role
from tunepoint.capture.store import Store
from tunepoint.errors import StateConflict, TunepointError, nearest
from tunepoint.serve.canary import Canary
from tunepoint.serve.protocol import ChatRequest

FAILURES_TO_OPEN, OPEN_SECONDS = 5, 10.0
"""Failures in a row after which an arm is paused, and for how long."""
MAX_OPEN_SECONDS = 300.0
"""The longest pause that a server can ask for."""


class RouteError(TunepointError):
    """A route names an arm that does not serve, or contradicts itself."""


class RouteConflict(RouteError):
    """Another process has just changed the routes."""


@dataclass(frozen=True)
class Policy:
    """The routes of one task."""

    champion: str
    fallback: tuple[str, ...] = ()
    """Called in turn if the champion does not answer."""
    slices: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Slice -> the arm that answers it in the champion's place."""
    shadow: str | None = None
    """Answers copies of requests, which are recorded and sent to nobody."""
    shadow_share: float = 1.0
    """Of the requests that are copied, 0 to 1."""
    canary: Canary | None = None

    def arms(self) -> set[str]:
        """All arms that the policy names."""
        names = {self.champion, *self.fallback, *self.slices.values()}
        if self.shadow:
            names.add(self.shadow)
        if self.canary:
            names.add(self.canary.arm)
        return names

    def document(self) -> dict[str, Any]:
        """The policy as the store keeps it."""
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
        """Read a policy that the store has kept."""
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
    """A circuit breaker: pauses an arm that keeps failing.

    Closed, it lets every request through; after several failures in a row it opens and lets none through;
    when the pause is over, one probe is let through, and its outcome closes or opens it again. Time is
    monotonic, so that setting the clock moves nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._probing = False

    @property
    def opened(self) -> bool:
        """Whether the arm is paused."""
        return self._clock() < self._until

    def allows(self) -> bool:
        """Whether to call the arm; a yes may be the one probe, so the call has to be made."""
        if self._failures < FAILURES_TO_OPEN and self._until <= self._clock():
            return True
        if self._clock() < self._until or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """Note that the arm has answered."""
        self._failures, self._until, self._probing = 0, 0.0, False

    def failed(self, wait: float | None = None) -> None:
        """Note that the arm has failed; `wait` is the pause in seconds that its server asked for."""
        self._failures += 1
        self._probing = False
        if wait is not None:
            self._until = self._clock() + min(wait, MAX_OPEN_SECONDS)
        elif self._failures >= FAILURES_TO_OPEN:
            self._until = self._clock() + OPEN_SECONDS

    def abandoned(self) -> None:
        """Note that a request ended without telling anything about the arm: its client disconnected."""
        self._probing = False


def hash_to_unit(task: str, salt: str, name: str) -> float:
    """Hash names to [0, 1): the same user is always on the same side of a share.

    Args:
        salt: tells experiments apart, so that each one gets other users.

    """
    digest = hashlib.blake2b(f"{task}\x00{salt}\x00{name}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class Router:
    """Follows the routes of one task, and changes them."""

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
        self.settings = policy.document()
        """What serve.toml says. It replaces the stored routes only when it has been edited since."""
        self.breakers = {name: Breaker(clock) for name in arms}
        self._version: int | None = None
        """Of the routes in the store, as last read or written."""
        self._lock = threading.RLock()
        self.check(policy)
        self._restore()

    def _restore(self) -> None:
        """Follow the routes from before a restart, as far as they still apply."""
        found = self.store.versioned_state(self.state_name) if self.store is not None else None
        why = "first start"
        if found is not None:
            state, self._version = found
            stored = Policy.read(state)
            removed = ", ".join(sorted(stored.arms() - set(self.arms)))
            if not removed and state.get("given") in (None, self.settings):
                self.policy = stored
                return
            why = f"routes from the settings: {removed} no longer serves" if removed else ""
            why = why or "the settings have changed"
        # another process that starts at the same time may be first, and then its routes are followed
        with suppress(RouteConflict):
            self.change(self.policy, "gateway", why)

    def refresh(self) -> None:
        """Follow what another process has changed; routes to arms that do not serve here are not followed.

        Raises:
            StoreError: the store is away; the routes known last hold.

        """
        if self.store is None:
            return
        found = self.store.versioned_state(self.state_name)
        with self._lock:
            if found is None or found[1] == self._version:
                return
            state, self._version = found
            stored = Policy.read(state)
            if stored.arms() <= set(self.arms):
                self.policy = stored

    @property
    def state_name(self) -> str:
        """Name of the routes in the store."""
        return f"routes/{self.task}"

    def check(self, policy: Policy) -> None:
        """Check that a policy can be followed.

        Raises:
            RouteError: it names an arm that does not serve, or a share out of its range.

        """
        for name in sorted(policy.arms()):
            if name not in self.arms:
                raise RouteError(f"{self.task}: no arm {name!r}; {nearest(name, self.arms)}")
        if not 0 <= policy.shadow_share <= 1:
            raise RouteError(f"{self.task}: shadow_share is {policy.shadow_share:g}, must be 0 to 1")
        canary = policy.canary
        if canary is None:
            return
        if canary.arm == policy.champion:
            raise RouteError(f"{self.task}: {canary.arm!r} is the champion; name another arm for the canary")
        rising = all(0 < a < b for a, b in zip(canary.steps, canary.steps[1:], strict=False))
        if not canary.steps or not canary.steps[0] > 0 or canary.steps[-1] > 1 or not rising:
            steps = ", ".join(f"{step:g}" for step in canary.steps) or "none"
            raise RouteError(f"{self.task}: canary steps must rise from above 0 to at most 1, got {steps}")

    def change(self, policy: Policy, who: str, why: str) -> None:
        """Follow another policy from now on.

        Raises:
            RouteConflict: another process has just changed them; those are followed now.
            RouteError: as `check`.
            StoreError: it could not be written; the old policy holds.

        """
        self.check(policy)
        with self._lock:
            if self.store is not None:
                detail = {"from": self.policy.document(), "to": policy.document()}
                entry = {"task": self.task, "who": who, "what": why, "detail": detail}
                state = {**policy.document(), "given": self.settings}
                # Written first: what serves must never be ahead of what a restart would find.
                try:
                    self.store.set_state(self.state_name, state, audit=entry, read=self._version)
                except StateConflict:
                    self.refresh()
                    raise RouteConflict(
                        f"{self.task}: somebody else has just changed the routes; look at them, and try again"
                    ) from None
                self._version = (self._version or 0) + 1
            self.policy = policy

    def plan(self, request: ChatRequest) -> list[tuple[str, Role]]:
        """List the arms to call in turn, each with its role."""
        policy = self.policy
        first: tuple[str, Role] = (policy.champion, "champion")
        if request.slice is not None and request.slice in policy.slices:
            first = (policy.slices[request.slice], "slice")
        elif self.is_canary(request):
            assert policy.canary is not None
            first = (policy.canary.arm, "canary")
        backups = dict.fromkeys((policy.champion, *policy.fallback))
        return [first, *((name, "fallback") for name in backups if name != first[0])]

    def is_canary(self, request: ChatRequest) -> bool:
        """Whether the user is in the canary's share."""
        canary = self.policy.canary
        if canary is None:
            return False
        return hash_to_unit(self.task, canary.arm, request.user or request.id) < canary.share

    def is_shadowed(self, request: ChatRequest) -> bool:
        """Whether the shadow answers a copy."""
        policy = self.policy
        if policy.shadow is None:
            return False
        return hash_to_unit(self.task, "shadow", request.id) < policy.shadow_share

    # -- changes ---------------------------------------------------------------------------------

    def promote(self, arm: str, who: str, why: str) -> None:
        """Make an arm the champion; the previous champion becomes the first fallback."""
        with self._lock:
            policy = self.policy
            if arm == policy.champion:
                raise RouteError(f"{self.task}: {arm!r} is already the champion")
            fallback = tuple(dict.fromkeys((policy.champion, *(f for f in policy.fallback if f != arm))))
            shadow = None if policy.shadow == arm else policy.shadow
            promoted = replace(policy, champion=arm, fallback=fallback, canary=None, shadow=shadow)
            self.change(promoted, who, f"promoted {arm}: {why}")

    def roll_back(self, who: str, why: str) -> None:
        """End the canary; the champion answers everybody."""
        with self._lock:
            canary = self.policy.canary
            if canary is None:
                raise RouteError(f"{self.task}: no canary is running")
            self.change(replace(self.policy, canary=None), who, f"rolled back {canary.arm}: {why}")

    def start_canary(self, canary: Canary, who: str) -> None:
        """Give a challenger its first share."""
        started = replace(canary, since=time.time(), step=0, at_step=0)
        with self._lock:
            policy = replace(self.policy, canary=started)
            self.check(policy)
            self.change(policy, who, f"canary: {canary.arm} for {canary.steps[0]:.0%} of the users")

    def set_shadow(self, arm: str | None, who: str, why: str) -> None:
        """Let another arm answer copies; None ends it."""
        with self._lock:
            self.change(replace(self.policy, shadow=arm), who, f"shadow: {arm or 'none'}: {why}")

    def set_fallback(self, arms: Sequence[str], who: str) -> None:
        """Call these arms in turn where the champion does not answer."""
        with self._lock:
            policy = replace(self.policy, fallback=tuple(arms))
            self.change(policy, who, f"fallback: {', '.join(arms) or 'none'}")

    def raise_canary(self, answered: int, who: str, why: str) -> None:
        """Give the challenger its next share.

        Args:
            answered: its answers so far, from which those of the next step are counted.

        """
        with self._lock:
            canary = self.policy.canary
            if canary is None or canary.step + 1 >= len(canary.steps):
                raise RouteError(f"{self.task}: no canary is running with a further step")
            raised = canary.raised(answered)
            policy = replace(self.policy, canary=raised)
            self.change(policy, who, f"{canary.arm} for {raised.share:.0%}: {why}")
