"""Trials: one fitted arm's scored answer to one example, in append-only JSONL.

Any tool may write this format; docs/files.md describes it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunepoint.errors import StudyError, TrialsError
from tunepoint.files.text import reading, write_text

ArmKind = Literal["prompt", "tuned", "hybrid", "cascade", "incumbent", "baseline"]
ARM_KINDS: tuple[ArmKind, ...] = ("prompt", "tuned", "hybrid", "cascade", "incumbent", "baseline")

_Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""Seconds or dollars; more than 1e12 can only be a mistake."""
TrialKey = tuple[str, str, str | None, str | None]
"""Arm, item, training seed, decode."""

UNREADABLE = ""
"""In place of an answer that could not be read: it is wrong, whatever is right."""


def normalize_answer(answer: str) -> str:
    """Return an answer without what spreadsheets change in it: spaces and line ends."""
    return " ".join(answer.split())


class Trial(BaseModel):
    """One answer of one arm to one item."""

    # Other tools add keys of their own and write ids as numbers.
    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    arm: str
    item: str
    score: _Share
    cluster: str | None = None
    seed: str | None = None
    """Training seed; trials of the same arm and item differ in it, or in `decode`."""
    decode: str | None = None
    """Name of the answer, if the same trained model or prompt answers an item several times."""
    slice: str | None = None
    format_ok: bool = True
    input_tokens: Annotated[int, Field(ge=0)] | None = None
    cached_tokens: Annotated[int, Field(ge=0)] | None = None
    written_tokens: Annotated[int, Field(ge=0)] | None = None
    """Part of `input_tokens` that was written into the provider's cache."""
    cacheable_tokens: Annotated[int, Field(ge=0)] | None = None
    """Part of `input_tokens` that all prompts of the arm begin with, and that the provider would cache."""
    output_tokens: Annotated[int, Field(ge=0)] | None = None
    seconds: _Amount | None = None
    core_seconds: _Amount | None = None
    """Processor time of the answer on this machine; without it, `seconds` on all cores count."""
    cost_usd: _Amount | None = None
    answer: str | None = None
    confidence: _Share | None = None
    error: str | None = None
    repaired: bool | None = None
    """Whether the first reply was unreadable and the second was not."""
    grades: tuple[_Share, ...] | None = None
    """A judge's single grades: answer last, answer first, and perhaps answer last again."""
    why: str | None = None
    """What a judge wrote about the answer."""
    human: _Share | None = None
    """People's grade of the same answer; it corrects the scores of a judge."""

    @property
    def key(self) -> TrialKey:
        """What no two trials of a file share."""
        return self.arm, self.item, self.seed, self.decode

    @property
    def plain_answer(self) -> str:
        """The answer without what spreadsheets change in it; `UNREADABLE` where nothing could be read."""
        return normalize_answer(self.answer or "") if self.format_ok else UNREADABLE

    def line(self) -> str:
        """Return the trial as one line of JSON, without empty fields."""
        return self.model_dump_json(exclude_none=True) + "\n"


def read_trials(path: Path) -> list[Trial]:
    """Return all trials of a file.

    Raises:
        TrialsError: the file is missing or empty, a line is not a trial, or two trials have
            the same arm, item, seed and decode; the message names the lines.

    """
    if not path.exists():
        raise TrialsError(f"{path}: no such file; give a file with one trial as JSON on each line")
    trials: list[Trial] = []
    lines: dict[TrialKey, int] = {}
    with reading(path, TrialsError), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            # Windows tools begin a file with a byte-order mark, which is not JSON.
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            trial = _parse(path, number, text)
            if trial.key in lines:
                raise TrialsError(f"{path}:{number}: {_repeats(trial, lines[trial.key])}")
            lines[trial.key] = number
            trials.append(trial)
    if not trials:
        raise TrialsError(f"{path}: holds no trials; each line needs at least arm, item and score")
    return trials


def _repeats(trial: Trial, line: int) -> str:
    """Return the message for a trial that is on an earlier line already."""
    names = (("seed", trial.seed), ("decode", trial.decode))
    run = "".join(f" with {what} {name}" for what, name in names if name is not None)
    return (
        f"arm {trial.arm!r} has item {trial.item!r}{run} already on line {line}; give repeated training runs "
        "different seeds, and repeated answers different decodes"
    )


def _parse(path: Path, number: int, text: bytes) -> Trial:
    try:
        return Trial.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "json_invalid":
            raise TrialsError(
                f"{path}:{number}: not one JSON object: {fault['msg']}; correct the line, or remove it if "
                "its writer was stopped in the middle"
            ) from None
        key = ".".join(str(part) for part in fault["loc"]) or "the line"
        value = "" if isinstance(fault["input"], dict) else f" (it is {fault['input']!r})"
        raise TrialsError(f"{path}:{number}: {key}: {fault['msg'].lower()}{value}") from None


def mean_score(trials: Sequence[Trial]) -> float:
    """Return the mean score of trials; every trial counts the same, of whatever seed or item.

    Raises:
        TrialsError: there are no trials.

    """
    if not trials:
        raise TrialsError("no trials: there is no mean score")
    return float(np.mean([trial.score for trial in trials]))


class TrialLog:
    """The trials of a study on disk, to which trials are only ever added.

    A process that is killed while it writes leaves half a line at the end. Opening the log cuts
    it off, and `repaired` says how many bytes were lost. A whole line that only lacks its line
    end is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repaired = _cut_half_line(path)
        self.trials = read_trials(path) if path.exists() and path.stat().st_size else []
        self.done = {trial.key for trial in self.trials}

    def append(self, trials: Sequence[Trial]) -> None:
        """Write trials, so that they survive a crash of the machine.

        Raises:
            StudyError: the disk is full or the file cannot be written; earlier trials are safe.

        """
        # One write for all of them: a crash can leave at most one unfinished line.
        text = "".join(trial.line() for trial in trials)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StudyError(
                f"{self.path}: cannot write {len(text)} bytes ({error.strerror}); the "
                f"{len(self.trials)} trials before are safe: make room and run again"
            ) from None
        self.trials += trials
        self.done |= {trial.key for trial in trials}

    def remove(self, keys: Collection[TrialKey]) -> None:
        """Take trials out of the log, in one step; whoever does has kept them elsewhere.

        Raises:
            StudyError: the file cannot be written; it is then as it was.

        """
        kept = [trial for trial in self.trials if trial.key not in keys]
        write_text(self.path, "".join(trial.line() for trial in kept))
        self.trials, self.done = kept, {trial.key for trial in kept}

    def of(self, arm: str) -> list[Trial]:
        """Return the trials of one arm."""
        return [trial for trial in self.trials if trial.arm == arm]


def _cut_half_line(path: Path) -> int:
    """Cut off an unfinished last line; return how many bytes it had."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        content = file.read()
        finished = content.rfind(b"\n") + 1
        last = content[finished:]
        if not last:
            return 0
        try:
            Trial.model_validate_json(last)
        except ValidationError:
            file.truncate(finished)
            return len(last)
        # The position is at the end: the next trial must not join this line.
        file.write(b"\n")
    return 0
