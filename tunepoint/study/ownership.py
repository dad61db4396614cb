"""Who writes a study at an address of an object store: signed every two seconds, checked before each write.

Object stores have no locks in common. A writer that gives no sign for a minute counts as dead, and another
one may take over; the first stops at its next look, should it still live.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tunepoint.errors import StudyError
from tunepoint.files.object_store import ObjectStore

SIGN_SECONDS = 2.0
"""Between two signs of a writer."""
LEASE_SECONDS = 60.0
"""After which a writer that gave no sign counts as dead."""
OWNER = "owner.json"
"""At the address: who writes there, and when it last said so."""


@dataclass
class Ownership:
    """The right to write to an address."""

    storage: ObjectStore
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)
    _lost: StudyError | None = None
    _plain: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def owner(self) -> dict[str, Any] | None:
        """Return who signed last; None where nobody has."""
        content = self.storage.read(OWNER)
        return None if content is None else dict(json.loads(content))

    def refuse_living(self, owner: dict[str, Any]) -> None:
        """Check that a writer is not alive.

        Raises:
            StudyError: it gave a sign within the last minute.

        """
        silent = time.time() - owner["at"]
        if owner["open"] and silent < LEASE_SECONDS:
            raise StudyError(
                f"{self.storage.address}: a process on {owner['host']} is working on this study (its "
                f"last sign is {max(0.0, silent):.0f} s old); wait for it, or {LEASE_SECONDS:.0f} s "
                "after it died"
            )

    def take(self) -> None:
        """Sign, whoever signed last, and go on signing until `end`."""
        self._sign(is_open=True)
        self._thread = threading.Thread(
            target=self._keep, name=f"owner of {self.storage.address}", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Check that nobody else has signed since.

        Raises:
            StudyError: another process took over.

        """
        self.raise_lost()
        owner = self.owner()
        if owner is not None and owner["writer"] != self.writer:
            self._lost = StudyError(
                f"{self.storage.address}: a process on {owner['host']} took this study over, because this "
                f"one gave no sign for {LEASE_SECONDS:.0f} s"
            )
            self.raise_lost()

    def raise_lost(self) -> None:
        """Raise what `check` found out, by whichever thread; asks nobody."""
        if self._lost is not None:
            raise self._lost

    def note_plain(self) -> None:
        """Sign that the address holds plain files, so that parts beside them mean nothing."""
        self.check()
        self._plain = True
        self._sign(is_open=True)

    def end(self) -> None:
        """Sign that nobody writes any more."""
        self.stop()
        self.check()
        self._sign(is_open=False)

    def stop(self) -> None:
        """Give no sign any more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(SIGN_SECONDS):
            try:
                self.check()
                self._sign(is_open=True)
            except StudyError:
                return
            except Exception:  # the network may be gone for a while
                continue

    def _sign(self, *, is_open: bool) -> None:
        sign = {
            "writer": self.writer,
            "host": socket.gethostname(),
            "at": time.time(),
            "open": is_open,
            "plain": self._plain,
        }
        self.storage.write(OWNER, json.dumps(sign).encode())
