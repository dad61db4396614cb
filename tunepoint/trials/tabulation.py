"""Arrange trials in a table of arms by items, and give one arm its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tunepoint.errors import TrialsError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.comparisons import score_intervals
from tunepoint.stats.intervals import Interval
from tunepoint.trials.table import ArmScores, Table, joint_of
from tunepoint.trials.trial import Trial

INTERVAL_DRAWS = 4_000
"""Random draws behind the interval of one arm; enough for two digits, which is what tables show."""
MAX_GRADES = 3
"""Grades of one answer: in both orders, and perhaps the first order again."""

_Run = dict[str, dict[str | None, Trial]]
"""Item -> decode -> trial, of one training seed."""
_Runs = Mapping[str | None, _Run]
"""Training seed -> item -> decode -> trial."""


def tabulate(trials: Iterable[Trial], arms: Sequence[str] | None = None) -> Table:
    """Arrange trials by arm, seed and item; items that some arm or seed lacks are left out.

    Args:
        trials: of any number of arms.
        arms: which arms, in which order; all of them in order of appearance if None.

    Raises:
        TrialsError: an arm without trials, no common item, or an item in two clusters.

    """
    grouped: dict[str, _Runs] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for trial in trials:
        grouped[trial.arm][trial.seed][trial.item][trial.decode] = trial
    names = list(arms) if arms is not None else list(grouped)
    missing = [name for name in names if name not in grouped]
    if missing or not names:
        raise TrialsError(f"no trials of {', '.join(map(repr, missing)) or 'any arm'}")
    runs = [run for name in names for run in grouped[name].values()]
    # Arms are compared item by item, so an item counts only if every run has answered it.
    all_items = dict.fromkeys(item for run in runs for item in run)
    items = tuple(item for item in all_items if all(item in run for run in runs))
    if not items:
        raise TrialsError(_no_common_item(grouped, names, len(all_items)))
    clusters = _clusters(_names(items, runs, "cluster", lambda trial: trial.cluster), items)
    slices = _names(items, runs, "slice", lambda trial: trial.slice)
    scores = tuple(_arm_scores(name, grouped[name], items) for name in names)
    answers = _answers([next(iter(grouped[name].values())) for name in names], items)
    left_out = len(all_items) - len(items)
    return Table(items, scores, clusters, tuple(map(slices.get, items)), left_out, answers=answers)


def mean_interval(trials: Sequence[Trial], rng: np.random.Generator | None = None) -> Interval:
    """Return the mean score of one arm's trials with its 95% interval, over items and training seeds.

    Args:
        trials: of one arm.
        rng: draws the interval; None starts a fixed one, so that the same trials show the same interval.

    Raises:
        EvidenceError: the trials are of fewer than two independent groups of items.

    """
    rng = np.random.default_rng(0) if rng is None else rng
    return score_intervals(joint_of(tabulate(trials)), rng, draws=INTERVAL_DRAWS)[0]


def _no_common_item(grouped: Mapping[str, _Runs], names: Sequence[str], items: int) -> str:
    """Return the message for trials without a common item: of the seeds of one arm, or of the arms."""
    for name in names:
        seeds = grouped[name]
        if len(seeds) > 1 and not set.intersection(*(set(run) for run in seeds.values())):
            listed = ", ".join("no seed" if seed is None else f"seed {seed}" for seed in seeds)
            return (
                f"arm {name!r}: its training seeds ({listed}) share no item; name the seed on every line "
                "or on none, and give every seed the same items"
            )
    sizes = ", ".join(f"{name!r} {len(next(iter(grouped[name].values())))}" for name in names[:5])
    return (
        f"the arms share none of {items} items (items by arm: {sizes}); "
        "arms are compared on the same items only: check the item names"
    )


def _names(
    items: Sequence[str], runs: Sequence[_Run], what: str, name_of: Callable[[Trial], str | None]
) -> dict[str, str]:
    """Return item -> its slice or cluster, which any of its trials may name.

    Raises:
        TrialsError: two trials of an item name different ones.

    """
    names: dict[str, str] = {}
    for run in runs:
        for item in items:
            for trial in run[item].values():
                name = name_of(trial)
                if name is not None and names.setdefault(item, name) != name:
                    raise TrialsError(f"item {item!r} is in {what} {names[item]!r} and in {name!r}")
    return names


def _clusters(names: Mapping[str, str], items: Sequence[str]) -> NDArray[np.intp] | None:
    """Return the (items,) cluster codes; an item without a cluster is a cluster of its own."""
    if not names:
        return None
    codes: dict[tuple[bool, str], int] = {}
    # The flag keeps an item apart from a cluster of the same name.
    keys = [(item in names, names.get(item, item)) for item in items]
    return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.intp)


def _arm_scores(name: str, runs: _Runs, items: Sequence[str]) -> ArmScores:
    """Return an arm's scores; an item with several decodes counts as their mean."""
    seeds = tuple(sorted(runs, key=str))
    cells = [[_decodes(runs[seed][item]) for item in items] for seed in seeds]
    trials = [trial for row in cells for cell in row for trial in cell]
    firsts = [[cell[0] for cell in row] for row in cells]
    decode_counts = {len(cell) for row in cells for cell in row}
    decodes: tuple[Floats, ...] = ()
    # Unequal numbers of decodes make no rectangle; then only their mean is used.
    if len(decode_counts) == 1 and decode_counts != {1}:
        decodes = tuple(np.array([[trial.score for trial in cell] for cell in row]).T for row in cells)
    failures = dict.fromkeys(f"{t.item}: {t.error}" for t in trials if not t.format_ok and t.error)
    tokens = [(trial.input_tokens, trial.cached_tokens, trial.output_tokens) for trial in trials]
    cache_tokens = [(trial.written_tokens or 0, trial.cacheable_tokens) for trial in trials]
    return ArmScores(
        name,
        np.array([[sum(trial.score for trial in cell) / len(cell) for cell in row] for row in cells]),
        seeds,
        format_ok=sum(trial.format_ok for trial in trials) / len(trials),
        repaired=sum(trial.repaired is True for trial in trials) / len(trials),
        failures=tuple(failures),
        seconds=_without_none(trial.seconds for trial in trials),
        cost_usd=_without_none(trial.cost_usd for trial in trials),
        tokens=np.array(tokens, dtype=np.float64),
        cache_tokens=np.array(cache_tokens, dtype=np.float64),
        core_seconds=_without_none(trial.core_seconds for trial in trials),
        grades=_grades(firsts) if any(trial.grades for trial in trials) else None,
        human=_human(firsts),
        decodes=decodes,
        first=None if decode_counts == {1} else np.array([[t.score for t in row] for row in firsts]),
        answers=len(trials) / len(items),
    )


def _decodes(cell: Mapping[str | None, Trial]) -> list[Trial]:
    """Return the decodes of an answer, the unnamed one first."""
    if len(cell) == 1:
        return list(cell.values())
    return [cell[name] for name in sorted(cell, key=lambda name: (name is not None, str(name)))]


def _grades(firsts: Sequence[Sequence[Trial]]) -> Floats:
    """Return the (3, seeds, items) grades of a judge, of the first decodes; NaN where it gave none."""
    table = np.full((MAX_GRADES, len(firsts), len(firsts[0])), np.nan)
    for seed, row in enumerate(firsts):
        for column, trial in enumerate(row):
            grades = (trial.grades or ())[:MAX_GRADES]
            table[: len(grades), seed, column] = grades
    return table


def _human(firsts: Sequence[Sequence[Trial]]) -> Floats | None:
    """Return the (seeds, items) grades of people, who grade first decodes; None if there are none."""
    if all(trial.human is None for row in firsts for trial in row):
        return None
    return np.array([[trial.human for trial in row] for row in firsts], dtype=np.float64)


def _answers(runs: Sequence[_Run], items: Sequence[str]) -> NDArray[np.intp] | None:
    """Return (arms, items) numbers of the first answers of each arm; None where some trial has none."""
    codes: dict[str, int] = {}
    numbers = np.empty((len(runs), len(items)), dtype=np.intp)
    for arm, run in enumerate(runs):
        for place, item in enumerate(items):
            trial = _decodes(run[item])[0]
            if trial.answer is None and trial.format_ok:
                return None
            numbers[arm, place] = codes.setdefault(trial.plain_answer, len(codes))
    return numbers


def _without_none(values: Iterable[float | None]) -> Floats:
    return np.array([value for value in values if value is not None], dtype=np.float64)
