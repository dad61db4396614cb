"""The main job: measure every arm on the user's task, price them, decide, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunepoint.arms import Arm
from tunepoint.candidates import Candidates, candidates, load_encoder
from tunepoint.cascades import Cascade, choose_gate
from tunepoint.cost.prices import (
    NOTHING,
    ArmCost,
    arms_toml,
    declared_cost,
    guessed_cost,
    mean_and_error,
    read_arms,
)
from tunepoint.data.audit import doubtful_labels
from tunepoint.data.examples import Example
from tunepoint.decisions import Decision, decide
from tunepoint.documents import document, economics
from tunepoint.errors import StudyError, TrialsError, nearest
from tunepoint.findings import (
    contamination,
    disagreements,
    familiarity,
    gather_facts,
    ladder,
    learning_curve,
    provenance,
    training_warnings,
)
from tunepoint.measure.prepare import Audit, Prepared, prepare
from tunepoint.measure.study import Bench, Meter, Progress, Study, cores, open_study, silent
from tunepoint.measure.trials import (
    Table,
    make_folder,
    mean_score,
    read_trials,
    tabulate,
    write_json,
    write_text,
)
from tunepoint.report import write_report
from tunepoint.signals import Facts, measure_signals
from tunepoint.task import Task

if TYPE_CHECKING:  # torch is loaded with the model, not with the package
    from tunepoint.models.encoder import Encoder

MOST_FINALISTS = 5
TIMED = 50
"""Test items that are asked one at a time, so that their seconds are those of a request."""
SHARES = (0.06, 0.15, 0.4)
"""Sizes of the learning curve below the whole of train."""


@dataclass(frozen=True)
class Result:
    """A finished study."""

    decision: Decision
    document: Mapping[str, Any]
    """The content of decision.json."""
    folder: Path | None
    notes: tuple[str, ...] = ()
    """What happened on the way that the user should know."""
    audit: Audit | None = None
    """What was found in the examples; None for trials that another tool measured."""

    @property
    def report(self) -> Path | None:
        """The report, if the study has a folder."""
        return self.folder / "report.html" if self.folder else None


def run(
    task: Task,
    *,
    out: Path | str | None = None,
    seed: int = 0,
    max_usd: float | None = None,
    progress: Progress = silent,
) -> Result:
    """Measure every arm that the task allows, and decide.

    Args:
        out: the study directory; `studies/NAME-FINGERPRINT` if None. A study that was
            killed goes on where it stopped.
        seed: all randomness; the same seed gives the same split, scores and verdict.
        max_usd: stop before the step that would spend more, this machine's time included.
        progress: called with what is done, and how much of the planned work.

    Raises:
        TunepointError: whatever the user can mend; nothing that was measured is lost.

    """
    prepared = prepare(task, np.random.default_rng([seed, 1]))
    encoder = load_encoder(task)
    folder = Path(out) if out is not None else default_folder(task, prepared, seed)
    with open_study(folder, task, prepared, seed) as study:
        price = task.costs.core_hour_usd.likely / 3600 * cores()
        meter = Meter(max_usd, price, float(study.manifest["spent_usd"]))
        bench = Bench(study, task, prepared, meter, progress)
        tried = _plan(bench, encoder)
        prepared = _look(bench, encoder, prepared)
        finalists = _select(bench, tried)
        _draw_curve(bench, tried)
        _test(bench, tried, encoder, finalists)
        return _conclude(bench, tried, finalists, encoder, prepared)


def default_folder(task: Task, prepared: Prepared, seed: int) -> Path:
    """`studies/NAME-FINGERPRINT`: the same question goes on, another one starts anew."""
    identity = f"{task.measured_by()[:4]}{prepared.fingerprint[:4]}"
    return Path("studies") / f"{task.name}-{identity}-{seed}"


# -- the steps of a study ------------------------------------------------------------------


def _plan(bench: Bench, encoder: Encoder) -> Candidates:
    """Say what will be tried and about how long it takes."""
    split = bench.prepared.split
    keep = bench.study.folder / "arms"
    tried = candidates(bench.task, encoder, split.train, split.dev, keep)
    for arm in tried.arms:
        bench.plan(_expected(arm, len(split.train), 0))
    for share in SHARES:
        bench.plan(_expected(replace(tried.fine_tuned, seeds=1), int(len(split.train) * share), 0))
    bench.plan(MOST_FINALISTS * (0.03 * TIMED + 2 * len(split.test) / 200))
    bench.plan(len(split.train) / 60)
    return tried


def _expected(arm: Arm, train: int, asked: int) -> float:
    """Seconds that fitting an arm and asking it will take, roughly."""
    slow = arm.family == "fine-tuned encoder"
    fitting = arm.seeds * (2.0 + train * 4 / 100) if slow else 0.5
    return fitting + arm.seeds * asked * 0.015


def _look(bench: Bench, encoder: Encoder, prepared: Prepared) -> Prepared:
    """Embed what is asked more than once, and find doubtful labels outside the test."""
    bench.progress("reading the examples", 0.0, bench.planned_seconds)
    seen = (*prepared.split.train, *prepared.split.dev)
    inputs = [example.input for example in seen]
    encoder.warm(inputs)
    encoder.remember(inputs)
    groups = [prepared.split.clusters[example.id] for example in seen]
    doubts = doubtful_labels(seen, encoder.embed(inputs), groups=groups)
    bench.done_seconds += len(prepared.split.train) / 60
    return prepared.with_doubts(doubts)


def _select(bench: Bench, tried: Candidates) -> list[Arm]:
    """Measure all candidates on dev and name the finalists."""
    split = bench.prepared.split
    for arm in tried.arms:
        expected = _expected(arm, len(split.train), 0)
        bench.measure(arm, bench.study.dev, split.dev, split.train, expected=expected)
    scores = {arm.name: mean_score(bench.study.dev.of(arm.name)) for arm in tried.arms}
    best = {
        kind: max(arms, key=lambda arm: scores[arm.name])
        for kind, arms in (("prompt", tried.prompting), ("tuned", tried.tuned), ("hybrid", tried.hybrid))
    }
    cascade = _cascade(bench, best, scores)
    bench.measure(cascade, bench.study.dev, split.dev, split.train)
    chosen = [best["prompt"], best["tuned"], best["hybrid"], cascade]
    families = {arm.family for arm in chosen}
    others = [arm for arm in tried.arms if arm.family not in families]
    others.sort(key=lambda arm: -scores[arm.name])
    return [*chosen, *others[: MOST_FINALISTS - len(chosen)]]


def _cascade(bench: Bench, best: Mapping[str, Arm], scores: Mapping[str, float]) -> Cascade:
    """The best prompt first, the best trained arm behind it, with the gate that dev chose."""
    cheap = best["prompt"]
    strong = max((best["tuned"], best["hybrid"]), key=lambda arm: scores[arm.name])
    log = bench.study.dev
    first = {trial.item: trial for trial in log.of(cheap.name) if trial.confidence is not None}
    later = [trial for trial in log.of(strong.name) if trial.item in first]
    gate = choose_gate(
        np.array([first[trial.item].confidence for trial in later], dtype=np.float64),
        np.array([first[trial.item].score for trial in later]),
        np.array([trial.score for trial in later]),
    )
    return Cascade(cheap, strong, gate)


def nested_subsets(
    train: Sequence[Example], shares: Sequence[float], rng: np.random.Generator
) -> list[list[Example]]:
    """Subsets of train, each inside the next, every label in its share."""
    order = rng.permutation(len(train))
    seen: dict[str, int] = {}
    rank: list[tuple[float, int]] = []
    total: dict[str, int] = {}
    for example in train:
        total[example.target] = total.get(example.target, 0) + 1
    for i in order.tolist():
        label = train[i].target
        seen[label] = seen.get(label, 0) + 1
        rank.append(((seen[label] - 0.5) / total[label], i))
    ranked = [i for _, i in sorted(rank)]
    return [[train[i] for i in ranked[: max(2, round(share * len(train)))]] for share in shares]


def _draw_curve(bench: Bench, tried: Candidates) -> None:
    """Fine-tune on nested subsets and measure on dev; the whole of train is there already."""
    split = bench.prepared.split
    rng = np.random.default_rng([int(bench.study.manifest["seed"]), 2])
    arm = replace(tried.fine_tuned, seeds=1, keep=None, familiar=())
    for subset in nested_subsets(split.train, SHARES, rng):
        name = f"{arm.name}, {len(subset)} examples"
        expected = _expected(arm, len(subset), 0)
        bench.measure(arm, bench.study.curve, split.dev, subset, name=name, expected=expected)


def _test(bench: Bench, tried: Candidates, encoder: Encoder, finalists: Sequence[Arm]) -> None:
    """Open the sealed test: time single requests first, then ask for the rest in batches."""
    split, log = bench.prepared.split, bench.study.test
    bench.study.unseal([arm.name for arm in finalists], len(split.test))
    timed = split.test[:TIMED]
    for arm in finalists:
        expected = 0.03 * len(timed)
        bench.measure(arm, log, timed, split.train, one_by_one=True, seeds=1, expected=expected)
    inputs = [example.input for example in split.test]
    encoder.warm(inputs)
    encoder.remember(inputs)
    tried.fine_tuned.remember(inputs)
    for arm in finalists:
        bench.measure(arm, log, split.test, split.train, expected=arm.seeds * len(split.test) / 200)


# -- from trials to the verdict ------------------------------------------------------------


def _conclude(
    bench: Bench,
    tried: Candidates,
    finalists: Sequence[Arm],
    encoder: Encoder,
    prepared: Prepared,
) -> Result:
    study, task = bench.study, bench.task
    names = [arm.name for arm in finalists]
    table = tabulate(study.test.trials, names)
    costs = [own_machine_cost(arm, study, table, task) for arm in finalists]
    seed = int(study.manifest["seed"])
    warnings = training_warnings(study)
    decision = decide(table, costs, task, np.random.default_rng([seed, 3]), caveats=warnings)
    facts = gather_facts(study, task, tried, finalists, prepared, familiarity(encoder, prepared))
    optimism = mean_score(study.dev.of(decision.winner)) - decision.finalist(decision.winner).score.estimate
    content = document(
        decision,
        task,
        measure_signals(decision, task, facts),
        optimism=optimism,
        contamination=contamination(table, costs, task, prepared, seed),
        provenance=provenance(study.manifest),
        today=datetime.now(UTC).date(),
    )
    measurements = {
        "audit": asdict(prepared.audit),
        "ladder": ladder(study, tried),
        "curve": learning_curve(study, tried, len(prepared.split.train)),
        "not_run": [asdict(left) for left in tried.not_run],
        "disagreements": disagreements(prepared, table, study.test.trials),
        "economics": economics(decision, task),
    }
    write_text(study.folder / "arms.toml", arms_toml(costs))
    _write(study.folder, content, measurements)
    return Result(decision, content, study.folder, tuple(study.repairs), prepared.audit)


def _write(folder: Path, content: Mapping[str, Any], measurements: Mapping[str, Any]) -> None:
    """The three files that every decision has, the report last."""
    write_json(folder / "measurements.json", measurements)
    write_json(folder / "decision.json", content)
    write_report(folder, content, measurements)


def own_machine_cost(arm: Arm, study: Study, table: Table, task: Task) -> ArmCost:
    """Cost of an arm that runs on one's own machine: measured seconds on all cores."""
    fits = list(study.manifest["arms"][arm.name]["fits"].values())
    scores = table.arms[table.names.index(arm.name)]
    trained = arm.kind != "prompt"
    mean, error = mean_and_error(scores.seconds)
    return ArmCost(
        arm.name,
        arm.kind,
        labels=max(int(fit["examples"]) for fit in fits),
        training_core_seconds=float(np.mean([fit["seconds"] for fit in fits])) * cores(),
        hours=task.costs.engineering_hours if trained else task.costs.prompt_hours,
        core_seconds_per_query=mean * cores(),
        core_seconds_error=error * cores(),
        retrain_hours=task.costs.retrain_hours if trained else NOTHING,
        deterministic=arm.seeds == 1,
    )


# -- trials that another tool measured -----------------------------------------------------


def decide_trials(
    trials: Path | str,
    task: Task,
    *,
    arms: Path | str | None = None,
    out: Path | str | None = None,
    seed: int = 0,
) -> Result:
    """Decide on trials that any tool measured.

    Args:
        trials: a JSONL file with `arm`, `item` and `score` on every line.
        arms: arms.toml with kind and cost of each arm; guessed from names and trials if None.
        out: folder for decision.json and the report; nothing is written if None.

    Raises:
        TrialsError: the files do not follow their format, or name different arms.

    """
    table = tabulate(read_trials(Path(trials)))
    costs = _foreign_costs(table, Path(arms) if arms is not None else None)
    decision = decide(table, costs, task, np.random.default_rng([seed, 3]))
    content = document(
        decision,
        task,
        measure_signals(decision, task, Facts()),
        provenance={"trials": Path(trials).name, "seed": seed},
        today=datetime.now(UTC).date(),
    )
    measurements = {"economics": economics(decision, task)}
    folder = None if out is None else Path(out)
    if folder is not None:
        if (folder / "manifest.json").exists():
            raise StudyError(f"{folder}: is a study that was measured here; choose another --out")
        make_folder(folder)
        _write(folder, content, measurements)
    return Result(decision, content, folder)


def _foreign_costs(table: Table, arms: Path | None) -> list[ArmCost]:
    if arms is None:
        return [guessed_cost(scores) for scores in table.arms]
    declared = read_arms(arms)
    for name in table.names:
        if name not in declared:
            raise TrialsError(f"{arms}: no [[arm]] named {name!r}; {nearest(name, declared)}")
    return [declared_cost(declared[scores.arm], scores) for scores in table.arms]
