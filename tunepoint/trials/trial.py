"""Trials: one fitted arm's scored answer to one example, in append-only JSONL.

Any tool may write the format; docs/files.md describes it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunepoint.errors import StudyError, TrialsError
from tunepoint.files.text import reading

ArmKind = Literal["prompt", "tuned", "hybrid", "cascade", "incumbent"]
ARM_KINDS: tuple[ArmKind, ...] = ("prompt", "tuned", "hybrid", "cascade", "incumbent")

_Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
TrialKey = tuple[str, str, str | None, str | None]
"""Arm, item, training seed, decode."""


class Trial(BaseModel):
    """One answer of one arm to one item."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    arm: str
    item: str
    score: _Share
    cluster: str | None = None
    seed: str | None = None
    """Training seed; trials of one arm and item differ in it, or in `decode`."""
    decode: str | None = None
    """Which of several answers of the same trained model, or the same prompt, to the same item."""
    slice: str | None = None
    format_ok: bool = True
    input_tokens: Annotated[int, Field(ge=0)] | None = None
    cached_tokens: Annotated[int, Field(ge=0)] | None = None
    output_tokens: Annotated[int, Field(ge=0)] | None = None
    seconds: _Amount | None = None
    cost_usd: _Amount | None = None
    answer: str | None = None
    confidence: _Share | None = None
    error: str | None = None
    repaired: bool | None = None
    """The first reply could not be read, a second one could."""
    grades: tuple[_Share, ...] | None = None
    """A judge's single grades: answer last, answer first, and perhaps the first again."""
    human: _Share | None = None
    """What people gave the same answer; it corrects the scores of a judge."""

    @property
    def key(self) -> TrialKey:
        """What makes a trial the only one of its kind."""
        return self.arm, self.item, self.seed, self.decode

    def line(self) -> str:
        """The trial as one line of JSON, empty fields left out."""
        return self.model_dump_json(exclude_none=True) + "\n"


def read_trials(path: Path) -> list[Trial]:
    """All trials of a file.

    Raises:
        TrialsError: no such file or no trials, a line that is not a trial, or two trials
            of the same arm, item, seed and decode; the message names the lines.

    """
    if not path.exists():
        raise TrialsError(f"{path}: no such file; trials are one JSON object a line")
    trials: list[Trial] = []
    lines: dict[TrialKey, int] = {}
    with reading(path, TrialsError), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            trial = _parse(path, number, text)
            if trial.key in lines:
                named = (("seed", trial.seed), ("decode", trial.decode))
                run = "".join(f" with {what} {name}" for what, name in named if name is not None)
                raise TrialsError(
                    f"{path}:{number}: arm {trial.arm!r} has item {trial.item!r}{run} already on "
                    f"line {lines[trial.key]}; repeated training runs need different seeds, repeated "
                    "answers different decodes"
                )
            lines[trial.key] = number
            trials.append(trial)
    if not trials:
        raise TrialsError(f"{path}: no trials in it; each line needs at least arm, item and score")
    return trials


def _parse(path: Path, number: int, text: bytes) -> Trial:
    try:
        return Trial.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "json_invalid":
            raise TrialsError(
                f"{path}:{number}: not one JSON object: {fault['msg']}; mend the line, or remove it if "
                "its writer was stopped in the middle"
            ) from None
        key = ".".join(str(part) for part in fault["loc"]) or "the line"
        given = "" if isinstance(fault["input"], dict) else f" (it is {fault['input']!r})"
        raise TrialsError(f"{path}:{number}: {key}: {fault['msg'].lower()}{given}") from None


def mean_score(trials: Sequence[Trial]) -> float:
    """Mean score of trials, seeds and items alike.

    Raises:
        TrialsError: there are none.

    """
    if not trials:
        raise TrialsError("no trials: there is no mean score")
    return float(np.mean([trial.score for trial in trials]))


class TrialLog:
    """The trials of a study on disk: what is written stays written.

    A process killed in the middle of a line leaves half a line at the end; opening the log
    cuts it off, and `repaired` says how many bytes went. A whole line that only lacks its end
    is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repaired = _cut_half_line(path)
        self.trials = read_trials(path) if path.exists() and path.stat().st_size else []
        self.done = {trial.key for trial in self.trials}

    def append(self, trials: Sequence[Trial]) -> None:
        """Write trials and keep them; a full disk raises and loses nothing written before.

        Raises:
            StudyError: the disk is full or the file cannot be written.

        """
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

    def of(self, arm: str) -> list[Trial]:
        """The trials of one arm."""
        return [trial for trial in self.trials if trial.arm == arm]


def _cut_half_line(path: Path) -> int:
    """Bytes of an unfinished last line that were cut off."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        last = content[whole:]
        if not last:
            return 0
        try:
            Trial.model_validate_json(last)
        except ValidationError:
            file.truncate(whole)
            return len(last)
        file.write(b"\n")
    return 0
