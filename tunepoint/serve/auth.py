"""Who may ask: keys that are kept as hashes, their roles, rates and budgets."""

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
"""Ask and give feedback; look at metrics and the dashboard; change what serves."""
ROLES: tuple[Role, ...] = get_args(Role)
KEYS = "keys"
"""Name of the state that holds them."""


@dataclass(frozen=True)
class Key:
    """What a key may do."""

    name: str
    roles: tuple[Role, ...]
    usd_a_month: float | None = None
    """Dollars that its answers may cost in a calendar month (UTC)."""
    requests_a_minute: int | None = None


ANYBODY = Key("", ROLES)
"""Who asks on the loopback interface where no key was made."""


def make_key(
    store: Store,
    name: str,
    roles: tuple[Role, ...],
    *,
    usd_a_month: float | None = None,
    requests_a_minute: int | None = None,
) -> str:
    """Make a key, and keep its hash; the key itself is returned once and nowhere written.

    Raises:
        StoreError: there is a key of this name.

    """
    if not name.strip() or len(name) > 100:
        raise StoreError(f"{name!r} names no key: give 1 to 100 characters")
    known = store.state(KEYS) or {}
    if any(facts["name"] == name for facts in known.values()):
        raise StoreError(f"there is a key named {name!r}: revoke it first, or take another name")
    token = f"tp-{secrets.token_urlsafe(32)}"
    facts = asdict(Key(name, roles, usd_a_month, requests_a_minute))
    store.set_state(KEYS, {**known, _digest(token): {**facts, "roles": list(roles)}})
    store.note("", "command line", f"made key {name!r} ({', '.join(roles)})")
    return token


def revoke_key(store: Store, name: str) -> None:
    """Take a key back.

    Raises:
        StoreError: there is none of this name.

    """
    known = store.state(KEYS) or {}
    left = {digest: facts for digest, facts in known.items() if facts["name"] != name}
    if len(left) == len(known):
        names = ", ".join(sorted(facts["name"] for facts in known.values())) or "none"
        raise StoreError(f"there is no key named {name!r}; there are: {names}")
    store.set_state(KEYS, left)
    store.note("", "command line", f"revoked key {name!r}")


def _digest(token: str) -> str:
    """SHA-256: the keys are 256 random bits, so there is nothing to guess."""
    return hashlib.sha256(token.encode()).hexdigest()


class Access:
    """Checks keys, rates and budgets; spending is written down every few seconds.

    A process that is killed forgets the dollars of those last seconds, and no more.

    Args:
        alone: whether only this machine can ask: then no key is needed while there never was one.

    """

    def __init__(self, store: Store, *, alone: bool = True, clock: Any = time.monotonic) -> None:
        self.store = store
        self._alone = alone
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._buckets: dict[str, tuple[float, float]] = {}
        self._month = ""
        self._spent: dict[str, int] = {}
        """Billionths of a dollar, by the name of the key."""
        self._changed = False
        self.reload()
        self._turn()

    def reload(self) -> None:
        """Read the keys again: one that was revoked ends here."""
        known = self.store.state(KEYS) or {}
        self._keys = {
            digest: Key(
                facts["name"], tuple(facts["roles"]), facts["usd_a_month"], facts["requests_a_minute"]
            )
            for digest, facts in known.items()
        }
        self._alone &= not self._keys

    @property
    def open(self) -> bool:
        """Whether anybody may ask: on the loopback interface, and while there never were keys."""
        return self._alone

    @property
    def has_keys(self) -> bool:
        """Whether there is any."""
        return bool(self._keys)

    def admit(self, authorization: str | None, role: Role) -> Key:
        """The key that a request carries, if it may do this.

        Raises:
            Refused: there is none, it is unknown, or its roles are others.

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
                f"the key {key.name!r} may {' and '.join(key.roles)}, and this needs {role!r}",
                kind="permission_error",
            )
        return key

    def charge_request(self, key: Key) -> None:
        """Count a request against rate and budget.

        Raises:
            Refused: over one of them; says when to come again.

        """
        if key.requests_a_minute is not None:
            self._take_token(key)
        if key.usd_a_month is not None:
            self._turn()
            spent = self._spent.get(key.name, 0) * NANO
            if spent >= Decimal(repr(key.usd_a_month)):
                raise RequestError(
                    429,
                    f"the key {key.name!r} has spent ${spent:.2f} of ${key.usd_a_month:.2f} this month",
                    kind="insufficient_quota",
                    code="insufficient_quota",
                )

    def _take_token(self, key: Key) -> None:
        rate = float(key.requests_a_minute or 0)
        now = self._clock()
        left, before = self._buckets.get(key.name, (rate, now))
        left = min(rate, left + max(0.0, now - before) * rate / 60)
        if left < 1:
            self._buckets[key.name] = (left, now)
            wait = (1 - left) * 60 / rate if rate else 60.0
            raise RequestError(
                429,
                f"the key {key.name!r} may ask {rate:g} times a minute",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                wait=wait,
            )
        self._buckets[key.name] = (left - 1, now)

    def spend(self, key: str, nanodollars: int) -> None:
        """Add what an answer cost."""
        if key and nanodollars:
            self._turn()
            self._spent[key] = self._spent.get(key, 0) + nanodollars
            self._changed = True

    def spent(self) -> Mapping[str, int]:
        """Billionths of a dollar of this month, by the name of the key."""
        self._turn()
        return dict(self._spent)

    def save(self) -> None:
        """Write the spending down, where it has changed."""
        if self._changed:
            self.store.set_state(f"spent/{self._month}", dict(self._spent))
            self._changed = False

    def _turn(self) -> None:
        """Begin a new month with nothing spent, or with what was written down of it."""
        month = datetime.now(UTC).strftime("%Y-%m")
        if month != self._month:
            with suppress(StoreError):  # what it cannot say is counted from nothing
                self.save()
            self._changed = False
            self._month = month
            self._spent = {}
            with suppress(StoreError):
                kept = self.store.state(f"spent/{month}") or {}
                self._spent = {name: int(value) for name, value in kept.items()}
