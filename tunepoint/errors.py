"""Everything that a user can mend is one of these; anything else is our defect.

TunepointError          the CLI prints its message as one paragraph and exits with 2
├── TaskError           task.toml, or the arguments of a Task
├── DataError           examples: a file, a line, a column, a label
├── TrialsError         trials.jsonl or arms.toml
├── EvidenceError       too little data for the statistic that was asked for
├── ModelError          weights or an endpoint that is missing, altered or unreachable
├── StudyError          a study directory that cannot be used as it is
│   └── BudgetReached   the spending cap; what was measured is kept
└── StoreError          a capture store that cannot be opened, read or written
    └── RefusedRow      one row that it does not take; others are taken
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunepointError(Exception):
    """Base of all errors whose message tells the user what to do next."""


class TaskError(TunepointError):
    """The task is incomplete or contradicts itself."""


class DataError(TunepointError):
    """The examples cannot be read or cannot be used."""


class TrialsError(TunepointError):
    """Trials or arm descriptions do not follow their format."""


class EvidenceError(TunepointError):
    """There is too little data for the statistic that was asked for."""


class ModelError(TunepointError):
    """A model is missing, altered or unreachable."""


class StudyError(TunepointError):
    """The study directory cannot be used as it is."""


class BudgetReached(StudyError):
    """The spending cap was reached before the next call."""


class StoreError(TunepointError):
    """The capture store cannot be opened, read or written."""


class RefusedRow(StoreError):
    """The store does not take a row as it is."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause naming the known word closest to `name`, or all of them when none is close."""
    words = sorted(str(word) for word in known)
    if not words:
        return "none is known."
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(repr(word) for word in words[:12])
    more = f" and {len(words) - 12} more" if len(words) > 12 else ""
    return f"known: {shown}{more}."
