"""Imports logs of other tools, as captured requests or as trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunepoint.capture.log_formats import REQUEST_READERS, Placed, RequestFormat
from tunepoint.capture.records import CapturedRequest
from tunepoint.errors import DataError, nearest
from tunepoint.files.foreign_json import json_values
from tunepoint.files.left_out import LeftOut, Tally
from tunepoint.trials.imported import ImportedResults
from tunepoint.trials.results_import import TRIAL_READERS
from tunepoint.trials.trial import Trial

KINDS = (*REQUEST_READERS, *TRIAL_READERS)
"""Of logs: the first four hold requests, the others trials."""
BATCH_REQUESTS = 1_000
"""Requests that are handed over at once."""
REMEMBERED_IDS = 1_000_000
"""Of requests that were handed over: one that comes again after that many is counted again."""
Take = Callable[[Sequence[CapturedRequest]], None]
"""Takes requests while a log is read."""
UNDATED_NOTE = "Some calls have no time in the log. They get the time of the file."


@dataclass(frozen=True)
class ImportReport:
    """What logs held."""

    requests: tuple[CapturedRequest, ...] = ()
    """Those that were not handed over while they were read."""
    handed_over: int = 0
    """Requests that were."""
    trials: tuple[Trial, ...] = ()
    left_out: Tally = field(default_factory=Tally)
    notes: tuple[str, ...] = ()
    """Sentences about what was read."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Reason -> how many entries were left out."""
        return self.left_out.counts

    def __str__(self) -> str:
        requests = len(self.requests) + self.handed_over
        counts = [(requests, "requests"), (len(self.trials), "trials")]
        lines = [" and ".join(f"{count} {what}" for count, what in counts if count) or "nothing"]
        return "\n  ".join([*lines, *self.left_out.lines(), *self.notes])


def import_log(path: Path, kind: str, task: str) -> ImportReport:
    """Read the log of another tool, as `import_logs` does."""
    return import_logs([path], kind, task)


def import_logs(
    paths: Sequence[Path], kind: str, task: str, score: str | None = None, *, take: Take | None = None
) -> ImportReport:
    """Read logs of another tool.

    Args:
        paths: of the logs; what belongs together, as the two files of a batch, may be in different ones.
        kind: one of `KINDS`.
        task: the task that the requests belong to.
        score: name of the score that counts, if results have several.
        take: gets the requests while they are read, some at a time, and ignores an id that it has; the report
            holds all of them if None.

    Raises:
        DataError: no such file, an unknown kind, or nothing in the files that can be read.

    """
    if kind not in KINDS:
        raise DataError(f"{kind!r} is not a known kind of log; {nearest(kind, KINDS)}")
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: {'a folder; name a log in it' if path.is_dir() else 'no such file'}")
    if kind in TRIAL_READERS:
        report = _read_trials(paths, kind, score)
    else:
        report = _read_requests(paths, REQUEST_READERS[kind], task, take)
    if not report.requests and not report.trials and not report.handed_over:
        skipped = str(report).removeprefix("nothing")
        names = ", ".join(map(str, paths))
        raise DataError(f"{names}: no entries as {kind} writes them that can be used{skipped}")
    return report


def _read_trials(paths: Sequence[Path], kind: str, score: str | None) -> ImportReport:
    results = ImportedResults()
    for path in paths:
        results.update(TRIAL_READERS[kind](path, score))
    return ImportReport(trials=tuple(results.trials), left_out=results.left_out, notes=tuple(results.notes))


def _read_requests(paths: Sequence[Path], log: RequestFormat, task: str, take: Take | None) -> ImportReport:
    requests: list[CapturedRequest] = []
    known: set[str] = set()
    left_out = Tally()
    undated = max(path.stat().st_mtime for path in paths)
    count, guessed = 0, False
    for place, entry in log.parts(_entries(paths, left_out)):
        try:
            request = log.call(entry).captured(task, undated)
        except LeftOut as reason:
            left_out.add(reason, place)
            continue
        if request.id in known:
            continue
        if take is None or len(known) < REMEMBERED_IDS:
            known.add(request.id)
        guessed |= request.at == undated
        count += 1
        requests.append(request)
        if take is not None and len(requests) == BATCH_REQUESTS:
            take(requests)
            requests = []
    notes = (UNDATED_NOTE,) if guessed else ()
    if take is None:
        return ImportReport(requests=tuple(requests), left_out=left_out, notes=notes)
    take(requests)
    return ImportReport(handed_over=count, left_out=left_out, notes=notes)


def _entries(paths: Sequence[Path], left_out: Tally) -> Iterator[Placed]:
    """Yield the objects in logs with their places: JSON that holds one or a list of them, or JSONL."""
    for path in paths:
        for place, content in json_values(path, DataError):
            listed = content.get("data") if isinstance(content, dict) else content
            if not isinstance(listed, list):
                listed = [content]
            for position, row in enumerate(listed, start=1):
                where = place if listed == [content] else f"{place}, entry {position}"
                if isinstance(row, dict):
                    yield where, row
                else:
                    left_out.add("that are no JSON object", where)
