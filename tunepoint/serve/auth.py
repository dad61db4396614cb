"""API keys: kept as hashes, with their roles and rate limits."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tunepoint.capture.keys import StoredKey, active_keys, add_key, any_key_ever
from tunepoint.capture.keys import revoke_key as revoke_key  # beside `make_key`, for those who use both
from tunepoint.capture.spending import absorb, spending
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError
from tunepoint.serve.budgets import Budgets
from tunepoint.serve.protocol import RequestError
from tunepoint.serve.rate_limits import RateLimits

Role = Literal["call", "read", "operate"]
"""Call tasks and give feedback; read metrics and the dashboard; change what serves."""
ROLES: tuple[Role, ...] = get_args(Role)
MAX_NAME_LENGTH = 100
"""Characters of a key's name."""
MAX_USD_A_MONTH = 1e9
FEEDBACK_A_MINUTE = 600
"""Feedback entries that any key may give in a minute."""
MAX_CALL_SECONDS = 4 * 3_600.0
"""After which a call cannot be on its way: several arms in turn, each for the longest timeout."""


@dataclass(frozen=True)
class Key:
    """What a key may do."""

    name: str
    roles: tuple[Role, ...]
    usd_a_month: float | None = None
    """Budget for its answers in a calendar month (UTC)."""
    requests_a_minute: int | None = None


ANYBODY = Key("", ROLES)
"""Every caller on the loopback interface, as long as there are no keys."""


def make_key(
    store: Store,
    name: str,
    roles: tuple[Role, ...],
    *,
    usd_a_month: float | None = None,
    requests_a_minute: int | None = None,
) -> str:
    """Make a key and keep its hash; the key itself is returned once and written nowhere.

    Raises:
        StoreError: the name is empty, too long, or taken, or the budget is no amount of money.

    """
    if not name.strip() or len(name) > MAX_NAME_LENGTH:
        raise StoreError(f"{name!r} cannot name a key: give 1 to {MAX_NAME_LENGTH} characters")
    if usd_a_month is not None and not 0 <= usd_a_month <= MAX_USD_A_MONTH:
        raise StoreError(
            f"a budget of {usd_a_month:g} dollars a month cannot be kept: give 0 to {MAX_USD_A_MONTH:,.0f}"
        )
    token = f"tp-{secrets.token_urlsafe(32)}"
    add_key(store, StoredKey(_digest(token), name, roles, usd_a_month, requests_a_minute))
    return token


def _digest(token: str) -> str:
    # A fast hash will do: a key has 256 random bits, so guessing is hopeless at any speed.
    return hashlib.sha256(token.encode()).hexdigest()


class Access:
    """Checks keys and rate limits; `budgets` reserves what calls may cost.

    Args:
        alone: whether only this machine can connect; then no key is needed until the first one is made.

    """

    def __init__(self, store: Store, *, alone: bool = True, clock: Any = time.monotonic) -> None:
        self.store = store
        self.budgets = Budgets(store)
        self._alone = alone
        self._keys: dict[str, Key] = {}
        self.rates = RateLimits(store, clock)
        self.reload()

    def reload(self) -> None:
        """Read the keys again; those revoked since are rejected from now on."""
        self._keys = {key.digest: _key(key) for key in active_keys(self.store)}
        # Revoking the last key must not open the gateway to everybody, nor must a restart after it.
        self._alone = self._alone and not any_key_ever(self.store)

    @property
    def is_open(self) -> bool:
        """Whether no key is needed: on the loopback interface, as long as none was ever made."""
        return self._alone

    @property
    def has_keys(self) -> bool:
        """Whether there is any key."""
        return bool(self._keys)

    def admit(self, authorization: str | None, *roles: Role) -> Key:
        """Return the key that a request carries, if it has one of the roles.

        Raises:
            RequestError: no key, an unknown key, or one without any of the roles.

        """
        if self._alone:
            return ANYBODY
        kind, _, token = (authorization or "").partition(" ")
        key = self._keys.get(_digest(token.strip())) if kind.casefold() == "bearer" else None
        if key is None:
            raise RequestError(
                401,
                "no valid API key: send 'Authorization: Bearer KEY'; `tunepoint keys add` makes one",
                kind="authentication_error",
                code="invalid_api_key",
            )
        if not set(roles) & set(key.roles):
            raise RequestError(
                403,
                f"the key {key.name!r} has the role {' and '.join(key.roles)}, "
                f"this needs {' or '.join(map(repr, roles))}",
                kind="permission_error",
            )
        return key

    async def charge_request(self, key: Key) -> None:
        """Count a request against the key's rate limit.

        Raises:
            RequestError: over it; with the seconds to wait.

        """
        if key.requests_a_minute is not None:
            await self._charge(key, f"requests/{key.name}", key.requests_a_minute, "requests")

    async def charge_feedback(self, key: Key) -> None:
        """Count feedback as a request, and against a limit that holds for keys without one too.

        Raises:
            RequestError: over one of them; with the seconds to wait.

        """
        await self.charge_request(key)
        await self._charge(key, f"feedback/{key.name}", FEEDBACK_A_MINUTE, "feedback entries")

    async def _charge(self, key: Key, bucket: str, per_minute: int, what: str) -> None:
        wait = await self.rates.take(bucket, per_minute)
        if wait:
            raise RequestError(
                429,
                f"the key {key.name!r} is limited to {per_minute:g} {what} a minute",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                wait=wait,
            )

    def spent(self) -> Mapping[str, int]:
        """Return the billionths of a dollar spent in this month, by the name of the key."""
        return spending(self.store)

    def absorb_abandoned(self) -> None:
        """Count what killed processes had reserved as spent."""
        absorb(self.store, time.time() - MAX_CALL_SECONDS)

    def close(self) -> None:
        """End the threads of budgets and rates."""
        self.budgets.close()
        self.rates.close()


def _key(stored: StoredKey) -> Key:
    roles = tuple(role for role in ROLES if role in stored.roles)
    return Key(stored.name, roles, stored.usd_a_month, stored.requests_a_minute)
