"""API keys: kept as hashes, with their roles, rate limits and budgets."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, get_args

from tunepoint.capture.records import NANO
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError
from tunepoint.serve.protocol import RequestError

Role = Literal["call", "read", "operate"]
"""Call tasks and give feedback; read metrics and the dashboard; change what serves."""
ROLES: tuple[Role, ...] = get_args(Role)
KEYS = "keys"
"""Name of the keys in the store: digest -> name, roles and limits."""
MAX_NAME_LENGTH = 100
"""Characters of a key's name."""


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
        StoreError: the name is empty, too long, or taken.

    """
    if not name.strip() or len(name) > MAX_NAME_LENGTH:
        raise StoreError(f"{name!r} cannot name a key: give 1 to {MAX_NAME_LENGTH} characters")
    keys = store.state(KEYS) or {}
    if any(key["name"] == name for key in keys.values()):
        raise StoreError(f"there is already a key named {name!r}: revoke it first, or choose another name")
    token = f"tp-{secrets.token_urlsafe(32)}"
    limits = asdict(Key(name, roles, usd_a_month, requests_a_minute))
    store.set_state(KEYS, {**keys, _digest(token): {**limits, "roles": list(roles)}})
    store.add_audit("", "command line", f"made key {name!r} ({', '.join(roles)})")
    return token


def revoke_key(store: Store, name: str) -> None:
    """Revoke a key.

    Raises:
        StoreError: no key has this name.

    """
    keys = store.state(KEYS) or {}
    remaining = {digest: key for digest, key in keys.items() if key["name"] != name}
    if len(remaining) == len(keys):
        names = ", ".join(sorted(key["name"] for key in keys.values())) or "none"
        raise StoreError(f"there is no key named {name!r}; the keys are: {names}")
    store.set_state(KEYS, remaining)
    store.add_audit("", "command line", f"revoked key {name!r}")


def _digest(token: str) -> str:
    # A fast hash will do: a key has 256 random bits, so guessing is hopeless at any speed.
    return hashlib.sha256(token.encode()).hexdigest()


class Access:
    """Checks keys, rate limits and budgets.

    `save` writes down what was spent; a killed process forgets the dollars since the last one.

    Args:
        alone: whether only this machine can connect; then no key is needed until the first one is made.

    """

    def __init__(self, store: Store, *, alone: bool = True, clock: Any = time.monotonic) -> None:
        self.store = store
        self._alone = alone
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._buckets: dict[str, tuple[float, float]] = {}
        """Name of a key -> its remaining requests, and the time of that count (a token bucket)."""
        self._month = ""
        self._spent: dict[str, int] = {}
        """Name of a key -> billionths of a dollar in this month."""
        self._changed = False
        self.reload()
        self._start_new_month()

    def reload(self) -> None:
        """Read the keys again; those revoked since are rejected from now on."""
        keys = self.store.state(KEYS) or {}
        self._keys = {
            digest: Key(key["name"], tuple(key["roles"]), key["usd_a_month"], key["requests_a_minute"])
            for digest, key in keys.items()
        }
        # Never back to True: revoking the last key must not open the gateway to everybody.
        self._alone &= not self._keys

    @property
    def is_open(self) -> bool:
        """Whether no key is needed: on the loopback interface, as long as none was ever made."""
        return self._alone

    @property
    def has_keys(self) -> bool:
        """Whether there is any key."""
        return bool(self._keys)

    def admit(self, authorization: str | None, role: Role) -> Key:
        """Return the key that a request carries, if it has the role.

        Raises:
            RequestError: no key, an unknown key, or one without the role.

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
        if role not in key.roles:
            raise RequestError(
                403,
                f"the key {key.name!r} has the role {' and '.join(key.roles)}, this needs {role!r}",
                kind="permission_error",
            )
        return key

    def charge_request(self, key: Key) -> None:
        """Count a request against the key's rate limit and budget.

        Raises:
            RequestError: over one of them; with the seconds to wait for the rate limit.

        """
        if key.requests_a_minute is not None:
            self._take_token(key)
        if key.usd_a_month is not None:
            self._start_new_month()
            spent = self._spent.get(key.name, 0) * NANO
            if spent >= Decimal(repr(key.usd_a_month)):
                raise RequestError(
                    429,
                    f"the key {key.name!r} has spent ${spent:.2f} of ${key.usd_a_month:.2f} this month",
                    kind="insufficient_quota",
                    code="insufficient_quota",
                )

    def _take_token(self, key: Key) -> None:
        """Take one request from a bucket that holds a minute's requests and refills evenly."""
        per_minute = float(key.requests_a_minute or 0)
        now = self._clock()
        remaining, counted_at = self._buckets.get(key.name, (per_minute, now))
        remaining = min(per_minute, remaining + max(0.0, now - counted_at) * per_minute / 60)
        if remaining < 1:
            self._buckets[key.name] = (remaining, now)
            raise RequestError(
                429,
                f"the key {key.name!r} is limited to {per_minute:g} requests a minute",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                wait=(1 - remaining) * 60 / per_minute if per_minute else 60.0,
            )
        self._buckets[key.name] = (remaining - 1, now)

    def spend(self, key: str, nanodollars: int) -> None:
        """Add an answer's cost to what a key has spent."""
        if key and nanodollars:
            self._start_new_month()
            self._spent[key] = self._spent.get(key, 0) + nanodollars
            self._changed = True

    def spent(self) -> Mapping[str, int]:
        """Return the billionths of a dollar spent in this month, by the name of the key."""
        self._start_new_month()
        return dict(self._spent)

    def save(self) -> None:
        """Write down what was spent, if it has changed."""
        if self._changed:
            self.store.set_state(f"spent/{self._month}", dict(self._spent))
            self._changed = False

    def _start_new_month(self) -> None:
        """In a new month, start with what the store has of it; do nothing otherwise."""
        month = datetime.now(UTC).strftime("%Y-%m")
        if month == self._month:
            return
        with suppress(StoreError):
            self.save()
        self._changed = False
        self._month = month
        self._spent = {}
        with suppress(StoreError):  # an unavailable store must not stop answers: count from 0
            saved = self.store.state(f"spent/{month}") or {}
            self._spent = {name: int(nanodollars) for name, nanodollars in saved.items()}
