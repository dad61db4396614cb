"""Errors that a user can fix; any other exception is a defect of Tunepoint.

The command line prints the message of a TunepointError as one paragraph and exits with code 2.

TunepointError
├── TaskError           task.toml, or the arguments of a Task
├── DataError           examples: a file, a line, a column, a label
├── TrialsError         trials.jsonl or arms.toml
├── EvidenceError       too little data for the requested statistic
├── ModelError          weights or an endpoint that is missing, altered or unreachable
│   └── MissingExtra    an optional package that is not installed
├── StudyError          a study directory that cannot be used as it is
│   └── BudgetReached   the spending cap; the study keeps what it measured
└── StoreError          a capture store that cannot be opened, read or written
    └── RefusedRow      one row that the store rejects; it takes the others
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED_WORDS = 12
"""Words that `nearest` lists when none is close."""


class TunepointError(Exception):
    """Base of all errors whose message tells the user what to do next."""


class TaskError(TunepointError):
    """The task is incomplete or contradicts itself."""


class DataError(TunepointError):
    """The examples cannot be read or cannot be used."""


class TrialsError(TunepointError):
    """Trials or arm descriptions do not follow their format."""


class EvidenceError(TunepointError):
    """There is too little data for the requested statistic."""


class ModelError(TunepointError):
    """A model is missing, altered or unreachable."""


class MissingExtra(ModelError):
    """A package is missing that one of Tunepoint's extras installs.

    Args:
        needs: what needs which package, as in "prompt search needs gepa".
        extra: the extra in pyproject.toml that installs the package.
        advice: what else helps; it follows the install command.

    """

    def __init__(self, needs: str, extra: str, advice: str = "") -> None:
        # All three go to args: pickle, which carries errors between processes, calls the class with args.
        super().__init__(needs, extra, advice)
        self.extra = extra

    def __str__(self) -> str:
        needs, extra, advice = self.args
        return f"{needs}: pip install 'tunepoint[{extra}]'{advice}"


class StudyError(TunepointError):
    """The study directory cannot be used as it is."""


class BudgetReached(StudyError):
    """The spending cap was reached before the next call."""


class StoreError(TunepointError):
    """The capture store cannot be opened, read or written."""


class StateConflict(StoreError):
    """Another process has changed a state since it was read; nothing was written."""


class RefusedRow(StoreError):
    """The store rejects a row as it is."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause that names the known word closest to `name`, or a list of them if none is close."""
    words = sorted(str(word) for word in known)
    if not words:
        return "none is known."
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    listed = ", ".join(repr(word) for word in words[:MAX_LISTED_WORDS])
    unlisted = len(words) - MAX_LISTED_WORDS
    return f"known: {listed}{f' and {unlisted} more' if unlisted > 0 else ''}."
