"""Commands that the studio has started: the same that people type, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunepoint.errors import StudyError

COMMAND = (sys.executable, "-c", "from tunepoint.cli.app import app; app()")
LINES_KEPT = 200
STOP_SECONDS = 20.0
"""How long a command may take to end after a request to stop."""


@dataclass
class Job:
    """A command on its way, or ended."""

    words: tuple[str, ...]
    """As people type it, without `tunepoint`."""
    process: subprocess.Popen[str]
    started: float
    progress: dict[str, Any] = field(default_factory=dict)
    """The last line of progress."""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    """What else it said on standard error."""
    output: list[str] = field(default_factory=list)
    """Standard output."""
    readers: list[threading.Thread] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def document(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {
            "command": " ".join(("tunepoint", *self.words)),
            "running": self.running,
            "code": self.process.poll(),
            "seconds": round(time.time() - self.started),
            "progress": self.progress,
            "lines": list(self.lines)[-20:],
        }

    def read_errors(self) -> None:
        """Take in progress and messages until the command ends."""
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            for line in errors:
                self._take_in(line)

    def _take_in(self, line: str) -> None:
        with contextlib.suppress(ValueError):
            content = json.loads(line)
            if isinstance(content, dict) and "what" in content:
                self.progress = content
                return
        if line.strip():
            self.lines.append(line.rstrip())

    def read_output(self) -> None:
        """Take in what it prints until the command ends."""
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            self.output.extend(stream)


class Jobs:
    """The commands of one studio, by what they work on; one at a time for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where commands run."""
        self.jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(self, name: str, words: Sequence[str]) -> Job:
        """Start a command.

        Args:
            name: of what it works on.
            words: of the command line, without `tunepoint`.

        Raises:
            StudyError: a command for it is running.

        """
        with self._lock:
            if (job := self.jobs.get(name)) is not None and job.running:
                raise StudyError(f"`{' '.join(job.words)}` is running; stop it first")
            process = subprocess.Popen(
                [*COMMAND, *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
                start_new_session=True,  # Ctrl-C in the studio's terminal stops it in order, by `stop_all`
            )
            job = self.jobs[name] = Job(tuple(words), process, time.time())
        for read in (job.read_errors, job.read_output):
            job.readers.append(threading.Thread(target=read, daemon=True))
            job.readers[-1].start()
        return job

    def find(self, name: str) -> Job | None:
        """Return the latest command for something."""
        return self.jobs.get(name)

    def stop(self, name: str) -> None:
        """Ask a command to end, as Ctrl-C does; what was measured is kept."""
        job = self.jobs.get(name)
        if job is not None and job.running:
            job.process.send_signal(signal.SIGINT)

    def stop_all(self) -> None:
        """End every command, within a while."""
        for name in self.jobs:
            self.stop(name)
        deadline = time.monotonic() + STOP_SECONDS
        for job in self.jobs.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(max(0.1, deadline - time.monotonic()))
            if job.running:
                job.process.kill()
                job.process.wait()
            for reader in job.readers:
                reader.join(timeout=1.0)


class Standings:
    """Scores of a study's options so far, read from its logs as they grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._read: dict[str, int] = {}
        self._sums: dict[tuple[str, str], list[float]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every option and set: the mean score of its answers so far."""
        with self._lock:
            for name, part in (("dev.jsonl", "validation"), ("trials.jsonl", "test")):
                self._take_in(name, part)
            rows = [
                {"arm": arm, "set": part, "answers": int(count), "score": total / count}
                for (part, arm), (count, total) in self._sums.items()
            ]
        return sorted(rows, key=lambda row: (row["set"], -float(str(row["score"]))))

    def _take_in(self, name: str, part: str) -> None:
        path = self.folder / name
        if not path.exists():
            return
        if path.stat().st_size < self._read.get(name, 0):  # it was written anew
            self._read.pop(name)
            self._sums = {key: sums for key, sums in self._sums.items() if key[0] != part}
        with path.open("rb") as file:
            file.seek(self._read.get(name, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._read[name] = self._read.get(name, 0) + len(line)
                with contextlib.suppress(ValueError, KeyError):
                    trial = json.loads(line)
                    sums = self._sums.setdefault((part, trial["arm"]), [0.0, 0.0])
                    sums[0] += 1
                    sums[1] += float(trial["score"])
