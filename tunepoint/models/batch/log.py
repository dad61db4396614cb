"""The batches of a study, written down before and after each is submitted: a kill loses none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunepoint.errors import StudyError
from tunepoint.files.text import reading
from tunepoint.models.batch.jobs import Intent

BATCHES = "batches.jsonl"
"""One line before a batch is submitted, with the requests in it; one with its id, or that it was refused."""


@dataclass
class LoggedBatch:
    """One batch of one model."""

    model: str
    calls: Mapping[str, int]
    """Key of a request -> number of its payment."""
    intent: Intent
    id: str | None = None
    """The provider's; None until it is known."""
    over: bool = False
    """Whether nothing more is to be expected of it: it was refused, or never submitted."""
    written: int = field(default=0, compare=False)
    """Its number in the file."""


class BatchLog:
    """A file of batches."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; the first batch creates it.

        Raises:
            StudyError: the file cannot be read, or a whole line of it is none of ours.

        """
        self.path = path
        self.batches: list[LoggedBatch] = []
        self._read()

    def holds(self, model: str) -> bool:
        """Return whether answers of a model may be in batches of an earlier run."""
        return any(batch.model == model and not batch.over for batch in self.batches)

    def intend(self, model: str, calls: Mapping[str, int], intent: Intent) -> LoggedBatch:
        """Write down that a batch will be submitted.

        Raises:
            StudyError: the file cannot be written.

        """
        batch = LoggedBatch(model, calls, intent, written=len(self.batches))
        self.batches.append(batch)
        line = {"batch": batch.written, "model": model, "mark": intent.mark, "at": intent.at}
        self._write({**line, "calls": dict(calls)})
        return batch

    def note_id(self, batch: LoggedBatch, identity: str) -> None:
        """Write down the id that the provider gave a batch."""
        batch.id = identity
        self._write({"batch": batch.written, "id": identity})

    def note_over(self, batch: LoggedBatch) -> None:
        """Write down that nothing is to be expected of a batch."""
        batch.over = True
        self._write({"batch": batch.written, "over": True})

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise StudyError(
                f"{self.path}: cannot be written ({error.strerror}); make room and run again"
            ) from None

    def _read(self) -> None:
        if not self.path.exists():
            return
        with reading(self.path, StudyError):
            content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # a killed process cut off the last line
            self.path.write_bytes(content[:whole])
        for number, text in enumerate(content[:whole].splitlines(), start=1):
            try:
                self._read_line(json.loads(text))
            except (ValueError, TypeError, KeyError, IndexError, RecursionError):
                raise StudyError(f"{self.path}:{number}: is no batch; restore the file") from None

    def _read_line(self, line: Mapping[str, Any]) -> None:
        if "calls" in line:
            calls = {str(key): int(payment) for key, payment in line["calls"].items()}
            intent = Intent(str(line["mark"]), len(calls), float(line["at"]))
            self.batches.append(LoggedBatch(str(line["model"]), calls, intent, written=len(self.batches)))
            return
        batch = self.batches[int(line["batch"])]
        batch.id = str(line["id"]) if "id" in line else batch.id
        batch.over = batch.over or bool(line.get("over"))
