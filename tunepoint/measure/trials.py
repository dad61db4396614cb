"""Trials: one fitted arm's scored answer to one example, in append-only JSONL.

Any tool may write the format; docs/files.md describes it.
"""

from __future__ import annotations

import codecs
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunepoint.errors import StudyError, TrialsError, reading

Floats = NDArray[np.float64]
_Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class Trial(BaseModel):
    """One answer of one arm to one item."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    arm: str
    item: str
    score: _Share
    cluster: str | None = None
    seed: str | None = None
    """Training seed; trials of one arm and item differ in it."""
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
    def key(self) -> tuple[str, str, str | None]:
        """What makes a trial the only one of its kind."""
        return self.arm, self.item, self.seed

    def line(self) -> str:
        """The trial as one line of JSON, empty fields left out."""
        return self.model_dump_json(exclude_none=True) + "\n"


def read_trials(path: Path) -> list[Trial]:
    """All trials of a file.

    Raises:
        TrialsError: no such file or no trials, a line that is not a trial, or two trials
            of the same arm, item and seed; the message names the lines.

    """
    if not path.exists():
        raise TrialsError(f"{path}: no such file; trials are one JSON object a line")
    trials: list[Trial] = []
    lines: dict[tuple[str, str, str | None], int] = {}
    with reading(path, TrialsError), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            trial = _parse(path, number, text)
            if trial.key in lines:
                seed = "" if trial.seed is None else f" with seed {trial.seed}"
                raise TrialsError(
                    f"{path}:{number}: arm {trial.arm!r} has item {trial.item!r}{seed} already on "
                    f"line {lines[trial.key]}; repeated runs need different seeds"
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


@dataclass(frozen=True)
class ArmScores:
    """One arm's scores on the items that all arms share."""

    arm: str
    scores: Floats
    """(seeds, items)"""
    seeds: tuple[str | None, ...]
    format_ok: float
    """Share of answers that parsed, repaired ones included."""
    repaired: float
    """Share of answers that parsed at the second attempt."""
    failures: tuple[str, ...]
    """Items whose answers failed, each with why."""
    seconds: Floats
    """Seconds of each answer, those that have them; may be empty."""
    cost_usd: Floats
    """Dollars of each answer, those that have them; may be empty."""
    tokens: Floats
    """(seeds * items, 3) input, cached and output tokens of each answer; NaN where it has none."""
    grades: Floats | None = None
    """(3, seeds, items) a judge's grades: answer last, answer first, the first again; NaN where it
    gave none, and None where no judge graded."""
    human: Floats | None = None
    """(seeds, items) what people gave the same answers, NaN where nobody looked; None without any."""
    labelled: int | None = None
    """Groups of items that people scored, once their scores have corrected these."""


@dataclass(frozen=True)
class Table:
    """Trials of several arms on common items, ready for the statistics."""

    items: tuple[str, ...]
    arms: tuple[ArmScores, ...]
    clusters: NDArray[np.intp] | None
    """(items,) cluster codes; None when no trial names a cluster."""
    slices: tuple[str | None, ...]
    left_out: int
    """Items that some arm or seed lacks."""

    @property
    def names(self) -> list[str]:
        """Names of the arms, in order."""
        return [arm.arm for arm in self.arms]

    def only(self, keep: NDArray[np.bool_]) -> Table:
        """The same arms on the items where `keep` is true."""
        arms = tuple(
            replace(
                arm,
                scores=arm.scores[:, keep],
                grades=None if arm.grades is None else arm.grades[:, :, keep],
                human=None if arm.human is None else arm.human[:, keep],
            )
            for arm in self.arms
        )
        chosen = np.flatnonzero(keep).tolist()
        clusters = None if self.clusters is None else self.clusters[keep]
        slices = tuple(self.slices[i] for i in chosen)
        return Table(tuple(self.items[i] for i in chosen), arms, clusters, slices, self.left_out)


def tabulate(trials: Iterable[Trial], arms: Sequence[str] | None = None) -> Table:
    """Arrange trials by arm, seed and item; items that some arm lacks are left out.

    Args:
        trials: of any number of arms.
        arms: which arms, in which order; all of them in order of appearance if None.

    Raises:
        TrialsError: an arm without trials, no common item, or an item in two clusters.

    """
    grouped: dict[str, dict[str | None, dict[str, Trial]]] = defaultdict(lambda: defaultdict(dict))
    for trial in trials:
        grouped[trial.arm][trial.seed][trial.item] = trial
    names = list(arms) if arms is not None else list(grouped)
    missing = [name for name in names if name not in grouped]
    if missing or not names:
        raise TrialsError(f"no trials of {', '.join(map(repr, missing)) or 'any arm'}")
    runs = [run for name in names for run in grouped[name].values()]
    every = dict.fromkeys(item for run in runs for item in run)
    items = tuple(item for item in every if all(item in run for run in runs))
    if not items:
        sizes = ", ".join(f"{n!r} {len(next(iter(grouped[n].values())))}" for n in names[:5])
        raise TrialsError(
            f"the arms share none of {len(every)} items (items by arm: {sizes}); "
            "arms are compared on the same items only: check the item names"
        )
    first = next(iter(grouped[names[0]].values()))
    clusters = _clusters(items, runs)
    slices = tuple(first[item].slice for item in items)
    table = tuple(_arm_scores(name, grouped[name], items) for name in names)
    return Table(items, table, clusters, slices, len(every) - len(items))


def _clusters(items: Sequence[str], runs: Sequence[dict[str, Trial]]) -> NDArray[np.intp] | None:
    """Cluster codes; an item without a cluster is a cluster of its own."""
    named: dict[str, str] = {}
    for run in runs:
        for item in items:
            cluster = run[item].cluster
            if cluster is not None and named.setdefault(item, cluster) != cluster:
                raise TrialsError(f"item {item!r} is in cluster {named[item]!r} and in {cluster!r}")
    if not named:
        return None
    codes: dict[tuple[bool, str], int] = {}
    keys = [(item in named, named.get(item, item)) for item in items]
    return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.intp)


def _arm_scores(name: str, runs: dict[str | None, dict[str, Trial]], items: Sequence[str]) -> ArmScores:
    seeds = tuple(sorted(runs, key=str))
    chosen = [runs[seed][item] for seed in seeds for item in items]
    scores = np.array([trial.score for trial in chosen]).reshape(len(seeds), len(items))
    answered = sum(trial.format_ok for trial in chosen) / len(chosen)
    repaired = sum(trial.repaired is True for trial in chosen) / len(chosen)
    failures = tuple(dict.fromkeys(f"{t.item}: {t.error}" for t in chosen if not t.format_ok and t.error))
    counts = [(trial.input_tokens, trial.cached_tokens, trial.output_tokens) for trial in chosen]
    tokens = np.array(counts, dtype=np.float64)
    seconds = _known(trial.seconds for trial in chosen)
    costs = _known(trial.cost_usd for trial in chosen)
    graded = any(trial.grades for trial in chosen)
    seen = any(trial.human is not None for trial in chosen)
    return ArmScores(
        name,
        scores,
        seeds,
        answered,
        repaired,
        failures,
        seconds,
        costs,
        tokens,
        grades=_grades(chosen).reshape(GRADES, *scores.shape) if graded else None,
        human=np.array([trial.human for trial in chosen], dtype=np.float64).reshape(scores.shape)
        if seen
        else None,
    )


GRADES = 3
"""Grades of one answer, at most."""


def _grades(trials: Sequence[Trial]) -> Floats:
    """(3, trials) grades of a judge; NaN where it gave none."""
    found = np.full((GRADES, len(trials)), np.nan)
    for column, trial in enumerate(trials):
        given = (trial.grades or ())[:GRADES]
        found[: len(given), column] = given
    return found


def _known(values: Iterable[Any]) -> Floats:
    return np.array([value for value in values if value is not None], dtype=np.float64)


def make_folder(folder: Path) -> None:
    """Create a folder and those above it.

    Raises:
        StudyError: it cannot be created; a file may stand in its place.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        StudyError: the disk is full or the folder cannot be written.

    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StudyError: the disk is full or the folder cannot be written.

    """
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from None
