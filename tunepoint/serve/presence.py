"""Which gateways serve by which settings: a lease of each, renewed while it runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from tunepoint.capture.sharing import give_lease_back, hold_lease, is_present
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError

PRESENCE_SECONDS = 15.0
"""After which a gateway that gave no sign counts as gone; it gives three signs in that time."""


class Presence:
    """That this gateway serves a task by its settings.

    Args:
        task: its name.
        arms: that serve here.
        routes: that serve.toml gives.
        holder: name of this process among those that share the store.

    """

    def __init__(self, task: str, arms: Sequence[str], routes: Mapping[str, Any], holder: str) -> None:
        self.settings = _digest([sorted(arms), routes])
        """Identity of the settings: arms and routes."""
        self._task = _digest(task)
        self._holder = holder
        self._shown = -inf

    def show(self, store: Store) -> None:
        """Give a sign, if it is time for one.

        Raises:
            StoreError: the store cannot be written.

        """
        now = time.monotonic()
        if now - self._shown > PRESENCE_SECONDS / 3:
            hold_lease(store, f"{self._group(self.settings)}/{self._holder}", self._holder, PRESENCE_SECONDS)
            self._shown = now

    def of_others(self, store: Store, settings: str | None) -> bool:
        """Whether another gateway serves by these settings, other ones than this gateway's.

        Raises:
            StoreError: the store cannot be read.

        """
        if settings is None or settings == self.settings:
            return False
        return is_present(store, self._group(settings), PRESENCE_SECONDS, besides=self._holder)

    def end(self, store: Store) -> None:
        """Take the sign back; without its store it ends by itself."""
        with suppress(StoreError):
            give_lease_back(store, f"{self._group(self.settings)}/{self._holder}", self._holder)

    def _group(self, settings: str) -> str:
        return f"serves/{self._task}/{settings}"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
