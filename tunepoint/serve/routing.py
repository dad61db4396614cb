"""Routes: which arm answers a request, by champion, fallback, slices, shadow and canary.

Routes survive a restart, and every change of them is in the audit log. Processes that share a store follow
the same routes: each change names the version that it replaces, and is refused if that is not the latest.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tunepoint.capture.records import Role
from tunepoint.capture.store import Store
from tunepoint.errors import StateConflict, TunepointError, nearest
from tunepoint.serve.breakers import Breaker
from tunepoint.serve.canary import Canary
from tunepoint.serve.presence import Presence
from tunepoint.serve.protocol import ChatRequest

AUTOMATIC = "canary"
"""Who made a change that no person made, in the audit log."""


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

    def limited_to(self, arms: Collection[str], champion: str) -> Policy:
        """Return the policy without arms that are not among these; `champion` stands in for its own."""
        return Policy(
            self.champion if self.champion in arms else champion,
            tuple(arm for arm in self.fallback if arm in arms),
            {name: arm for name, arm in self.slices.items() if arm in arms},
            self.shadow if self.shadow in arms else None,
            self.shadow_share,
            self.canary if self.canary is not None and self.canary.arm in arms else None,
        )

    def begun(self) -> Policy:
        """Return the policy with its canary beginning now."""
        return self if self.canary is None else replace(self, canary=_begun(self.canary))

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


def _begun(canary: Canary) -> Canary:
    return replace(canary, since=time.time(), step=0, at_step=0)


def hash_to_unit(task: str, salt: str, name: str) -> float:
    """Hash names to [0, 1): the same user is always on the same side of a share.

    Args:
        salt: tells experiments apart, so that each one gets other users.

    """
    digest = hashlib.blake2b(f"{task}\x00{salt}\x00{name}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class Router:
    """Follows the routes of one task, and changes them.

    Gateways of different settings may share the store, as while they are restarted one by one. Routes in the
    store stay while a gateway serves by the settings that gave them; the settings of another gateway replace
    them when the last of those is gone. A gateway without an arm that they name follows what it can of them.

    Args:
        task: its name.
        arms: names of those that serve here.
        policy: what serve.toml says.
        store: keeps the routes; None keeps them in memory.
        clock: seconds, monotonic.
        holder: name of this process among those that share the store.

    """

    def __init__(
        self,
        task: str,
        arms: Sequence[str],
        policy: Policy,
        store: Store | None,
        clock: Callable[[], float] = time.monotonic,
        holder: str = "",
    ) -> None:
        self.task, self.arms, self.store = task, tuple(arms), store
        self.policy = policy
        self.settings = policy.document()
        """What serve.toml says. It replaces the stored routes only when it has been edited since."""
        self.breakers = {name: Breaker(clock) for name in arms}
        self.behind = False
        """Whether the stored routes name an arm that does not serve here."""
        self._given = policy
        self._settled = False
        """Whether nothing but a change in the store can bring other routes."""
        self._version: int | None = None
        """Of the routes in the store, as last followed or written."""
        self._lock = threading.RLock()
        self._presence = Presence(task, self.arms, self.settings, holder)
        self.check(policy)
        self._restore()

    def _restore(self) -> None:
        """Follow the routes from before a restart, as far as they still apply."""
        if self.store is None:
            self.policy = self.policy.begun()
            return
        self._presence.show(self.store)
        stored = self.store.versioned_state(self.state_name)
        # another process that starts at the same time may be first, and then its routes are followed
        with suppress(RouteConflict):
            if stored is None:
                self.change(self._given.begun(), "gateway", "first start")
            else:
                self._adopt(*stored)

    def refresh(self) -> None:
        """Follow what another process has changed.

        Raises:
            StoreError: the store is away; the routes known last hold.

        """
        if self.store is None:
            return
        self._presence.show(self.store)
        stored = self.store.versioned_state(self.state_name)
        with self._lock, suppress(RouteConflict):
            if stored is not None and not (self._settled and stored[1] == self._version):
                self._adopt(*stored)

    def _adopt(self, state: Mapping[str, Any], version: int) -> None:
        """Follow stored routes, or replace them by those of the settings where they no longer apply."""
        assert self.store is not None, "routes were read from it"
        stored = Policy.read(state)
        missing = sorted(stored.arms() - set(self.arms))
        differs = state.get("given") not in (None, self.settings)
        if (missing or differs) and not self._presence.of_others(self.store, state.get("by")):
            removed = f"routes from the settings: {', '.join(missing)} no longer serves"
            why = removed if missing else "the settings have changed"
            self.behind, self._version = False, version
            self.change(self._given.begun(), "gateway", why)
            return
        self.behind, self._settled = bool(missing), not (missing or differs)
        self.policy = stored.limited_to(self.arms, self._given.champion) if missing else stored
        self._version = None if missing else version

    def serves_as(self, other: Router) -> bool:
        """Whether both serve by the same settings."""
        return self._presence.settings == other._presence.settings

    def leave(self) -> None:
        """Tell the other processes that this one no longer serves by its settings."""
        if self.store is not None:
            self._presence.end(self.store)

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

    def change(self, policy: Policy, who: str, why: str, *, judged: Canary | None = None) -> None:
        """Follow another policy from now on.

        Args:
            policy: to follow.
            who: changes it, for the audit log.
            why: for the audit log.
            judged: the canary that the change is about; if it has gone on or ended meanwhile, a conflict.

        Raises:
            RouteConflict: another process has just changed them; those are followed now.
            RouteError: as `check`.
            StoreError: it could not be written; the old policy holds.

        """
        self.check(policy)
        with self._lock:
            if judged is not None and self.policy.canary != judged:
                raise RouteConflict(f"{self.task}: that canary has ended or gone on meanwhile")
            if self.behind:
                raise RouteConflict(
                    f"{self.task}: the routes name an arm that does not serve here; change them at a gateway "
                    "with the serve.toml that has it, or restart this one with it"
                )
            if self.store is not None:
                self._write(self.store, policy, who, why)
            self.policy = policy

    def _write(self, store: Store, policy: Policy, who: str, why: str) -> None:
        """Write a policy into the store: what serves must never be ahead of what a restart would find."""
        detail = {"from": self.policy.document(), "to": policy.document()}
        entry = {"task": self.task, "who": who, "what": why, "detail": detail}
        given: Mapping[str, Any] = {"given": self.settings, "by": self._presence.settings}
        if who == AUTOMATIC and not self._settled:  # the settings that gave the routes have given these too
            state = store.state(self.state_name) or {}
            given = {name: state[name] for name in ("given", "by") if name in state}
        try:
            store.set_state(self.state_name, {**policy.document(), **given}, audit=entry, read=self._version)
        except StateConflict:
            self.refresh()
            raise RouteConflict(
                f"{self.task}: somebody else has just changed the routes; look at them, and try again"
            ) from None
        self._version = (self._version or 0) + 1
        self._settled = self._settled or who != AUTOMATIC

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

    def promote(self, arm: str, who: str, why: str, *, judged: Canary | None = None) -> None:
        """Make an arm the champion; the previous champion becomes the first fallback; see `change`."""
        with self._lock:
            policy = self.policy
            if arm == policy.champion:
                raise RouteError(f"{self.task}: {arm!r} is already the champion")
            fallback = tuple(dict.fromkeys((policy.champion, *(f for f in policy.fallback if f != arm))))
            shadow = None if policy.shadow == arm else policy.shadow
            promoted = replace(policy, champion=arm, fallback=fallback, canary=None, shadow=shadow)
            self.change(promoted, who, f"promoted {arm}: {why}", judged=judged)

    def roll_back(self, who: str, why: str, *, judged: Canary | None = None) -> None:
        """End the canary; the champion answers everybody; see `change`."""
        with self._lock:
            canary = self.policy.canary
            if canary is None:
                raise RouteError(f"{self.task}: no canary is running")
            ended = replace(self.policy, canary=None)
            self.change(ended, who, f"rolled back {canary.arm}: {why}", judged=judged)

    def start_canary(self, canary: Canary, who: str) -> None:
        """Give a challenger its first share."""
        with self._lock:
            policy = replace(self.policy, canary=_begun(canary))
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

    def raise_canary(self, answered: int, who: str, why: str, *, judged: Canary | None = None) -> None:
        """Give the challenger its next share.

        Args:
            answered: its answers so far, from which those of the next step are counted.
            who: changes it, for the audit log.
            why: for the audit log.
            judged: see `change`.

        """
        with self._lock:
            canary = self.policy.canary
            if canary is None or canary.step + 1 >= len(canary.steps):
                raise RouteError(f"{self.task}: no canary is running with a further step")
            raised = canary.raised(answered)
            policy = replace(self.policy, canary=raised)
            self.change(policy, who, f"{canary.arm} for {raised.share:.0%}: {why}", judged=judged)
