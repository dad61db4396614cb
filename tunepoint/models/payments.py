"""What calls of chat models cost, written down before and after each call: a kill loses no cent."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import BinaryIO

from tunepoint.errors import StudyError
from tunepoint.files.text import reading

PAYMENTS = "payments.jsonl"
"""Two lines a call: the most that it may cost, before it is sent, and what it did cost, after its answer."""


class PaymentLog:
    """A file of payments. A call without a second line counts as the most that it may have cost."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; the first call creates it.

        Raises:
            StudyError: the file cannot be read, or a line of it is no payment.

        """
        self.path = path
        self._lock = threading.Lock()
        self._usd: dict[int, float] = {}
        """Number of a call -> dollars."""
        self._whole_bytes = self._read()
        """Of the lines that were written to their end; a killed process may have cut off the last one."""
        self._file: BinaryIO | None = None

    @property
    def usd(self) -> float:
        """Dollars of all calls."""
        with self._lock:
            return sum(self._usd.values())

    def usd_of(self, number: int) -> float:
        """Return the dollars of one call; 0 if there is none of this number."""
        with self._lock:
            return self._usd.get(number, 0.0)

    def intend(self, most_usd: float) -> int:
        """Write down that a call will be sent, and return its number.

        Raises:
            StudyError: the file cannot be written.

        """
        with self._lock:
            number = len(self._usd) + 1
            self._write(number, most_usd)
            return number

    def settle(self, number: int, usd: float) -> None:
        """Write down what a call cost."""
        with self._lock:
            self._write(number, usd)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, number: int, usd: float) -> None:
        self._usd[number] = usd
        try:
            if self._file is None:
                self._file = self.path.open("ab")
                self._file.truncate(self._whole_bytes)
            self._file.write(json.dumps([number, usd]).encode() + b"\n")
            self._file.flush()  # into the system's hands: only a power cut can lose it
        except OSError as error:
            raise StudyError(
                f"{self.path}: cannot be written ({error.strerror}); make room and run again"
            ) from None

    def _read(self) -> int:
        """Read all whole lines; return their length in bytes."""
        if not self.path.exists():
            return 0
        with reading(self.path, StudyError):
            content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for line, text in enumerate(content[:whole].splitlines(), start=1):
            try:
                number, usd = json.loads(text)
                self._usd[int(number)] = float(usd)
            except (ValueError, TypeError, RecursionError, OverflowError):
                raise StudyError(f"{self.path}:{line}: is no payment; restore the file") from None
        return whole
