"""Results of another tool as trials: what can be used, what was left out, and files of several imports."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunepoint.errors import DataError, TrialsError
from tunepoint.files.foreign_json import number
from tunepoint.files.left_out import LeftOut, Tally
from tunepoint.files.text import read_text, write_text
from tunepoint.trials.trial import Trial, TrialKey, read_trials

MAX_NAME_CHARACTERS = 80
"""Characters of a prompt in the name of its arm, and of variables in the name of their item."""
MAX_ERROR_CHARACTERS = 300
MAX_AMOUNT = 1e12
"""Seconds or dollars of a trial."""
MAX_OUTSIDE_SHARE = 0.1
"""Share of scores outside 0..1 from which all are on another scale, those within 0..1 too."""
ROUNDING = 1e-6
"""A mean of scores may exceed 1 by this much."""


@dataclass
class ImportedResults:
    """Trials of one or more files of another tool."""

    trials: list[Trial] = field(default_factory=list)
    left_out: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)
    """Sentences about what was read."""

    def update(self, other: ImportedResults) -> None:
        """Add the results of another file."""
        self.trials += other.trials
        self.left_out.update(other.left_out)
        self.notes += [note for note in other.notes if note not in self.notes]


class ResultReader:
    """Turns the results of a file into trials, one after the other.

    Results of the same arm and item are repetitions, in their order: each gets a decode of its own.
    """

    def __init__(self) -> None:
        self.results = ImportedResults()
        self.outside: list[tuple[str, float]] = []
        """Places and scores outside 0..1."""
        self._answers: Counter[TrialKey] = Counter()

    def read(self, place: str, trial: Callable[[], Trial]) -> None:
        """Add a trial, or count why there is none."""
        try:
            new = trial()
        except ScoreOutside as outside:
            self.outside.append((place, outside.score))
            self.results.left_out.add(outside, place)
        except LeftOut as reason:
            self.results.left_out.add(reason, place)
        else:
            run = self._answers[new.key]
            self._answers[new.key] += 1
            self.results.trials.append(new.model_copy(update={"decode": str(run)}) if run else new)

    def finish(self) -> ImportedResults:
        """Return all results.

        Raises:
            DataError: the scores are on another scale than 0..1.

        """
        scores = len(self.outside) + len(self.results.trials)
        if len(self.outside) > MAX_OUTSIDE_SHARE * scores:
            place, score = self.outside[0]
            raise DataError(
                f"{place}: the score is {score:g}, and {len(self.outside)} of {scores} scores lie outside "
                "0 to 1; divide them by their range where they are made, or name another score with --score"
            )
        self._leave_out_silent_arms()
        return self.results

    def _leave_out_silent_arms(self) -> None:
        """Leave out arms that gave no answer at all: their calls failed, so nothing was measured."""
        answered = {trial.arm for trial in self.results.trials if trial.error is None or trial.answer}
        for trial in self.results.trials:
            if trial.arm not in answered:
                self.results.left_out.add(f"of {trial.arm}, which gave no answer at all", trial.error or "")
        self.results.trials = [trial for trial in self.results.trials if trial.arm in answered]


class ScoreOutside(LeftOut):
    """A score outside 0..1."""

    def __init__(self, score: float) -> None:
        super().__init__("with a score outside 0 to 1")
        self.score = score


def share(value: Any) -> float:
    """Return a score within 0..1.

    Raises:
        LeftOut: it is no number, or outside 0..1.

    """
    score = float(value) if isinstance(value, bool) else number(value)
    if score is None:
        raise LeftOut("without a score")
    if not -ROUNDING <= score <= 1 + ROUNDING:
        raise ScoreOutside(score)
    return min(1.0, max(0.0, score))


def short_name(text: str) -> str:
    """Return a text that fits into a name; one that is cut gets a hash, so that names stay distinct."""
    words = " ".join(text.split())
    if len(words) <= MAX_NAME_CHARACTERS:
        return words
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{words[: MAX_NAME_CHARACTERS - len(mark) - 3]}... {mark}"


def add_trials(path: Path, trials: Sequence[Trial]) -> int:
    """Write trials to a file, after those that are in it; return how many are new.

    Raises:
        DataError: the file holds something else than trials, or another result of the same arm, item, seed
            and decode.
        StudyError: the file cannot be written.

    """
    try:
        present = {trial.key: trial for trial in read_trials(path)} if path.exists() else {}
    except TrialsError as error:
        raise DataError(f"{error}; name another file with --out") from None
    before = read_text(path, DataError) if present else ""
    new = []
    for trial in trials:
        if present.setdefault(trial.key, trial) is trial:
            new.append(trial)
        elif present[trial.key] != trial:
            raise DataError(
                f"{path}: another result of {trial.arm!r} on item {trial.item!r} is there already; name "
                "another file with --out, or repeat answers as epochs (Inspect) or with --repeat (promptfoo)"
            )
    ended = before if before.endswith("\n") or not before else before + "\n"
    write_text(path, ended + "".join(trial.line() for trial in new))
    return len(new)
