"""Imports logs of other tools, as captured requests or as trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunepoint.capture.log_formats import REQUEST_READERS, Json, RequestReader, SkippedEntry
from tunepoint.capture.records import CapturedRequest
from tunepoint.errors import DataError, nearest
from tunepoint.files.text import read_text
from tunepoint.trials.results_import import TRIAL_READERS
from tunepoint.trials.trial import Trial

KINDS = (*REQUEST_READERS, *TRIAL_READERS)
"""Of logs: the first four hold requests, the others trials."""


@dataclass(frozen=True)
class ImportReport:
    """What a log held."""

    requests: tuple[CapturedRequest, ...] = ()
    trials: tuple[Trial, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how many entries."""

    def __str__(self) -> str:
        counts = [(len(self.requests), "requests"), (len(self.trials), "trials")]
        lines = [" and ".join(f"{count} {what}" for count, what in counts if count) or "nothing"]
        lines += [f"  skipped: {count} {reason}" for reason, count in self.skipped.items()]
        return "\n".join(lines)


def import_log(path: Path, kind: str, task: str) -> ImportReport:
    """Read the log of another tool.

    Args:
        kind: one of `KINDS`.
        task: the task that the requests belong to.

    Raises:
        DataError: no such file, an unknown kind, or nothing in the file that can be read.

    """
    if kind not in KINDS:
        raise DataError(f"{kind!r} is not a known kind of log; {nearest(kind, KINDS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if kind in TRIAL_READERS:
        report = ImportReport(trials=tuple(TRIAL_READERS[kind](path)))
    else:
        report = _read_requests(path, REQUEST_READERS[kind], kind, task)
    if not report.requests and not report.trials:
        skipped = str(report).removeprefix("nothing")
        raise DataError(f"{path}: no entries as {kind} writes them{skipped}")
    return report


def _read_requests(path: Path, read: RequestReader, kind: str, task: str) -> ImportReport:
    requests: dict[str, CapturedRequest] = {}
    skipped: Counter[str] = Counter()
    for place, entry in _entries(path):
        try:
            for request in read(entry, task):
                requests.setdefault(request.id, request)
        except SkippedEntry as reason:
            skipped[str(reason)] += 1
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(f"{place}: not an entry of {kind} ({type(error).__name__}: {error})") from None
    return ImportReport(requests=tuple(requests.values()), skipped=dict(skipped))


def _entries(path: Path) -> Iterator[tuple[str, Json]]:
    """Entries of a log with their places: JSON that holds one or a list of them, or JSONL."""
    text = read_text(path, DataError)
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if content is None:
        yield from _lines(path, text)
        return
    rows = content
    if isinstance(content, dict):
        rows = content.get("data", [content])
    for number, row in enumerate(rows if isinstance(rows, list) else (), start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, entry {number}: must be a JSON object")
        yield f"{path}, entry {number}", row


def _lines(path: Path, text: str) -> Iterator[tuple[str, Json]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: must be a JSON object")
        yield f"{path}:{number}", row
